import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import save

from models.dpsnet import DPSNet, DPSNetConfig
from storage.catalog import Category
from tasks.confidence import UNTRAINED
from tasks.detection import Detector, decode_config, detect, encode_config, load_detector, turn_back
from tasks.params import View

CONFIG = DPSNetConfig(classes=2, width=8, head_width=16, proposals=10, samples=8, strides=(8, 16, 32), score_floor=0.0)
CATEGORIES = (Category(id=3, sku="tea"), Category(id=9, sku="oats"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class _SeesBrightPixels(torch.nn.Module):
    """Stands for a network that finds the one bright rectangle of each photo exactly and counts its pixels."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, photos_B3HW):
        detections = []
        for photo in photos_B3HW:
            rows, columns = torch.where(photo[0] > 0.5)
            box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
            detections.append({"boxes": box[None], "scores": torch.tensor([0.9]), "labels": torch.tensor([2])})
        return detections, torch.nn.functional.avg_pool2d(photos_B3HW[:, :1], 8)


def _detector(size=64):
    return Detector(
        network=_SeesBrightPixels(),
        image_size=size,
        categories=CATEGORIES,
        threshold=0.5,
        count_scale=1.0,
        confidence=UNTRAINED,
    )


def _photo(box, *, height=96, width=128):
    photo = np.zeros((height, width, 3), np.uint8)
    photo[box[1] : box[3], box[0] : box[2]] = 255
    return photo


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_detect__boxes_and_density_come_back_in_the_photos_frame(turns, mirrored):
    box = (16, 24, 48, 80)
    (found,) = detect(_detector(), [_photo(box)], view=View(turns=turns, mirrored=mirrored))
    (item,) = found.objects
    assert (item.category, item.sku) == (9, "oats")
    np.testing.assert_allclose(item.box, box, atol=2.1)
    np.testing.assert_allclose(item.centre, (32, 52), atol=2.1)
    assert found.density_Chw.shape == (1, 6, 8)
    brightest = np.unravel_index(found.density_Chw[0].argmax(), (6, 8))
    assert 1 <= brightest[0] <= 4 and 1 <= brightest[1] <= 2


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.5])
def test_detect__a_zoomed_view_finds_the_same_place(zoom):
    box = (16, 24, 48, 80)
    (found,) = detect(_detector(), [_photo(box)], view=View(zoom=zoom))
    np.testing.assert_allclose(found.objects[0].box, box, atol=2.1 / min(zoom, 1))
    height, width = found.density_Chw.shape[1:]
    assert width / height == pytest.approx(128 / 96, rel=0.2)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4])
def test_turn_back__undoes_numpys_rot90(turns):
    box = (5, 8, 20, 30)
    turned = np.rot90(_photo(box, height=40, width=50), turns)
    rows, columns = np.where(turned[..., 0] > 0)
    found = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    assert turn_back(found, turns=turns, shape=turned.shape).tolist() == [list(box)]


def test_load_detector__gives_back_what_was_saved():
    torch.manual_seed(0)
    network = DPSNet(CONFIG, pretrained=False).eval()
    config = encode_config(
        CONFIG, image_size=64, categories=CATEGORIES, threshold=0.4, count_scale=1.0, confidence=UNTRAINED
    )
    detector = load_detector(save(network.state_dict()), config)
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (one,), (other,) = (
        detect(which, [photo])
        for which in (
            detector,
            Detector(
                network=network,
                image_size=64,
                categories=CATEGORIES,
                threshold=0.4,
                count_scale=1.0,
                confidence=UNTRAINED,
            ),
        )
    )
    assert one.objects == other.objects and np.array_equal(one.density_Chw, other.density_Chw)
    assert (detector.image_size, detector.threshold, detector.categories) == (64, 0.4, CATEGORIES)


def test_decode_config__refuses_other_files():
    with pytest.raises(ValueError, match="expected JSON"):
        decode_config(b"not json")
    with pytest.raises(ValueError, match="expected the format"):
        decode_config(orjson.dumps({"backbone": "resnet18"}))


def test_load_detector__refuses_weights_of_another_network():
    config = encode_config(
        CONFIG, image_size=64, categories=CATEGORIES, threshold=0.4, count_scale=1.0, confidence=UNTRAINED
    )
    with pytest.raises(ValueError, match="expected the weights"):
        load_detector(save({"x": torch.zeros(1)}), config)
