"""How much each sign of a mask's quality says: fitted on several catalogs with truth, judged on those left out.

    python -m benchmarks.quality_weights DATASET... [--preset cpu] [--store store] [--json]

Prints the weights for `tasks/mask_quality.py`, and for every catalog what a score fitted on the others finds there.
Every catalog is used with and without its annotated boxes, and counts as much as any other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.segment import found_by_quality, mask_iou, masks_and_truth, without_boxes
from benchmarks.stages import ingest_split, print_result, segmented_catalog
from flows.endings import end_with_code
from flows.presets import PRESETS, Preset
from storage.store import Store
from tasks.mask_quality import SIGNS, defects

_RIDGE = 0.02
_LEAST_LOSS = 0.003

Numbers = NDArray[np.float64]
Catalog = tuple[Numbers, Numbers]


def signs_and_ious(dataset: str, *, boxes: bool, preset: Preset, store: Store, workers: int) -> Catalog:
    """The logarithms of the signs' defects [N, signs] and the true IoUs [N] of a catalog's masks."""
    catalog = ingest_split(dataset, split="catalog", store=store, workers=workers)
    made = segmented_catalog(preset, catalog=catalog if boxes else without_boxes(catalog), store=store, workers=workers)
    found = [
        (defects(row.attributes), mask_iou(mask_HW, truth_HW))
        for row, mask_HW, truth_HW in masks_and_truth(made["masks"], dataset=Path(dataset), store=store)
        if row is not None
    ]
    return np.stack([one for one, _ in found]), np.array([iou for _, iou in found])


def fit_weights(catalogs: Sequence[Catalog]) -> tuple[Numbers, float]:
    """Weights and constant of ln(1 - IoU) ≈ constant + weights · defects: least squares, no weight below 0."""
    share_N = np.concatenate([np.full(len(ious), 1 / len(ious)) for _, ious in catalogs]) / len(catalogs)
    signs_NS = np.concatenate([signs for signs, _ in catalogs])
    loss_N = np.log(1 - np.concatenate([ious for _, ious in catalogs]) + _LEAST_LOSS)
    mean_S, mean = share_N @ signs_NS, float(share_N @ loss_N)
    kept = np.ones(signs_NS.shape[1], bool)
    weights_S = np.zeros(signs_NS.shape[1])
    # A sign that speaks against itself is one that others have said better: it is left out.
    while True:
        centred = (signs_NS - mean_S)[:, kept]
        gram = (centred * share_N[:, None]).T @ centred + _RIDGE * np.eye(kept.sum())
        weights_S[:] = 0
        weights_S[kept] = np.linalg.solve(gram, (centred * share_N[:, None]).T @ (loss_N - mean))
        if (weights_S[kept] >= 0).all():
            return weights_S, mean - float(weights_S @ mean_S)
        kept &= weights_S > 0


def judged(catalog: Catalog, *, weights_S: Numbers, constant: float) -> dict[str, float]:
    """What a score with these weights is worth on a catalog."""
    signs_NS, ious_N = catalog
    quality_N = np.clip(1 - np.exp(constant + signs_NS @ weights_S), 0, 1)
    return {
        "worst 2 % found": found_by_quality(ious_N, quality_N),
        "rank correlation": float(spearmanr(quality_N, ious_N).statistic),
        "mean IoU": float(ious_N.mean()),
        "mean quality": float(quality_N.mean()),
    }


def main() -> None:
    """Fit on the data sets of the command line and print the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="folders in RPC layout with masks/ beside it")
    parser.add_argument("--preset", default="cpu", choices=sorted(PRESETS), help="whose parameters are used")
    parser.add_argument("--store", default="store", help="where stage results are kept and found")
    parser.add_argument("--workers", type=int, default=2, help="threads of the data stages")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    preset, store = PRESETS[arguments.preset](), Store.open(arguments.store)
    catalogs = {
        f"{Path(dataset).name}{'' if boxes else ' without boxes'}": signs_and_ious(
            dataset, boxes=boxes, preset=preset, store=store, workers=arguments.workers
        )
        for dataset in arguments.datasets
        for boxes in (True, False)
    }
    weights_S, constant = fit_weights(list(catalogs.values()))
    result: dict[str, Any] = {name: round(float(one), 3) for name, one in zip(SIGNS, weights_S, strict=True)}
    result["constant"] = round(constant, 3)
    for name, catalog in catalogs.items():
        others = [other for known, other in catalogs.items() if known.split()[0] != name.split()[0]]
        if others:
            weights, base = fit_weights(others)
            figures = judged(catalog, weights_S=weights, constant=base)
            result |= {f"{name}, fitted elsewhere: {key}": value for key, value in figures.items()}
    print_result(result, as_json=arguments.json, title=f"signs of quality on {', '.join(catalogs)}")


if __name__ == "__main__":
    end_with_code(main)
