"""Champion and challenger: the model of a finished run is promoted, or not, and the decision is kept with its reasons.

The first model of a catalog becomes its champion. After that a challenger must be better on val (stage `compare`).
Every decision is a record in the store (`storage.champions`); `install` puts the champion's files where
`--model champion` and `tally serve` find them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from flows.champion import POINTER
from flows.pipeline import Rung, Splits
from flows.presets import Preset
from flows.retrain import change_since
from flows.runner import Runner
from flows.runs import now, write_json
from storage.champions import ChampionRecord, champion_history, record_decision
from storage.digest import JSON
from storage.files import replace_file
from storage.manifest import Manifest
from storage.store import Store

FOLDER = "champions"
_JUDGED_INPUTS = ("catalog", "pool", "val")
_FILES = {"checkpoint": "model.safetensors", "config": "model.json"}
# What a retraining builds on; where views were weighed once more, by pseudo-labels, that is what counts.
_KEPT = ("coarse", "saliency", "segment", "prune", "board", "compose", "render")


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """A model that may become champion: where it comes from, and what it was made from and judged on."""

    catalog: str
    catalog_version: int
    run: str
    preset: str
    name: str
    rung: Rung
    stages: Mapping[str, str]


def checkpoint_in(run: Mapping[str, JSON], *, rung: str) -> Mapping[str, JSON] | None:
    """Stage, key and content digest of the checkpoint of a rung, out of a run's run.json; None where it has none."""
    trained = {str(one["name"]): one for one in run.get("stages") or []}.get(f"train.{rung}")
    return (run.get("checkpoints") or {}).get(rung) or (trained and {"stage": "train", **trained})


def kept_stages(urls: Mapping[str, str]) -> dict[str, str]:
    """Manifests of a pipeline's stages (URLs by name in the run) that a retraining builds on."""
    found = {name: urls.get(f"{name}.feedback", urls.get(name)) for name in _KEPT}
    return {name: url for name, url in found.items() if url is not None}


def judged_inputs(digests: Mapping[str, str]) -> dict[str, str]:
    """Content digests of what a model was made from and judged on, of those of a run's stages by their name."""
    found = {name: digests.get(f"ingest.{name}") for name in _JUDGED_INPUTS}
    return {name: digest for name, digest in found.items() if digest is not None}


def inputs_of(splits: Splits) -> dict[str, str]:
    """Content digests of what a model is made from and judged on: the same ones ask for no new decision."""
    return {name: getattr(splits, name).content_digest for name in _JUDGED_INPUTS}


def settled(history: Sequence[ChampionRecord], *, inputs: Mapping[str, str]) -> bool:
    """Whether the present champion was made from, kept or brought back on these inputs: there is nothing to retrain."""
    made = [one.number for one in history if one.action != "rejected"]
    return bool(made) and any(dict(one.inputs) == dict(inputs) for one in history if one.number >= made[-1])


def already_judged(
    history: Sequence[ChampionRecord], *, inputs: Mapping[str, str], checkpoint: str
) -> ChampionRecord | None:
    """The decision on this very checkpoint on these inputs, or None.

    One that was promoted once is not again: somebody may have rolled it back. One that was rejected is judged anew when
    another champion has come since.
    """
    made = [one.number for one in history if one.action != "rejected"]
    same = [one for one in history if dict(one.inputs) == dict(inputs) and one.checkpoint_digest == checkpoint]
    count = [one for one in same if one.action != "rejected" or (made and one.number >= made[-1])]
    return count[-1] if count else None


