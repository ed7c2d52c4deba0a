"""Which checkpoint a name means that `tally run --only select --checkpoint NAME` gives: RUNG, RUN/RUNG or RUN.

A rung alone is one of the run's own, as far as it or an earlier run of its name came; a run alone means its champion.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from flows.runs import HISTORY, RUN_FILE
from storage.catalog import categories_of
from storage.digest import JSON
from storage.manifest import Manifest
from storage.store import Store

_TRAINING = "train."


def named_checkpoint(name: str, *, runs: Path, own: str, store: Store) -> Manifest:
    """The checkpoint that `name` means; `own`: the name of the run that asks.

    Raises:
        ValueError: there is no such run or rung, or the store does not hold its checkpoint.
    """
    run, rung = _parts(name, runs=runs, own=own)
    known: dict[str, tuple[str, str]] = {}
    for record in _records(runs / run):
        known = {**checkpoints_of(record), **known}
        rung = rung or str(record["champion"] or "")
    if rung not in known:
        there = f"a rung of run {run} ({', '.join(known)})" if known else f"a run with trained rungs, as {run} has none"
        raise ValueError(
            f"checkpoint: expected {there}, got {name!r}; `tally status --run {run}` shows what a run made"
        )
    stage, key = known[rung]
    found = store.find(stage, key=key)
    if found is None:
        raise ValueError(
            f"checkpoint: expected that of {run}/{rung} in {store.url}, got none; it lies in another store, or was "
            f"collected or damaged: `tally run --name {run} …` with the options of that run makes it again"
        )
    return found


def _parts(name: str, *, runs: Path, own: str) -> tuple[str, str]:
    """Run and rung that a name consists of; no rung where it is the run's champion.

    Raises:
        ValueError: it names neither a rung nor a run.
    """
    run, slash, rung = name.partition("/")
    if slash and rung and "/" not in rung and _is_run(runs / run):
        return run, rung
    if not slash and any(name in checkpoints_of(record) for record in _records(runs / own)):
        return own, name
    if not slash and _is_run(runs / name):
        return name, ""
    there = sorted(path.parent.name for path in runs.glob(f"*/{RUN_FILE}"))
    rungs = list(dict.fromkeys(rung for record in _records(runs / own) for rung in checkpoints_of(record)))
    raise ValueError(
        f"checkpoint: expected a rung of run {own} ({', '.join(rungs) or 'it has none yet'}), RUN/RUNG or the name of "
        f"a run under {runs}/ ({', '.join(there) or 'there is none'}), got {name!r}"
    )


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file()


def _records(folder: Path) -> Iterator[dict[str, JSON]]:
    """What a run recorded, then the earlier runs of its name, the latest first; broken records are left out."""
    for path in (folder / RUN_FILE, *sorted((folder / HISTORY).glob("*.json"), reverse=True)):
        try:
            yield orjson.loads(path.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            continue


def checkpoints_of(record: dict[str, JSON]) -> dict[str, tuple[str, str]]:
    """Stage and key of the checkpoint of each rung that a run trained, whether it came to its end or not."""
    trained = {
        one["name"].removeprefix(_TRAINING): (one["stage"], one["key"])
        for one in record["stages"]
        if one["name"].startswith(_TRAINING)
    }
    ended = {rung: (one["stage"], one["key"]) for rung, one in record["checkpoints"].items()}
    return {**trained, **ended}


def require_same_products(checkpoint: Manifest, *, val: Manifest, store: Store) -> None:
    """Refuse a checkpoint that knows other products than val has: its classes would be taken for those.

    Raises:
        ValueError: it does.
    """
    known = [one["sku"] for one in orjson.loads(store.read(checkpoint.row("config")))["categories"]]
    wanted = [category.sku for category in categories_of(val)]
    if known != wanted:
        odd = sorted(set(known) ^ set(wanted))
        raise ValueError(
            f"checkpoint: expected one of the same {len(wanted)} products, got one of {len(known)} "
            f"({', '.join(odd[:5]) or 'in another order'}); name one that was trained on this catalog"
        )
