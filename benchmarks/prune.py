"""Kept views against the truth in poses.json, by rule: F1 on the clear views, rank correlation of the sampling weights.

    python -m benchmarks.prune [--dataset sample] [--preset cpu] [--store store] [--json]

Clear views are those clearly seen from above (at most 25 degrees from a natural pose) or clearly not (45 and more).
The truth is read here and nowhere else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.stages import ingest_split, print_result, segmented, stage_arguments
from flows.endings import end_with_code
from flows.presets import PRESETS
from storage.manifest import Manifest
from storage.store import Store
from tasks.stage import load_stage, run_stage_locally

_SEEN, _NOT_SEEN = 25.0, 45.0


def read_poses(dataset: Path) -> dict[str, dict[str, Any]]:
    """The truth of every exemplar by its stem."""
    recorded = json.loads((dataset / "poses.json").read_text())["exemplars"]
    return {Path(one["file_name"]).stem: one for one in recorded}


def f1_of_clear_views(kept: dict[str, bool], poses: dict[str, dict[str, Any]]) -> float:
    """F1 of "kept" over the clear views; a view without a decision counts as dropped."""
    hits = wrong = missed = 0
    for stem, pose in poses.items():
        if pose["nearest_natural_deg"] <= _SEEN:
            hits, missed = hits + kept.get(stem, False), missed + (not kept.get(stem, False))
        elif pose["nearest_natural_deg"] >= _NOT_SEEN:
            wrong += kept.get(stem, False)
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0


def weight_correlation(weights: dict[str, float], poses: dict[str, dict[str, Any]]) -> float:
    """Spearman's correlation of the weights with the share of checkout products seen from there; mean over SKUs."""
    by_sku: dict[str, list[tuple[float, float]]] = {}
    for stem, pose in poses.items():
        by_sku.setdefault(pose["sku_name"], []).append((weights.get(stem, 0.0), pose["checkout_fraction_within_35deg"]))
    values = [
        spearmanr(*zip(*pairs, strict=True)).statistic if len({weight for weight, _ in pairs}) > 1 else 0.0
        for pairs in by_sku.values()
    ]
    return float(np.mean(values))


def compare_views(poses_manifest: Manifest, *, truth: dict[str, dict[str, Any]], rule: str) -> dict[str, Any]:
    """The figures of one rule."""
    rows = {row.item_id.removeprefix("pose/"): row for row in poses_manifest.rows}
    kept = {stem: row.status == "ok" for stem, row in rows.items()}
    weights = {stem: float(row.attributes["weight"]) if kept[stem] else 0.0 for stem, row in rows.items()}
    return {
        f"{rule}: F1 on the clear views": f1_of_clear_views(kept, truth),
        f"{rule}: Spearman of the weights": weight_correlation(weights, truth),
        f"{rule}: views kept": sum(kept.values()),
    }


def main() -> None:
    """Measure what the command line asks for, and print it."""
    arguments = stage_arguments(__doc__).parse_args()
    preset, store, workers = PRESETS[arguments.preset](), Store.open(arguments.store), arguments.workers
    made = segmented(preset, dataset=arguments.dataset, store=store, workers=workers)
    pool = ingest_split(arguments.dataset, split="pool", store=store, workers=workers)
    truth, result = read_poses(Path(arguments.dataset)), {"exemplars": len(made["catalog"].ok)}
    inputs = {name: made[name] for name in ("catalog", "masks", "network")}
    for rule in ("keep_all", "area", "evidence"):
        params = preset.prune.model_copy(update={"rule": rule})
        poses = run_stage_locally(load_stage("prune"), params, store=store, workers=workers, pool=pool, **inputs)
        result |= compare_views(poses, truth=truth, rule=rule)
    print_result(result, as_json=arguments.json, title=f"prune on {arguments.dataset}, preset {arguments.preset}")


if __name__ == "__main__":
    end_with_code(main)
