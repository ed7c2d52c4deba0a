"""Where the inspector's pages are, for links to them from Prefect's artifacts and from messages."""

from __future__ import annotations

import os
from urllib.parse import quote

_DEFAULT = "http://127.0.0.1:8420"


def inspector_url() -> str:
    """The address under which people reach the inspector: TALLY_INSPECTOR_URL, or where `tally inspect` listens."""
    return os.environ.get("TALLY_INSPECTOR_URL", _DEFAULT).rstrip("/")


def run_url(run: str) -> str:
    """The page of a run."""
    return f"{inspector_url()}/runs/{quote(run, safe='')}"


def stage_url(run: str, *, stage: str) -> str:
    """The page of a stage of a run, under its name in the run, such as `train.source`."""
    return f"{run_url(run)}/stages/{quote(stage, safe='')}"
