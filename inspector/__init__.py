"""Web pages over the artifact store. Reads; never computes a stage."""
