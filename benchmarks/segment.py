"""Masks against the truth in masks/train2019: IoU, boundary F-measure, what the quality score finds, speed and memory.

    python -m benchmarks.segment [--dataset sample] [--preset cpu] [--store store] [--json]

The truth is read here and nowhere else.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.stages import print_result, segmented, stage_arguments
from flows.presets import PRESETS, Preset
from storage.images import decode_grey, decode_rgb
from storage.manifest import Manifest
from storage.store import Store

_LARGE = (2592, 1944)
_TIMED = 60


def mask_iou(mask_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = (mask_HW | truth_HW).sum()
    return float((mask_HW & truth_HW).sum() / union) if union else 1.0


def boundary_f(mask_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_], *, tolerance: float = 2.0) -> float:
    """F-measure of the outlines: pixels within `tolerance` of the other one, both ways (Martin et al., TPAMI 2004)."""
    outlines = [_outline(mask_HW), _outline(truth_HW)]
    if not outlines[0].any() or not outlines[1].any():
        return 0.0
    far = [cv2.distanceTransform((~outline_HW).astype(np.uint8), cv2.DIST_L2, 5) for outline_HW in outlines]
    precision = float((far[1][outlines[0]] <= tolerance).mean())
    recall = float((far[0][outlines[1]] <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner_HW = cv2.erode(mask_HW.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    return mask_HW & ~inner_HW


def found_by_quality(ious_N: Sequence[float], qualities_N: Sequence[float]) -> float:
    """Share of the worst 2 % of masks (by IoU) that are among the 5 % of lowest quality."""
    worst = np.argsort(ious_N, kind="stable")[: max(1, round(0.02 * len(ious_N)))]
    lowest = np.argsort(qualities_N, kind="stable")[: max(1, round(0.05 * len(ious_N)))]
    return float(np.isin(worst, lowest).mean())


def compare_masks(masks: Manifest, *, dataset: Path, store: Store) -> dict[str, Any]:
    """The figures of all exemplars; one that has no mask counts as IoU 0."""
    ious, fits, qualities = [], [], []
    for path in sorted((dataset / "masks" / "train2019").glob("*.png")):
        truth_HW = decode_grey(path.read_bytes()) > 127
        row = masks.by_id.get(f"mask/{path.stem}")
        mask_HW = decode_grey(store.read(row)) > 127 if row and row.path else np.zeros_like(truth_HW)
        ious.append(mask_iou(mask_HW, truth_HW))
        fits.append(boundary_f(mask_HW, truth_HW))
        qualities.append(float(row.quality or 0) if row else 0.0)
    return {
        "exemplars": len(ious),
        "mask IoU, mean": float(np.mean(ious)),
        "mask IoU, 5th percentile": float(np.percentile(ious, 5)),
        "mask IoU, least": float(np.min(ious)),
        "boundary F at 2 px, mean": float(np.mean(fits)),
        "worst 2 % found in the 5 % of lowest quality": found_by_quality(ious, qualities),
        "masks for review": sum(row.status != "ok" for row in masks.rows),
    }


def images_a_second(preset: Preset, made: dict[str, Manifest], *, store: Store, workers: int) -> float:
    """Coarse and fine step over photos that are decoded already."""
    import torch

    from tasks.coarse import coarse_mask
    from tasks.saliency import CONFIG_ID, WEIGHTS_ID, load_saliency
    from tasks.segment import fine_mask

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    network = load_saliency(*(store.read(made["network"].row(name)) for name in (WEIGHTS_ID, CONFIG_ID)))
    rows = made["catalog"].ok[:: max(1, len(made["catalog"].ok) // _TIMED)]
    photos = [(decode_rgb(store.read(row)), row.objects[0].box if row.objects else None) for row in rows]

    def both(item: tuple[NDArray[np.uint8], Any]) -> None:
        photo_HW3, box = item
        found = coarse_mask(photo_HW3, box, params=preset.coarse)
        fine_mask(network, photo_HW3, found, tight=True, params=preset.segment)

    with ThreadPoolExecutor(workers) as executor:
        list(executor.map(both, photos[:4]))
        started = time.perf_counter()
        list(executor.map(both, photos))
        return len(photos) / (time.perf_counter() - started)


def peak_megabytes(photos: int, *, size: tuple[int, int]) -> float:
    """Peak memory of a process of its own that cuts out `photos` made photos of a size (width, height)."""
    code = f"from benchmarks.segment import _cut_out_made_photos as run; run({photos}, {size})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _cut_out_made_photos(photos: int, size: tuple[int, int]) -> None:
    import torch

    from models.saliency import SaliencyNet
    from tasks.coarse import coarse_mask
    from tasks.params import CoarseParams, SegmentParams
    from tasks.segment import fine_mask

    torch.set_num_threads(1)
    params, network = CoarseParams(), SaliencyNet(backbone="efficientnet_lite0", width=24, pretrained=True).eval()
    for _ in range(photos):
        photo_HW3 = np.full((size[1], size[0], 3), 190, np.uint8)
        box = (size[0] / 4, size[1] / 6, size[0] * 3 / 4, size[1] * 5 / 6)
        cv2.rectangle(photo_HW3, (int(box[0]), int(box[1])), (int(box[2]), int(box[3])), (200, 40, 30), -1)
        found = coarse_mask(photo_HW3, box, params=params)
        fine_mask(network, photo_HW3, found, tight=True, params=SegmentParams())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    arguments = stage_arguments(__doc__).parse_args()
    preset, store = PRESETS[arguments.preset](), Store.open(arguments.store)
    made = segmented(preset, dataset=arguments.dataset, store=store, workers=arguments.workers)
    result = compare_masks(made["masks"], dataset=Path(arguments.dataset), store=store)
    result["images/s, coarse and fine"] = images_a_second(preset, made, store=store, workers=arguments.workers)
    result["peak MB, 1 photo of 2592 x 1944"] = peak_megabytes(1, size=_LARGE)
    result["peak MB, 8 photos of 2592 x 1944"] = peak_megabytes(8, size=_LARGE)
    print_result(result, as_json=arguments.json, title=f"segment on {arguments.dataset}, preset {arguments.preset}")


if __name__ == "__main__":
    main()
