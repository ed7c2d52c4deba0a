"""The inspector's pages: one file a subject, each a function that makes the routes of a site."""
