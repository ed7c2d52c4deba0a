"""What copy-paste on accepted pool photos is worth: the same training with several shares of it, measured on test.

    python -m benchmarks.paste [--dataset sample] [--preset cpu] [--store store] [--seeds 2] [--shares 0 0.3 0.6]

The teacher is the preset's short training on synthetic photos. What it selects is the same for all rows, and so are the
steps; a seed changes the training. Everything is kept in the store: a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from statistics import mean
from typing import Any

from benchmarks.ladder import TellingRunner, figures_of
from benchmarks.stages import print_result, stage_arguments
from flows.endings import end_with_code
from flows.pipeline import (
    DatasetChoice,
    Prepared,
    Rung,
    Synthesized,
    evaluate_rung,
    paste_round,
    prepare,
    select_round,
    synthesize,
    train_rung,
)
from flows.presets import PRESETS, Preset
from storage.manifest import Manifest
from storage.store import Store


def shortened(preset: Preset, *, size: int, steps: int, renderer: str) -> Preset:
    """The preset with short trainings on small photos, all of them learnt from the same renderer's photos."""
    changes = {"image_size": size, "steps": steps, "evaluate_every": max(1, steps // 4)}
    train = {name: params.model_copy(update=changes) for name, params in preset.train.items()}
    render = preset.render.model_copy(update={"renderer": renderer or preset.render.renderer})
    return preset.model_copy(update={"train": train, "render": render, "trial_size": size})


def taught(
    run: TellingRunner,
    *,
    share: float,
    seed: int,
    teacher: Rung,
    pseudo: Manifest,
    prepared: Prepared,
    synthesized: Synthesized,
    preset: Preset,
) -> dict[str, float]:
    """Test figures of a student with a share of copy-paste among the samples of pool photos."""
    level = "instance_level"
    train = {level: preset.train[level].model_copy(update={"seed": seed})}
    changed = preset.model_copy(update={"train": train, "paste_share": share})
    shared = {"prepared": prepared, "boards": synthesized.boards, "preset": changed}
    pasted = paste_round(run, "benchmark", pseudo=pseudo, **shared)
    photos = [synthesized.synthetic, *([synthesized.rendered] if synthesized.rendered else []), pseudo]
    rung = train_rung(run, f"{share:g}", level=level, photos=photos, init=teacher, pasted=pasted, **shared)
    return figures_of(rung.report)


def measured(arguments: argparse.Namespace) -> dict[str, float]:
    """Mean test figures by share of copy-paste, and how many photos and items there were."""
    preset = shortened(
        PRESETS[arguments.preset](), size=arguments.size, steps=arguments.steps, renderer=arguments.renderer
    )
    run = TellingRunner(store=Store.open(arguments.store), workers=arguments.workers)
    prepared = prepare(run, choice=DatasetChoice(dataset=arguments.dataset), preset=preset)
    synthesized = synthesize(run, prepared=prepared, preset=preset)
    checkpoint = run.stage(
        "train.teacher", preset.trial, photos=[synthesized.synthetic], val=prepared.val, init=None, synthesis=None
    )
    teacher = evaluate_rung(run, "teacher", checkpoint=checkpoint, prepared=prepared, preset=preset)
    pseudo = select_round(
        run,
        "benchmark",
        level="instance_level",
        checkpoint=checkpoint,
        val_predictions=teacher.val_predictions,
        prepared=prepared,
        boards=synthesized.boards,
        preset=preset,
    )
    result = {f"teacher {name}": value for name, value in figures_of(teacher.report).items()}
    result["accepted photos"] = float(len(pseudo.ok))
    rows = {
        share: [
            taught(
                run,
                share=share,
                seed=seed,
                teacher=teacher,
                pseudo=pseudo,
                prepared=prepared,
                synthesized=synthesized,
                preset=preset,
            )
            for seed in range(arguments.seeds)
        ]
        for share in arguments.shares
    }
    return result | {
        f"share {share:g} {name}": value for share, made in rows.items() for name, value in _means(made).items()
    }


def _means(seeds: list[dict[str, float]]) -> Mapping[str, Any]:
    return {name: mean(one[name] for one in seeds) for name in seeds[0]}


def main() -> None:
    """Print the figures of every share."""
    parser = stage_arguments(__doc__)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.3, 0.6], help="of the pool photos' samples")
    parser.add_argument("--seeds", type=int, default=2, help="trainings a share")
    parser.add_argument("--steps", type=int, default=500, help="steps of each")
    parser.add_argument("--size", type=int, default=256, help="longer side of the photos in the network")
    parser.add_argument("--renderer", default="", help="renderer in place of the preset's")
    arguments = parser.parse_args()
    print_result(measured(arguments), as_json=arguments.json, title=f"copy-paste on {arguments.dataset}")


if __name__ == "__main__":
    end_with_code(main)
