"""An exported ONNX file as a reader of photos: what is in one photo, without torch.

The file's own metadata names its products and its threshold; nothing else is needed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    RuntimeException,
)

from storage.catalog import Category
from storage.images import Picture
from storage.manifest import ManifestObject
from tasks.confidence import ListConfidence

METADATA_KEY = "tally"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is in one photo: N detections, best first, boxes xyxy in its pixels, labels 0..C-1; the shopping list as a
    number for each of C products; and the counting view's number of products."""

    boxes_N4: NDArray[np.float32]
    scores_N: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    products_C: NDArray[np.int64]
    count: float


class OnnxReader:
    """Reads photos through an exported file. Threads may read at once: each photo runs on one core."""

    def __init__(self, data: bytes) -> None:
        """Open the bytes of a file that `tally export` wrote.

        Raises:
            ValueError: it is no ONNX file, or not one of `tally export`.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, RuntimeException) as error:
            raise ValueError(f"model: expected an ONNX file of `tally export`, got another ({error})") from error
        recorded = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if recorded is None:
            raise ValueError("model: expected an ONNX file of `tally export`, got one without its metadata")
        body = orjson.loads(recorded)
        self.categories = tuple(Category(**category) for category in body["categories"])
        self.threshold, self.image_size = float(body["threshold"]), int(body["image_size"])
        self.confidence = ListConfidence.from_json(body["confidence"])

    def read_photo(self, photo_HW3: Picture) -> Reading:
        """What is in one photo, uint8 RGB [H, W, 3].

        Raises:
            RuntimeError: ONNX Runtime cannot (its own errors are of no common kind).
        """
        try:
            boxes_N4, scores_N, labels_N, products_C, count = self._session.run(None, {"photo": photo_HW3})
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise RuntimeError(f"model: the photo could not be read ({error})") from error
        return Reading(
            boxes_N4=boxes_N4, scores_N=scores_N, labels_N=labels_N, products_C=products_C, count=float(count)
        )

    def objects_of(self, reading: Reading) -> tuple[ManifestObject, ...]:
        """A reading's detections as the rest of the project knows them."""
        columns = zip(reading.boxes_N4.tolist(), reading.scores_N.tolist(), reading.labels_N.tolist(), strict=True)
        return tuple(
            ManifestObject(
                category=self.categories[label].id,
                sku=self.categories[label].sku,
                box=(box[0], box[1], box[2], box[3]),
                centre=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
                score=score,
            )
            for box, score, label in columns
        )
