"""Photos from disk to shopping lists: photos a second, and how much longer it takes than the network's forward alone.

    python -m benchmarks.predict [--dataset D] [--model FOLDER] [--side 800] [--photos 60] [--workers 2] [--json]

The model is exported to ONNX first. Four kinds of work take turns, so that a busy neighbour slows all alike: the
network alone on photos that lie in memory as it wants them, the exported file on decoded photos, files on disk to
lists, and the same with annotated photos. Ratios are of processor seconds and of wall times, medians over the rounds.
The lists are compared with the truth, those that are accepted apart from those that need a review.

Without --model one is trained in short (`benchmarks.short_model`), which takes some tens of minutes once.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.short_model import model_arguments, model_of
from benchmarks.stages import print_result
from flows.endings import end_with_code
from flows.serving import open_reader
from models.dpsnet import DPSNet, padded_size
from storage.formats.rpc import read_split
from storage.images import Picture, decode_rgb, encode_jpeg
from tasks.detection import Detector, to_batch
from tasks.export import to_onnx
from tasks.fitting import fit_photo
from tasks.list_reader import ListReader
from tasks.photo_lists import PhotoFile, PhotoLister
from tasks.shopping_list import ACCEPTED, ShoppingList

Truth = dict[str, dict[str, int]]


class _NetworkAlone(nn.Module):
    """The network without anything before or after it."""

    def __init__(self, network: DPSNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos_13SS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (found,), density = self.network(photos_13SS)
        return found["boxes"], found["scores"], found["labels"], density


def network_alone(detector: Detector, *, like: Tensor) -> onnxruntime.InferenceSession:
    """The detector's network as an ONNX session on one core."""
    buffer = io.BytesIO()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _NetworkAlone(detector.network),
            (like,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=17,
            input_names=["photos"],
            output_names=["boxes", "scores", "labels", "density"],
            dynamic_axes={name: {0: "detections"} for name in ("boxes", "scores", "labels")},
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])


def labelled_photos(dataset: str, *, split: str, count: int) -> tuple[list[Path], Truth]:
    """The first photos of a split of a data set in RPC's layout, and what is in each, by the stem of its file."""
    listing = read_split(Path(dataset), split=split)
    truth: Truth = {}
    for photo in listing.photos[:count]:
        counts = truth.setdefault(photo.path.stem, {})
        for item in photo.objects:
            counts[item.sku] = counts.get(item.sku, 0) + 1
    return [photo.path for photo in listing.photos[:count]], truth


