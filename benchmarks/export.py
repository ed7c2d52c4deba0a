"""What the forms of an exported model cost, and whether their lists stay right: ONNX, TorchScript, float32, int8, bf16.

    python -m benchmarks.export [--dataset D] [--model FOLDER] [--photos 180] [--rounds 3] [--json]

Every form reads the same test photos, taking turns; processor milliseconds a photo are medians over the rounds, on one
core. cAcc is at the threshold that the model carries, which val chose. int8 is calibrated on photos of val.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.predict import in_turns, labelled_photos
from benchmarks.short_model import model_arguments, model_of
from benchmarks.stages import print_result
from flows.endings import end_with_code
from storage.images import Picture, decode_rgb
from tasks.detection import Detector
from tasks.export import Format, Precision, export_file, open_exported, parity, reading_of
from tasks.photo_reader import Reading

FORMS: tuple[tuple[Format, Precision], ...] = (
    ("onnx", "float32"),
    ("onnx", "int8"),
    ("torchscript", "float32"),
    ("torchscript", "bf16"),
)
_CALIBRATED_ON, _COMPARED = 24, 24
Read = Callable[[Picture], Reading]


def list_accuracy(readings: Sequence[Reading], *, truth: Sequence[Mapping[str, int]], skus: Sequence[str]) -> float:
    """The share of photos whose whole list is right (cAcc)."""
    lists = [
        {sku: int(count) for sku, count in zip(skus, reading.products_C, strict=True) if count} for reading in readings
    ]
    return statistics.mean(found == dict(true) for found, true in zip(lists, truth, strict=True))


def calibration_photos(dataset: str) -> list[Picture]:
    """Some val photos, spread over all."""
    paths, _ = labelled_photos(dataset, split="val", count=10**6)
    return [decode_rgb(paths[place].read_bytes()) for place in _spread(len(paths), count=_CALIBRATED_ON)]


def _spread(length: int, *, count: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, count).round().astype(int)).tolist()


def measure(detector: Detector, *, dataset: str, count: int, rounds: int) -> dict[str, Any]:
    """All figures by the name of the form."""
    torch.set_num_threads(1)
    paths, truth_of = labelled_photos(dataset, split="test", count=count)
    photos = [decode_rgb(path.read_bytes()) for path in paths]
    calibration = calibration_photos(dataset)
    readers: dict[str, Read] = {"checkpoint": lambda photo: reading_of(detector, photo)}
    sizes: dict[str, int] = {}
    for file_format, precision in FORMS:
        data = export_file(detector, file_format=file_format, precision=precision, calibration=calibration)
        name = f"{file_format} {precision}"
        readers[name], sizes[name] = open_exported(data, file_format=file_format), len(data)
    readings: dict[str, list[Reading]] = {}
    works = {name: _reads_all(name, read, photos=photos, into=readings) for name, read in readers.items()}
    costs = in_turns(works, photos=len(photos), rounds=rounds)
    result: dict[str, Any] = {"photos": len(photos)}
    skus = [category.sku for category in detector.categories]
    for name, read in readers.items():
        result[f"{name}: processor ms a photo"] = 1000 * statistics.median(cost.processor for cost in costs[name])
        result[f"{name}: cAcc"] = list_accuracy(
            readings[name], truth=[truth_of[path.stem] for path in paths], skus=skus
        )
        if name in sizes:
            found = parity(detector, read, photos=[photos[place] for place in _spread(len(photos), count=_COMPARED)])
            result[f"{name}: same lists"] = f"{found.lists} of {found.photos}"
            result[f"{name}: box px, score"] = f"{found.box:.2g}, {found.score:.2g}"
            result[f"{name}: megabytes"] = sizes[name] / 1e6
    return result


def _reads_all(
    name: str, read: Read, *, photos: Sequence[Picture], into: dict[str, list[Reading]]
) -> Callable[[], None]:
    def work() -> None:
        into[name] = [read(photo) for photo in photos]

    return work


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = model_arguments(__doc__)
    parser.add_argument("--photos", type=int, default=180, help="how many test photos")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds over all photos")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    result = measure(model_of(options), dataset=options.dataset, count=options.photos, rounds=options.rounds)
    print_result(result, as_json=options.json, title=f"exported forms, photos of {options.dataset}")


if __name__ == "__main__":
    end_with_code(main)
