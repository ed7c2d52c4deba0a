"""One trained model measured on a data set's val and test photos: a small run with a folder and a record of its own."""

from __future__ import annotations

from pathlib import Path

from flows.catalog import catalog_name
from flows.options import EvaluateOptions
from flows.pipeline import evaluate_rung, ingest_splits
from flows.promotion import checkpoint_in
from flows.runner import Runner
from flows.runs import RunRecord, now, read_run
from storage.champions import current_champion
from storage.digest import JSON
from storage.manifest import Manifest
from storage.store import Store

CHAMPION = "champion"


def checkpoint_of(model: str, *, store: Store, runs: Path, catalog: str) -> Manifest:
    """The checkpoint that `model` names: the catalog's champion, or the best one of a run.

    Raises:
        ValueError: nothing was promoted and nothing ran yet, or the run has no checkpoint.
    """
    record = current_champion(store, catalog=catalog) if model == CHAMPION else None
    if record is not None:
        return store.load(record.checkpoint)
    run = read_run(_last_trained(runs) if model == CHAMPION else runs / model)
    checkpoint = checkpoint_in(run, rung=str(run.get("champion")))
    if checkpoint is None:
        raise ValueError(f"model: expected a run that trained a model, got {model!r}, which ended as {run['state']}")
    return store.load(store.manifest_url(str(checkpoint["stage"]), key=str(checkpoint["key"])))


def _last_trained(runs: Path) -> Path:
    trained = [path.parent for path in runs.glob("*/run.json") if read_run(path.parent).get("champion")]
    if not trained:
        raise ValueError(f"model: expected a champion, got none under {runs}/; `tally run` trains one")
    return max(trained, key=lambda path: (path / "run.json").stat().st_mtime_ns)


def evaluate_model(options: EvaluateOptions, *, run: Runner) -> dict[str, JSON]:
    """Predict val and test with the model and evaluate; returns the report and leaves `run.json`.

    Raises:
        ValueError: there is no such model, or the data set has no photos to measure on.
    """
    shared = options.run_options
    catalog = options.catalog or catalog_name(options.dataset)
    checkpoint = checkpoint_of(options.model, store=run.store, runs=Path(options.runs), catalog=catalog)
    version = shared.version(run.store)
    record = RunRecord(
        name=shared.folder.name,
        dataset=str(Path(options.dataset).resolve()),
        catalog=catalog,
        catalog_version=0 if version is None else version.number,
        preset=options.preset,
        store=run.store.url,
        parameters=shared.configuration().model_dump(mode="json"),
        results=run.results,
    )
    try:
        splits = ingest_splits(run, choice=shared.choice(run.store))
        record.target_protocol = splits.target_protocol
        preset = shared.configuration()
        rung = evaluate_rung(run, options.model, checkpoint=checkpoint, prepared=splits, preset=preset)
        record.state, record.ladder = "completed", {options.model: rung.report["honest"]}
    except BaseException as error:
        record.state, record.error = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        record.finished = now()
        record.write(shared.folder)
    return dict(rung.report)