def photos_of_side(paths: Sequence[Path], *, side: int, folder: Path) -> list[PhotoFile]:
    """The photos with a longer side of `side` pixels as JPEG files in `folder`; those that have it are only copied."""
    files = []
    for path in paths:
        data = path.read_bytes()
        photo_HW3 = decode_rgb(data)
        if max(photo_HW3.shape[:2]) != side:
            factor = side / max(photo_HW3.shape[:2])
            photo_HW3 = np.asarray(
                cv2.resize(photo_HW3, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8
            )
            data = encode_jpeg(photo_HW3)
        target = folder / f"{path.stem}.jpg"
        target.write_bytes(data)
        files.append(PhotoFile(path=target, name=target.stem))
    return files


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds a photo: by the clock, and of all processors together."""

    wall: float
    processor: float


def cost_of(work: Callable[[], object], *, photos: int) -> Cost:
    """What some work over `photos` photos costs."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Cost(wall=(time.perf_counter() - wall) / photos, processor=(time.process_time() - processor) / photos)


def in_turns(works: dict[str, Callable[[], object]], *, photos: int, rounds: int) -> dict[str, list[Cost]]:
    """The costs of each work in `rounds` rounds, after one that warms up; the works take turns."""
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            cost = cost_of(work, photos=photos)
            if turn:
                costs[name].append(cost)
    return costs


def works_of(
    detector: Detector, *, reader: ListReader, files: Sequence[PhotoFile], workers: int
) -> dict[str, Callable[[], object]]:
    """The four kinds of work over all files, `workers` photos at a time."""
    photos = [decode_rgb(file.path.read_bytes()) for file in files]
    fitted = [_fitted(photo, size=detector.image_size) for photo in photos]
    alone = network_alone(detector, like=torch.from_numpy(fitted[0]))
    pool = ThreadPoolExecutor(workers)
    lists, drawn = (PhotoLister(reader, threshold=None, draw=draw, workers=workers) for draw in (False, True))
    return {
        "network alone": lambda: list(pool.map(lambda one: alone.run(None, {"photos": one}), fitted)),
        "exported file": lambda: list(pool.map(lambda one: reader.read([one]), photos)),
        "disk to list": lambda: list(lists(files)),
        "disk to list and annotated photo": lambda: list(drawn(files)),
    }


def _fitted(photo_HW3: Picture, *, size: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(to_batch([fit_photo(photo_HW3, size=size, side=padded_size(size))[0]]).numpy())


def summarised(costs: dict[str, list[Cost]]) -> dict[str, float]:
    """Medians: photos a second, processor milliseconds a photo, and the ratios to the network alone."""
    result: dict[str, float] = {}
    for name, rows in costs.items():
        result[f"{name}: photos/s"] = 1 / statistics.median(row.wall for row in rows)
        result[f"{name}: processor ms a photo"] = 1000 * statistics.median(row.processor for row in rows)
    for name in list(costs)[1:]:
        for kind in ("processor", "wall"):
            pairs = zip(costs[name], costs["network alone"], strict=True)
            ratios = [getattr(one, kind) / getattr(alone, kind) for one, alone in pairs]
            result[f"{name}: ratio to the network alone, {kind}"] = statistics.median(ratios)
    return result


def agreement(lists: Sequence[ShoppingList], *, truth: Truth) -> dict[str, float]:
    """The share of lists that are right, of all, of those accepted and of those that need a review."""
    right = {one.photo: {line.sku: line.count for line in one.products} == truth[one.photo] for one in lists}
    accepted = [one.photo for one in lists if one.state == ACCEPTED]
    review = [one.photo for one in lists if one.state != ACCEPTED]
    parts = {"right": list(right), "right among the accepted": accepted, "right among needs-review": review}
    shares = {name: statistics.mean(right[photo] for photo in part) for name, part in parts.items() if part}
    return {**shares, "accepted": len(accepted) / len(lists)}


def measure(detector: Detector, *, dataset: str, side: int, count: int, workers: int, rounds: int) -> dict[str, float]:
    """All figures of a model on the first test photos of a data set."""
    paths, truth = labelled_photos(dataset, split="test", count=count)
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch) / "model.onnx"
        exported.write_bytes(to_onnx(detector, precision="float32"))
        reader = open_reader(exported, workers=workers)
        files = photos_of_side(paths, side=side, folder=Path(scratch))
        works = works_of(detector, reader=reader, files=files, workers=workers)
        costs = in_turns(works, photos=len(files), rounds=rounds)
        lister = PhotoLister(reader, threshold=None, draw=False, workers=workers)
        lists = [result.found for result in lister(files) if result.found is not None]
    shape = {"photos": len(files), "side": side, "network side": detector.image_size, "workers": workers}
    return {**shape, **summarised(costs), **agreement(lists, truth=truth)}


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = model_arguments(__doc__)
    parser.add_argument("--side", type=int, default=800, help="longer side of the photos on disk, pixels (RPC: 1850)")
    parser.add_argument("--photos", type=int, default=60, help="how many photos")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds over all photos")
    options = parser.parse_args()
    result = measure(
        model_of(options),
        dataset=options.dataset,
        side=options.side,
        count=options.photos,
        workers=options.workers,
        rounds=options.rounds,
    )
    print_result(result, as_json=options.json, title=f"prediction, photos of {options.dataset}")


if __name__ == "__main__":
    end_with_code(main)
