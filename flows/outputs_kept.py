"""Whether what an earlier run of a name left in its folder is what this one would write again, byte for byte but times.

`run.json` notes the files that a finished run wrote, and a digest of what they were made from: the run's results, and
the program's own files. Where both are as they were, a run with nothing to do writes none of them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.runs import HISTORY, PROGRESS_FILE, RUN_FILE, RunRecord, read_run
from storage.digest import JSON, digest_json

_CODE = ("flows", "tasks", "storage", "inspector")
_CODE_SUFFIXES = (".py", ".html", ".css")
# What differs between two runs of which the second has nothing to do.
_PASSING = ("started", "finished", "host", "process", "flow_run", "outputs")
_OWN = (RUN_FILE, PROGRESS_FILE, HISTORY)


def note_outputs(record: RunRecord, *, folder: Path) -> None:
    """Note in the record which files it left in its folder, and what they were made from."""
    record.outputs = {"made_from": _made_from(record), "files": _stamps(folder)}


def outputs_kept(record: RunRecord, *, folder: Path) -> bool:
    """Whether everything that the run would write is in its folder already; if so the record takes over the note."""
    try:
        before: Mapping[str, JSON] = read_run(folder).get("outputs") or {}
    except ValueError:
        return False
    if not before or before["made_from"] != _made_from(record):
        return False
    there = _stamps(folder)
    if any(there.get(name) != stamp for name, stamp in before["files"].items()):
        return False
    record.outputs = before
    return True


def _made_from(record: RunRecord) -> str:
    told = {name: value for name, value in record.to_json().items() if name not in _PASSING}
    stages = [{name: value for name, value in one.items() if name != "cached"} for one in told.pop("stages")]
    return digest_json([told, stages, _code()])


def _code() -> list[list[JSON]]:
    """Name, size and time of change of the program's files: a newer version may write other pages."""
    root = Path(__file__).parents[1]
    found = (path for package in _CODE for path in sorted((root / package).rglob("*")))
    return [[str(path.relative_to(root)), *_stamp(path)] for path in found if path.suffix in _CODE_SUFFIXES]


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of every file of a run but its record, by its path in the folder."""
    files = (path for one in folder.iterdir() if one.name not in _OWN for path in (one, *one.rglob("*")))
    return {str(path.relative_to(folder)): _stamp(path) for path in files if path.is_file()}


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]
