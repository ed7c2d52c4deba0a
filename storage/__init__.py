"""Artifacts, manifests, catalogs and data-set formats. Knows neither torch nor Prefect."""
