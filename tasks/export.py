"""A trained model as one file that needs none of this project: ONNX or TorchScript, with pre- and post-processing.

`parity` then reads photos through the checkpoint and through the file and says how far apart they are.
"""

from __future__ import annotations

import copy
import io
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import orjson
import torch
from onnx.external_data_helper import convert_model_from_external_data
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from models.dpsnet import padded_size
from models.photo_network import HalfBackbone, PhotoNetwork
from storage.catalog import category_records
from storage.images import Picture
from tasks.detection import Detector, detect
from tasks.fusion import fused_objects
from tasks.photo_reader import FITTED, METADATA_KEY, SIZE, Reading, open_session, reading

Format = Literal["onnx", "torchscript"]
Precision = Literal["float32", "int8", "bf16"]
OUTPUTS = ("boxes", "scores", "labels", "products", "count")
BOX_TOLERANCE, SCORE_TOLERANCE = 0.5, 1e-3
_OPSET = 17
_TRACED_SIDE = 640
_QUANTIZED = ["Conv", "Gemm"]
_KEPT_FLOAT = ("/backbone/", "/counting/last/", "/cls_logits", "/bbox_pred", "/cls_score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How an exported file's answers differ from the checkpoint's over some photos.

    `box`: the largest difference of a listed product's box, photo pixels; `score`: of its score; `lists`: photos whose
    shopping lists are the same.
    """

    photos: int
    lists: int
    box: float
    score: float

    @property
    def holds(self) -> bool:
        """Same lists, boxes to 0.5 px, scores to 1e-3."""
        return self.lists == self.photos and self.box <= BOX_TOLERANCE and self.score <= SCORE_TOLERANCE


def photo_network(detector: Detector) -> PhotoNetwork:
    """The detector with pre- and post-processing in the graph."""
    return PhotoNetwork(
        detector.network,
        image_size=detector.image_size,
        threshold=detector.threshold,
        count_scale=detector.count_scale,
    )


def metadata(detector: Detector) -> bytes:
    """What a reader of the file must know, as JSON: categories in the order of the labels, threshold, sizes."""
    return orjson.dumps(
        {
            "categories": category_records(detector.categories),
            "threshold": detector.threshold,
            "confidence": detector.confidence.to_json(),
            "image_size": detector.image_size,
            "side": padded_size(detector.image_size),
        }
    )


def _traced_photo() -> torch.Tensor:
    return torch.zeros(_TRACED_SIDE, _TRACED_SIDE, 3, dtype=torch.uint8)


def to_torchscript(detector: Detector, *, precision: Precision) -> bytes:
    """The bytes of a TorchScript file; `torch.jit.load` reads it (after `import torchvision`), C++ does too.

    Its JSON metadata is the extra file "tally". With bf16 the backbone runs in bfloat16.

    Raises:
        ValueError: TorchScript has no such precision here.
    """
    if precision == "int8":
        raise ValueError("precision: expected float32 or bf16 for torchscript, got int8: use --format onnx")
    network, buffer = photo_network(detector), io.BytesIO()
    if precision == "bf16":
        network = copy.deepcopy(network)
        network.set_submodule("network.backbone", HalfBackbone(network.network.backbone))
    with torch.inference_mode(), warnings.catch_warnings():
        # Tracing warns of every size that is fixed on purpose, and that torch.export is to replace it one day.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, (_traced_photo(),), check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={METADATA_KEY: metadata(detector).decode()})
    return buffer.getvalue()


def to_onnx(detector: Detector, *, precision: Precision, calibration: Sequence[Picture] = ()) -> bytes:
    """The bytes of an ONNX file; `calibration` photos set the ranges of an int8 one.

    Raises:
        ValueError: ONNX Runtime's CPU kernels do not have the precision, or int8 has no photos to calibrate on.
    """
    if precision == "bf16":
        raise ValueError(
            "precision: expected float32 or int8 for onnx, got bf16, which ONNX Runtime has no CPU kernels for: "
            "use --format torchscript"
        )
    data = _labelled(_traced_onnx(photo_network(detector)), detector=detector)
    return quantized(data, calibration=calibration) if precision == "int8" else data


class _Marked(nn.Module):
    """A photo network that also puts out what it fitted, so that these tensors have names in the graph."""

    def __init__(self, network: PhotoNetwork) -> None:
        super().__init__()
        self.network = network
        # The exporter puts a module back into the mode in which it found it, with all that is in it.
        self.eval()

    def forward(self, photo_HW3: Tensor) -> tuple[Tensor, ...]:
        fitted_13SS, size_2 = self.network.fitting(photo_HW3)
        return *self.network.read(fitted_13SS, size_2), fitted_13SS, size_2


def _traced_onnx(network: PhotoNetwork) -> onnx.ModelProto:
    buffer = io.BytesIO()
    free = {"photo": {0: "height", 1: "width"}, **{name: {0: "detections"} for name in ("boxes", "scores", "labels")}}
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The tracing exporter: the newer one cannot follow the number of taps, which depends on the photo's size.
        torch.onnx.export(
            _Marked(network),
            (_traced_photo(),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=_OPSET,
            input_names=["photo"],
            output_names=[*OUTPUTS, FITTED, SIZE],
            dynamic_axes=free,
        )
    model = onnx.load_from_string(buffer.getvalue())
    del model.graph.output[len(OUTPUTS) :]
    return model


def _labelled(model: onnx.ModelProto, *, detector: Detector) -> bytes:
    model.metadata_props.add(key=METADATA_KEY, value=metadata(detector).decode())
    model.producer_name = "tally"
    return model.SerializeToString()


class _Photos(CalibrationDataReader):
    """Photos as ONNX Runtime's calibration asks for them."""

    def __init__(self, photos: Sequence[Picture]) -> None:
        self._photos = iter(photos)

    def get_next(self) -> dict[str, Picture] | None:
        """The next photo, None after the last."""
        photo_HW3 = next(self._photos, None)
        return None if photo_HW3 is None else {"photo": photo_HW3}


def quantized(data: bytes, *, calibration: Sequence[Picture]) -> bytes:
    """The ONNX file with 8-bit pyramid, counting view and heads, weights by channel.

    The backbone stays in float: ONNX Runtime gains nothing on its depthwise convolutions, and it is where lists go
    wrong (`python -m benchmarks.export`). So do the last layers, whose outputs are scores, boxes and densities.

    Raises:
        ValueError: there are no photos to calibrate on.
    """
    if not calibration:
        raise ValueError("calibration: expected photos that show what activations to expect, got none")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(data)
        nodes = [node.name for node in onnx.load_from_string(data).graph.node if node.op_type in _QUANTIZED]
        quantize_static(
            source,
            target,
            _Photos(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=[name for name in nodes if any(part in name for part in _KEPT_FLOAT)],
            # Unsigned activations with signed weights: what processors have instructions for (VNNI).
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        model = onnx.load(target)
        convert_model_from_external_data(model)
        return model.SerializeToString()


def export_file(
    detector: Detector, *, file_format: Format, precision: Precision, calibration: Sequence[Picture] = ()
) -> bytes:
    """The exported file's bytes. Raises ValueError for a precision that the format does not have."""
    if file_format == "onnx":
        return to_onnx(detector, precision=precision, calibration=calibration)
    return to_torchscript(detector, precision=precision)


def open_exported(data: bytes, *, file_format: Format) -> Callable[[Picture], Reading]:
    """What reads a photo through all of an exported file that this process has just made."""
    if file_format == "onnx":
        session = open_session(data)
        return lambda photo_HW3: reading(session, {"photo": photo_HW3})
    import torchvision  # noqa: F401 - registers the operators that the file uses

    traced = torch.jit.load(io.BytesIO(data))

    def read(photo_HW3: Picture) -> Reading:
        with torch.inference_mode():
            boxes, scores, labels, products, count = traced(torch.from_numpy(photo_HW3))
        return Reading(
            boxes_N4=boxes.numpy(),
            scores_N=scores.numpy(),
            labels_N=labels.numpy(),
            products_C=products.numpy(),
            count=float(count),
        )

    return read


def reading_of(detector: Detector, photo_HW3: Picture) -> Reading:
    """What the checkpoint itself says of a photo, in the form of an exported file's answer."""
    (found,) = detect(detector, [photo_HW3])
    count = detector.count_scale * found.count
    objects = fused_objects(found.objects, count=count)
    label_of = {category.sku: place for place, category in enumerate(detector.categories)}
    labels_N = np.asarray([label_of[item.sku] for item in objects], np.int64)
    scores_N = np.asarray([item.score for item in objects], np.float32)
    listed_N = labels_N[scores_N >= detector.threshold]
    return Reading(
        boxes_N4=np.asarray([item.box for item in objects], np.float32).reshape(-1, 4),
        scores_N=scores_N,
        labels_N=labels_N,
        products_C=np.bincount(listed_N, minlength=len(detector.categories)),
        count=count,
    )


def parity(detector: Detector, read: Callable[[Picture], Reading], *, photos: Sequence[Picture]) -> Parity:
    """Compare the listed products of the checkpoint and of an exported file, each with the nearest of its SKU."""
    same, box, score = 0, 0.0, 0.0
    for photo_HW3 in photos:
        expected, got = reading_of(detector, photo_HW3), read(photo_HW3)
        equal = np.array_equal(expected.products_C, got.products_C)
        same += equal
        listed = int(expected.products_C.sum())
        # A different list has been counted; the products of both can then not be paired one by one.
        if equal and listed:
            differences = _differences(expected, got, listed=listed)
            box, score = max(box, differences[0]), max(score, differences[1])
    return Parity(photos=len(photos), lists=same, box=box, score=score)


def _differences(expected: Reading, got: Reading, *, listed: int) -> tuple[float, float]:
    """The largest differences of box (pixels) and score between the best `listed` products and the nearest ones."""
    apart_LL = np.abs(expected.boxes_N4[:listed, None] - got.boxes_N4[None, :listed]).max(axis=2)
    apart_LL[expected.labels_N[:listed, None] != got.labels_N[None, :listed]] = np.inf
    nearest_L = apart_LL.argmin(axis=1)
    scores_L = np.abs(expected.scores_N[:listed] - got.scores_N[nearest_L])
    return float(apart_LL.min(axis=1).max()), float(scores_L.max())
