"""An exported ONNX file as a reader of photos: what is in one photo, without torch.

The file's own metadata names its products and its threshold; nothing else is needed beside it. The file can fit a photo
into the network's square itself, so that it needs no other code; here OpenCV does it, in less than half the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import orjson
from google.protobuf.message import DecodeError
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
from tasks.fitted_graph import behind
from tasks.fitting import fit_photo

METADATA_KEY = "tally"
# Tensors in the graph: the photo in the network's square, float32 [1, 3, S, S], and its height and width, float64 [2].
FITTED, SIZE = "fitted", "size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is in one photo: N detections, best first, boxes xyxy in its pixels, labels 0..C-1; the shopping list as a
    number for each of C products; and the counting view's number of products."""

    boxes_N4: NDArray[np.float32]
    scores_N: NDArray[np.float32]
    labels_N: NDArray[np.int64]
    products_C: NDArray[np.int64]
    count: float


def open_session(data: bytes) -> onnxruntime.InferenceSession:
    """A session on one core of the processor.

    Raises:
        ValueError: the bytes are no ONNX file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, RuntimeException) as error:
        raise ValueError(f"model: expected an ONNX file of `tally export`, got another ({error})") from error


def reading(session: onnxruntime.InferenceSession, given: Mapping[str, NDArray[Any]]) -> Reading:
    """What a session says of one photo: boxes [N, 4] xyxy in pixels, scores [N], labels [N] and a count.

    Raises:
        RuntimeError: ONNX Runtime cannot (its own errors are of no common kind).
    """
    try:
        boxes_N4, scores_N, labels_N, products_C, count = session.run(None, dict(given))
    except (Fail, InvalidArgument, RuntimeException) as error:
        raise RuntimeError(f"model: the photo could not be read ({error})") from error
    return Reading(boxes_N4=boxes_N4, scores_N=scores_N, labels_N=labels_N, products_C=products_C, count=float(count))


class OnnxReader:
    """Reads photos through an exported file. Threads may read at once: each photo runs on one core."""

    def __init__(self, data: bytes) -> None:
        """Open the bytes of a file that `tally export` wrote.

        Raises:
            ValueError: it is no ONNX file, or not one of `tally export`.
        """
        try:
            model = onnx.load_from_string(data)
        except DecodeError as error:
            raise ValueError(f"model: expected an ONNX file of `tally export`, got another ({error})") from error
        recorded = {one.key: one.value for one in model.metadata_props}.get(METADATA_KEY)
        if recorded is None:
            raise ValueError("model: expected an ONNX file of `tally export`, got one without its metadata")
        body = orjson.loads(recorded)
        self.categories = tuple(Category(**category) for category in body["categories"])
        self.threshold, self.image_size = float(body["threshold"]), int(body["image_size"])
        self.confidence = ListConfidence.from_json(body["confidence"])
        self._side = int(body["side"])
        fitted = (onnx.TensorProto.FLOAT, (1, 3, self._side, self._side))
        inner = behind(model, inputs={FITTED: fitted, SIZE: (onnx.TensorProto.DOUBLE, (2,))})
        self._session = open_session(inner.SerializeToString())

    def read_photo(self, photo_HW3: Picture) -> Reading:
        """What is in one photo, uint8 RGB [H, W, 3]. Raises RuntimeError where ONNX Runtime cannot tell."""
        fitted_SS3, _ = fit_photo(photo_HW3, size=self.image_size, side=self._side)
        # Planes, and levels in [0, 1], in one pass.
        fitted_13SS = cv2.dnn.blobFromImage(fitted_SS3, scalefactor=1 / 255)
        return reading(self._session, {FITTED: fitted_13SS, SIZE: np.asarray(photo_HW3.shape[:2], np.float64)})

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
