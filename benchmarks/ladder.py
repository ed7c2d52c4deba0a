"""The ladder of iterative distillation on test, by seed, beside other ways to choose pseudo-labels.

    python -m benchmarks.ladder [--dataset sample] [--preset cpu] [--store store] [--seeds 3] [--share SHARE] [--json]

paper          source only, photos composed by the paper's recipe of views kept by its area rule
source         source only, photos as in life
render         + rendered photos
image_level    + pool photos on which all views agree
instance_level + the confident items of the others
random         image level, but as many photos drawn at random, with whatever reaches the score
everything     image level, but every pool photo, with whatever reaches the score
paper_rule     image level by the paper's rule: as many detections as the counting view says

The last three go on from `render` for as many steps as the two levels take together: they stand beside instance_level.
Figures are those of test at the threshold that val chose. `--share` shortens every training alike: `cpu` has 0.2 of its
steps unless told otherwise, so that three seeds fit into three hours on two cores, and other presets have all of
theirs. For the same reason the renderer is one that needs no training. What a seed changes are the trainings. Every
training is kept in the store: a benchmark that was stopped goes on where it was, and after each training its figures
are printed. The last rows tell how right the labels are that `render` gives to val, each half of it judged by what the
other half taught: those of whole photos, of all photos by the votes of all views, and by one view alone. Minutes are
those in which a result was computed, on whatever machine, also where it came from the store.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import numpy as np
import orjson

from benchmarks.stages import print_result, stage_arguments
from flows.endings import end_with_code
from flows.pipeline import (
    DatasetChoice,
    Prepared,
    Rung,
    Synthesized,
    distill,
    paste_round,
    prepare,
    select_round,
    synthesize,
    train_rung,
)
from flows.presets import PAPER_THRESHOLDS, PRESETS, Preset
from flows.runner import LocalRunner
from storage.boxes import iou_matrix
from storage.manifest import Manifest, ManifestObject, referenced
from storage.store import Store
from tasks.params import SelectParams, StageParams, View
from tasks.selection import boxes_of
from tasks.stage import Input, StageResult

FIGURES = ("cAcc", "ACD", "mAP50")
_SAME_PLACE = 0.5
# Of the trainings' steps, unless the command line says otherwise.
_SHARES = {"cpu": 0.2}
# The score from which a detection of a single view is a label where nothing is selected.
_ONE_VIEW = 0.5


class TellingRunner(LocalRunner):
    """Prints a rung's figures as soon as it has been evaluated: what follows may take an hour."""

    def stage(self, name: str, params: StageParams, **inputs: Input) -> Manifest:
        """A stage's result."""
        made = super().stage(name, params, **inputs)
        if name.startswith("evaluate."):
            figures = figures_of(orjson.loads(self.store.read(made.row("report"))))
            shown = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"{name.removeprefix('evaluate.'):<14}  {shown}", file=sys.stderr, flush=True)
        return made


@dataclass(frozen=True, kw_only=True)
class Climb:
    """One seed's way up the ladder: what all rungs share, and what has been reached by row."""

    run: TellingRunner
    preset: Preset
    prepared: Prepared
    synthesized: Synthesized
    reached: dict[str, dict[str, float]]

    def train(
        self, name: str, *, level: str, photos: list[Manifest], init: Rung | None, pseudo: Manifest | None = None
    ) -> None:
        """A rung beside the ladder; pool photos with pseudo-labels are pasted on as those of the ladder are."""
        shared: dict[str, Any] = {
            "prepared": self.prepared,
            "boards": self.synthesized.boards,
            "preset": self.preset,
        }
        pasted = None if pseudo is None else paste_round(self.run, name, pseudo=pseudo, **shared)
        rung = train_rung(
            self.run,
            name,
            level=level,
            photos=photos if pseudo is None else [*photos, pseudo],
            init=init,
            pasted=pasted,
            **shared,
        )
        self.reached[name] = figures_of(rung.report)

    def select(self, name: str, *, by: Rung, **changes: object) -> Manifest:
        """Whole pool photos chosen by a rung, with changed parameters of selection."""
        params = self.preset.select["image_level"].model_copy(update=changes)
        return select_round(
            self.run,
            name,
            level="image_level",
            checkpoint=by.checkpoint,
            val_predictions=by.val_predictions,
            prepared=self.prepared,
            boards=self.synthesized.boards,
            preset=self.preset.model_copy(update={"select": {"image_level": params}, "thresholds": ()}),
        )

    def note_selection(self, name: str) -> int:
        """Keep how many photos a round took and how right their items are estimated to be; returns the number."""
        pseudo = self.run.store.load(self.run.results[f"select.{name}"].manifest)
        scores = [item.score for row in pseudo.ok for item in row.objects if item.status == "ok"]
        precision = mean(score or 0.0 for score in scores) if scores else 0.0
        self.reached[f"{name} selection"] = {"taken": float(len(pseudo.ok)), "precision": precision}
        return len(pseudo.ok)


