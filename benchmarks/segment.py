"""Masks against the truth in masks/train2019: IoU, boundary F-measure, what the quality score finds, speed and memory.

    python -m benchmarks.segment [--dataset sample] [--preset cpu] [--store store] [--without-boxes] [--json]

The truth is read here and nowhere else.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.made_catalog import LARGEST, View, make_photo
from benchmarks.stages import ingest_split, print_result, segmented_catalog, stage_arguments
from flows.endings import end_with_code
from flows.presets import PRESETS, Preset
from storage.images import decode_grey, decode_rgb, encode_jpeg, encode_png
from storage.manifest import Manifest, ManifestRow, content_digest
from storage.store import Store

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


def masks_and_truth(
    masks: Manifest, *, dataset: Path, store: Store
) -> Iterator[tuple[ManifestRow | None, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Of every exemplar its row (None where there is none), its mask (empty where there is none) and the true one."""
    for path in sorted((dataset / "masks" / "train2019").glob("*.png")):
        truth_HW = decode_grey(path.read_bytes()) > 127
        row = masks.by_id.get(f"mask/{path.stem}")
        yield row, decode_grey(store.read(row)) > 127 if row and row.path else np.zeros_like(truth_HW), truth_HW


def compare_masks(masks: Manifest, *, dataset: Path, store: Store) -> dict[str, Any]:
    """The figures of all exemplars; one that has no mask counts as IoU 0."""
    ious, fits, qualities = [], [], []
    for row, mask_HW, truth_HW in masks_and_truth(masks, dataset=dataset, store=store):
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
        "quality, mean": float(np.mean(qualities)),
        "masks for review": sum(row.status != "ok" for row in masks.rows),
    }


def pace(preset: Preset, made: dict[str, Manifest], *, store: Store, workers: int) -> dict[str, float]:
    """Images a second of the coarse and the fine step over photos that are decoded already, and what a photo takes.

    The processor time is the same on a busy machine; the images a second are not.
    """
    import torch

    from tasks.coarse import coarse_mask
    from tasks.saliency import CONFIG_ID, WEIGHTS_ID, load_saliency
    from tasks.segment import fine_mask

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    network = load_saliency(*(store.read(made["network"].row(name)) for name in (WEIGHTS_ID, CONFIG_ID)))
    rows = made["coarse"].ok[:: max(1, len(made["coarse"].ok) // _TIMED)]
    photos = [(decode_rgb(store.read(made["catalog"].row(row.parents[0]))), row.attributes["box"]) for row in rows]

    def both(item: tuple[NDArray[np.uint8], Any]) -> None:
        photo_HW3, box = item
        found = coarse_mask(photo_HW3, tuple(box), params=preset.coarse)
        fine_mask(network, photo_HW3, found, tight=True, params=preset.segment)

    with ThreadPoolExecutor(workers) as executor:
        list(executor.map(both, photos[:4]))
        started, used = time.perf_counter(), time.process_time()
        list(executor.map(both, photos))
        seconds, used = time.perf_counter() - started, time.process_time() - used
    return {
        "images/s, coarse and fine": len(photos) / seconds,
        "processor ms an image": 1000 * used / len(photos),
    }


@dataclass(frozen=True)
class Memory:
    """Megabytes of a process: before it has seen a photo, at most, and how much of it are files of libraries."""

    program: float
    peak: float
    libraries: float


def memory_of(photos: int, *, size: tuple[int, int]) -> Memory:
    """Memory of a process of its own that cuts out `photos` made photos of a size (width, height)."""
    code = f"from benchmarks.segment import _cut_out_made_photos as run; run({photos}, {size})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Memory(*(float(number) for number in done.stdout.split()[-3:]))


def _cut_out_made_photos(photos: int, size: tuple[int, int]) -> None:
    import torch

    from models.saliency import SaliencyNet
    from tasks.coarse import coarse_mask
    from tasks.params import CoarseParams, SegmentParams
    from tasks.saliency import for_inference
    from tasks.segment import fine_mask, whole_alpha

    def cut_out(network: SaliencyNet, photo_HW3: NDArray[np.uint8], box: tuple[float, float, float, float]) -> None:
        found = coarse_mask(photo_HW3, box, params=CoarseParams())
        made = fine_mask(network, photo_HW3, found, tight=True, params=SegmentParams())
        encode_png(whole_alpha(made, height=photo_HW3.shape[0], width=photo_HW3.shape[1]))

    torch.set_num_threads(1)
    network = SaliencyNet(backbone="efficientnet_lite0", width=24, pretrained=True)
    network.backbone.fold_norms()
    network = for_inference(network)
    small = np.full((120, 160, 3), 190, np.uint8)
    cut_out(network, small, (30.0, 30.0, 90.0, 90.0))
    before = _status("VmRSS")
    view = View(shape="bag", backdrop="turntable", turn=0.0, size=size, seed=0)
    data = encode_jpeg(make_photo(view)[0])
    # Linux: the highest memory is counted from here on.
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(photos):
        cut_out(network, decode_rgb(data), (0.2 * size[0], 0.2 * size[1], 0.8 * size[0], 0.8 * size[1]))
    print(before, _status("VmHWM"), _status("RssFile"))


def _status(name: str) -> float:
    """A figure of this process's memory in megabytes, out of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"memory: expected {name} in /proc/self/status, got none; this needs Linux")


def memory_figures(*, size: tuple[int, int]) -> dict[str, float]:
    """What one and eight large photos take."""
    one, eight = (memory_of(count, size=size) for count in (1, 8))
    of = f"a photo of {size[0]} x {size[1]}"
    return {
        "MB, program and its libraries alone": one.program,
        f"MB, highest with {of}": one.peak,
        f"MB, highest with {of}, without the libraries' files": one.peak - one.libraries,
        f"MB, added by {of}": one.peak - one.program,
        "MB, added by eight of them": eight.peak - eight.program,
    }


def without_boxes(catalog: Manifest) -> Manifest:
    """The catalog as a shop would have it that annotates nothing."""
    rows = tuple(replace(row, objects=()) for row in catalog.rows)
    return replace(catalog, rows=rows, content_digest=content_digest(rows, content=catalog.content))


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = stage_arguments(__doc__)
    parser.add_argument("--without-boxes", action="store_true", help="as if no box were annotated")
    arguments = parser.parse_args()
    preset, store = PRESETS[arguments.preset](), Store.open(arguments.store)
    catalog = ingest_split(arguments.dataset, split="catalog", store=store, workers=arguments.workers)
    catalog = without_boxes(catalog) if arguments.without_boxes else catalog
    made = segmented_catalog(preset, catalog=catalog, store=store, workers=arguments.workers)
    result = compare_masks(made["masks"], dataset=Path(arguments.dataset), store=store)
    result |= pace(preset, made, store=store, workers=arguments.workers)
    result |= memory_figures(size=LARGEST)
    how = ", no boxes" if arguments.without_boxes else ""
    title = f"segment on {arguments.dataset}, preset {arguments.preset}{how}"
    print_result(result, as_json=arguments.json, title=title)


if __name__ == "__main__":
    end_with_code(main)
