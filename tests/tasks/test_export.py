import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from models.dpsnet import DPSNet, DPSNetConfig
from storage.catalog import Category
from tasks.confidence import UNTRAINED
from tasks.detection import Detector
from tasks.export import export_file, open_exported, parity
from tasks.photo_reader import OnnxReader

pytestmark = pytest.mark.long

EXAMPLE = Path(__file__).parents[2] / "docs/examples/read_list.py"
CONFIG = DPSNetConfig(classes=2, width=8, head_width=16, proposals=10, samples=8, strides=(8, 16, 32), score_floor=0.0)
CATEGORIES = (Category(id=3, sku="tea"), Category(id=9, sku="oats"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    network = DPSNet(CONFIG, pretrained=False).eval()
    return Detector(
        network=network, image_size=64, categories=CATEGORIES, threshold=0.3, count_scale=1.2, confidence=UNTRAINED
    )


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((64, 64), (90, 130), (200, 121), (30, 50))]


@pytest.fixture(scope="module")
def onnx_file(detector):
    return export_file(detector, file_format="onnx", precision="float32")


def test_export_file__onnx_answers_as_the_checkpoint(detector, photos, onnx_file):
    found = parity(detector, open_exported(onnx_file, file_format="onnx"), photos=photos)
    assert found.holds and found.photos == 4
    assert sum(OnnxReader(onnx_file).read_photo(photo).products_C.sum() for photo in photos) > 0


def test_onnx_reader__fitting_by_opencv_changes_nothing(detector, photos, onnx_file):
    reader = OnnxReader(onnx_file)
    assert parity(detector, reader.read_photo, photos=photos).holds
    whole = open_exported(onnx_file, file_format="onnx")
    for photo in photos:
        assert reader.read_photo(photo).count == pytest.approx(whole(photo).count, rel=0.01)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_export_file__torchscript_answers_as_the_checkpoint(detector, photos):
    data = export_file(detector, file_format="torchscript", precision="float32")
    assert parity(detector, open_exported(data, file_format="torchscript"), photos=photos).holds


def test_export_file__int8_runs_with_heads_of_8_bits_and_a_backbone_of_floats(detector, photos):
    data = export_file(detector, file_format="onnx", precision="int8", calibration=photos)
    assert OnnxReader(data).read_photo(photos[1]).products_C.shape == (2,)
    scaled = [node.input[0] for node in onnx.load_from_string(data).graph.node if node.op_type == "DequantizeLinear"]
    assert any("roi_heads.box_head.fc6" in name for name in scaled)
    assert not any("backbone" in name for name in scaled if name.endswith("weight_quantized"))


@pytest.mark.parametrize(("file_format", "precision"), [("onnx", "bf16"), ("torchscript", "int8")])
def test_export_file__refuses_what_a_format_does_not_have(detector, file_format, precision):
    with pytest.raises(ValueError, match="expected float32 or"):
        export_file(detector, file_format=file_format, precision=precision)


def test_onnx_reader__knows_its_products_and_refuses_other_files(onnx_file):
    reader = OnnxReader(onnx_file)
    assert (reader.categories, reader.threshold) == (CATEGORIES, 0.3)
    with pytest.raises(ValueError, match="expected an ONNX file"):
        OnnxReader(b"nothing of the kind")


@pytest.mark.parametrize("suffix", [".ppm", ".npy"])
def test_example__prints_the_list(photos, onnx_file, tmp_path, suffix):
    (tmp_path / "model.onnx").write_bytes(onnx_file)
    photo = tmp_path / f"photo{suffix}"
    if suffix == ".npy":
        np.save(photo, photos[1])
    else:
        photo.write_bytes(cv2.imencode(".ppm", photos[1][..., ::-1])[1].tobytes())
    command = [sys.executable, EXAMPLE, tmp_path / "model.onnx", photo]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    products = OnnxReader(onnx_file).read_photo(photos[1]).products_C
    expected = dict(zip(("tea", "oats"), products.tolist(), strict=True))
    assert {sku: int(n) for n, sku in zip(printed[::2], printed[1::2], strict=True)} == {
        sku: n for sku, n in expected.items() if n
    }