def judge(run: Runner, *, challenger: Challenger, splits: Splits, preset: Preset) -> ChampionRecord:
    """The decision on a challenger, recorded unless it was made before."""
    history = champion_history(run.store, catalog=challenger.catalog)
    digest, inputs = challenger.rung.checkpoint.content_digest, inputs_of(splits)
    before = already_judged(history, inputs=inputs, checkpoint=digest)
    if before is not None:
        return before
    made = [one for one in history if one.action != "rejected"]
    if not made:
        measured = {"val": challenger.rung.report["val"], "test": challenger.rung.report["honest"]}
        first = _record(
            challenger,
            inputs=inputs,
            action="promoted",
            reasons=("the first model of this catalog",),
            figures={split: challenger_figures(levels) for split, levels in measured.items()},
        )
        return record_decision(run.store, first)
    champion = run.store.load(made[-1].checkpoint)
    decided = compared(run, champion=champion, challenger=challenger.rung, splits=splits, preset=preset)
    record = _record(
        challenger,
        inputs=inputs,
        action="promoted" if decided["promoted"] else "rejected",
        reasons=tuple(decided["reasons"]),
        replaced=made[-1].number,
        figures=decided["figures"],
    )
    return record_decision(run.store, record)


def challenger_figures(levels: Mapping[str, JSON]) -> dict[str, JSON]:
    """Figures of a model that was compared with none, by level, in the form of stage `compare`."""
    return {"challenger": {"all": dict(levels)}}


def compared(
    run: Runner, *, champion: Manifest, challenger: Rung, splits: Splits, preset: Preset
) -> Mapping[str, JSON]:
    """What stage `compare` says of both on the present val (and test)."""
    on_val, on_test = (
        run.stage(f"predict.champion.{split}", preset.predict, checkpoint=champion, photos=photos)
        for split, photos in (("val", splits.val), ("test", splits.test))
    )
    change = change_since(champion, catalog=splits.catalog, run=run)
    params = preset.compare.model_copy(update={"required": bool(change.gone), "decision": preset.evaluate.decision})
    made = run.stage(
        "compare",
        params,
        val=splits.val,
        test=splits.test,
        champion=champion,
        champion_predictions=[on_val, on_test],
        challenger_predictions=[challenger.val_predictions, challenger.test_predictions],
    )
    return dict(orjson.loads(run.store.read(made.row("decision"))))


def _record(
    challenger: Challenger,
    *,
    inputs: Mapping[str, str],
    action: str,
    reasons: tuple[str, ...],
    replaced: int = 0,
    figures: Mapping[str, JSON] | None = None,
) -> ChampionRecord:
    return ChampionRecord(
        catalog=challenger.catalog,
        catalog_version=challenger.catalog_version,
        action=action,  # type: ignore[arg-type]
        time=now(),
        run=challenger.run,
        rung=challenger.name,
        preset=challenger.preset,
        checkpoint=challenger.rung.checkpoint.url,
        checkpoint_digest=challenger.rung.checkpoint.content_digest,
        inputs=inputs,
        stages=challenger.stages,
        replaced=replaced,
        reasons=reasons,
        figures=figures or {},
    )


def install(record: ChampionRecord, *, store: Store, runs: Path) -> Path:
    """Put a champion's files under `runs/champions/` and point `runs/champion.json` there; returns the folder.

    Does nothing where they are the champion's already: who serves it reads it again only when it changes.
    """
    folder = runs / FOLDER / record.checkpoint_digest[:16]
    checkpoint = store.load(record.checkpoint)
    for item_id, name in _FILES.items():
        data = store.read(checkpoint.row(item_id))
        if not (folder / name).is_file() or (folder / name).read_bytes() != data:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / name, data)
    pointer = {"folder": str(folder.relative_to(runs)), "catalog": record.catalog, "number": record.number}
    if not (runs / POINTER).is_file() or orjson.loads((runs / POINTER).read_bytes()) != pointer:
        write_json(runs / POINTER, pointer)
    return folder


def decision_line(record: ChampionRecord) -> str:
    """One line for people: what was decided and why."""
    what = {
        "promoted": f"promoted, number {record.number}",
        "rejected": f"number {record.replaced} stays",
        "rolled back": f"rolled back to number {record.restored}",
    }[record.action]
    return f"{what} ({'; '.join(record.reasons)})"
