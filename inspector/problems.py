"""What goes wrong with a request, as a page that says so: status, title, and what to do."""

from __future__ import annotations


class PageError(Exception):
    """Shown in place of the page that was asked for."""

    def __init__(self, status: int, title: str, text: str) -> None:
        """An HTTP status, a heading and a sentence or two."""
        super().__init__(text)
        self.status, self.title, self.text = status, title, text


def not_found(what: str) -> PageError:
    """There is no such thing here."""
    return PageError(404, "Not found", f"There is no such {what} here.")