def figures_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Test cAcc, ACD and mAP50 averaged over the levels, and cAcc of each level."""
    levels = report["honest"]
    figures = {name: float(levels["averaged"][name]) for name in FIGURES}
    return figures | {f"cAcc_{level}": float(levels[level]["cAcc"]) for level in levels if level != "averaged"}


def shortened(preset: Preset, *, share: float, seed: int) -> Preset:
    """The preset with trainings of a share of the steps, seeded."""
    train = {
        name: params.model_copy(
            update={
                "steps": max(1, round(share * params.steps)),
                "evaluate_every": max(1, round(share * params.evaluate_every)),
                "seed": seed,
            }
        )
        for name, params in preset.train.items()
    }
    select = {name: params.model_copy(update={"seed": seed}) for name, params in preset.select.items()}
    return preset.model_copy(update={"train": train, "select": select})


def paper_photos(run: LocalRunner, *, prepared: Prepared, boards: Manifest, preset: Preset) -> Manifest:
    """Synthetic photos as the paper's scripts make them, of the same masks on the same boards."""
    area = preset.prune.model_copy(update={"rule": "area"})
    shared = {"catalog": prepared.catalog, "pool": prepared.pool}
    poses = run.stage("prune.paper", area, masks=prepared.masks, network=prepared.network, **shared)
    compose = preset.compose.model_copy(update={"recipe": "paper"})
    return run.stage("compose.paper", compose, poses=poses, boards=boards, **shared)


def climb(ladder: Climb) -> Rung:
    """All rungs in their order; returns the one before pool photos come in."""
    run, boards = ladder.run, ladder.synthesized.boards
    paper = paper_photos(run, prepared=ladder.prepared, boards=boards, preset=ladder.preset)
    ladder.train("paper", level="source", photos=[paper], init=None)
    rungs = distill(run, prepared=ladder.prepared, synthesized=ladder.synthesized, preset=ladder.preset)
    if "render" not in rungs:
        raise ValueError("ladder: expected a data set with a pool, got none")
    ladder.reached.update({name: figures_of(rung.report) for name, rung in rungs.items()})
    for name in [name for name in rungs if name not in ("source", "render")]:
        ladder.note_selection(name)
    return rungs["render"]


def as_long_as_both(preset: Preset) -> Preset:
    """The preset with as many steps, and looks at val, at the image level as it has at both levels of selection; the
    rate is that of the longer one."""
    levels = [preset.train[f"{level}_level"] for level in ("image", "instance")]
    longer = {
        "learning_rate": levels[-1].learning_rate,
        "steps": sum(level.steps for level in levels),
        "evaluate_every": sum(level.evaluate_every for level in levels) // len(levels),
    }
    return preset.model_copy(update={"train": {**preset.train, "image_level": levels[0].model_copy(update=longer)}})


def other_selections(ladder: Climb, *, render: Rung) -> None:
    """The image level with pseudo-labels chosen in other ways, from the same checkpoint."""
    synthetic, rendered = ladder.synthesized.synthetic, ladder.synthesized.rendered
    assert rendered is not None, "checked by the climb"
    ways: dict[str, dict[str, object]] = {
        "random": {"rule": "all", "most": ladder.note_selection("image_level"), "confident_score": _ONE_VIEW},
        "everything": {"rule": "all", "confident_score": _ONE_VIEW},
        "paper_rule": {"rule": "paper", "confident_score": PAPER_THRESHOLDS[0]},
    }
    for name, changes in ways.items():
        pseudo = ladder.select(name, by=render, **changes)
        if ladder.note_selection(name):
            ladder.train(name, level="image_level", photos=[synthetic, rendered], init=render, pseudo=pseudo)


def calibration(ladder: Climb, *, by: Rung) -> dict[str, dict[str, float]]:
    """How right pseudo-labels are: those of whole photos, of all photos by the votes of all views, and by one view.

    Of val photos, no half of which judges itself: the number of items, their estimated and true precision, and the
    share of the products that are found.
    """
    views = [
        ladder.run.stage(
            f"predict.val{view.title}",
            ladder.preset.predict.model_copy(update={"view": view}),
            checkpoint=by.checkpoint,
            photos=ladder.prepared.val,
        )
        for view in (View(), *ladder.preset.other_views)
    ]
    levels = ladder.preset.select
    one_view = levels["image_level"].model_copy(update={"rule": "all", "confident_score": _ONE_VIEW})
    ways = {"whole photos": levels["image_level"], "votes": levels["instance_level"], "one view": one_view}
    return {f"{name} of val": _labels_of_val(ladder, views=views, params=params) for name, params in ways.items()}


def _labels_of_val(ladder: Climb, *, views: Sequence[Manifest], params: SelectParams) -> dict[str, float]:
    val, scores, right, products = ladder.prepared.val, list[float](), list[bool](), 0
    for half in (0, 1):
        teachers, judged = (_subset(ladder.run.store, val, half=part, bare=part == half) for part in (1 - half, half))
        made = ladder.run.stage(
            f"select.val{half}",
            params,
            pool=judged,
            predictions=views[0],
            other_views=views[1:],
            boards=ladder.synthesized.boards,
            val=teachers,
            val_predictions=views[0],
            val_other_views=views[1:],
        )
        for row in made.ok:
            items, truth = [item for item in row.objects if item.status == "ok"], val.row(row.parents[0]).objects
            scores += [float(item.score or 0.0) for item in items]
            right += are_right(items, truth=truth)
            products += len(truth)
    if not scores:
        return {"items": 0.0}
    precision = {"estimated": mean(scores), "true": mean(right)}
    return {"items": float(len(scores)), **precision, "found": sum(right) / products}


def are_right(items: Sequence[ManifestObject], *, truth: Sequence[ManifestObject]) -> list[bool]:
    """Of each item whether a product of its SKU lies there that no item before it has claimed."""
    iou_NM, claimed, right = iou_matrix(boxes_of(items), boxes_of(truth)), set[int](), list[bool]()
    for item, iou_M in zip(items, iou_NM, strict=True):
        fits = [
            place
            for place in np.argsort(-iou_M)
            if iou_M[place] >= _SAME_PLACE and truth[place].category == item.category and int(place) not in claimed
        ]
        claimed.update(int(place) for place in fits[:1])
        right.append(bool(fits))
    return right


def _subset(store: Store, manifest: Manifest, *, half: int, bare: bool) -> Manifest:
    """Every second photo; `bare`: without what is known of it."""
    key = f"ladder-{half}-{'bare' if bare else 'labelled'}-{manifest.key}"
    found = store.find("benchmark", key=key)
    if found is not None:
        return found
    publication = store.begin("benchmark", key=key)
    for row in manifest.ok[half::2]:
        publication.add(replace(referenced(row), objects=()) if bare else referenced(row))
    return publication.commit(metadata={}, content=manifest.content)


def climbed(arguments: Any, *, seed: int) -> dict[str, dict[str, float]]:  # noqa: ANN401 - argparse's namespace
    """Everything that one seed has to show, by row."""
    preset = PRESETS[arguments.preset]()
    preset = preset.model_copy(update={"render": preset.render.model_copy(update={"renderer": arguments.renderer})})
    run = TellingRunner(store=Store.open(arguments.store), workers=arguments.workers)
    prepared = prepare(run, choice=DatasetChoice(dataset=arguments.dataset), preset=preset)
    synthesized = synthesize(run, prepared=prepared, preset=preset)
    seeded = shortened(preset, share=arguments.share, seed=seed)
    ladder = Climb(run=run, preset=seeded, prepared=prepared, synthesized=synthesized, reached={})
    print(f"seed {seed}", file=sys.stderr, flush=True)
    render = climb(ladder)
    ladder.reached.update(calibration(ladder, by=render))
    if not arguments.without_others:
        other_selections(replace(ladder, preset=as_long_as_both(seeded)), render=render)
    ladder.reached["minutes"] = minutes_of(run.results)
    return ladder.reached


def minutes_of(results: Mapping[str, StageResult]) -> dict[str, float]:
    """Minutes by training, and by stage for what is no training."""
    minutes = defaultdict[str, float](float)
    for name, result in results.items():
        minutes[name if result.stage == "train" else result.stage] += result.seconds / 60
    return dict(minutes)


def summary(seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Mean over the seeds of every figure of every row, and the range where there are several seeds."""
    result: dict[str, Any] = {}
    for row in seeds[0]:
        for name in seeds[0][row]:
            values = [seed[row][name] for seed in seeds if name in seed.get(row, {})]
            result[f"{row} {name}"] = mean(values)
            if len(values) > 1:
                result[f"{row} {name}, range"] = f"{min(values):.3f} to {max(values):.3f}"
    return result


def main() -> None:
    """Climb once a seed."""
    parser = stage_arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings of every rung")
    parser.add_argument("--share", type=float, help="share of the preset's training steps (default: cpu 0.2, else 1)")
    parser.add_argument("--renderer", default="colour", help="renderer of the photos; auto: the preset's choice by val")
    parser.add_argument("--without-others", action="store_true", help="the ladder only, no other ways to choose")
    arguments = parser.parse_args()
    if arguments.share is None:
        arguments.share = _SHARES.get(arguments.preset, 1.0)
    seeds = []
    for seed in range(arguments.seeds):
        seeds.append(climbed(arguments, seed=seed))
        title = f"ladder on {arguments.dataset}, preset {arguments.preset}, {len(seeds)} of {arguments.seeds} seeds"
        print_result(summary(seeds), as_json=arguments.json, title=f"{title}, {arguments.share:g} of the steps")


if __name__ == "__main__":
    end_with_code(main)
