"""The saliency stage's parts: training samples, labels of later rounds, which rows teach, bytes in and out."""

import numpy as np
import pytest
import torch
from safetensors.torch import save

from models.saliency import SaliencyNet
from models.training.loop import train_steps
from storage.manifest import Manifest, ManifestRow
from tasks.coarse import MAYBE_PRODUCT, SURE_BACKDROP, SURE_PRODUCT, coarse_mask, inside_box
from tasks.params import CoarseParams, SaliencyParams
from tasks.saliency import (
    fine_crop,
    load_saliency,
    needs_training,
    predict_saliency,
    teaching_rows,
    window_probability,
)
from tasks.saliency_samples import UNKNOWN, background, collage_sample, exemplar_sample, product_side, square_crop
from tasks.saliency_training import SampleSource, drawn, new_network, new_trainer
from tasks.training import TrainingFolder

CONFIG = b'{"backbone": "efficientnet_lite0", "width": 8, "working_size": 64}'


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = SaliencyNet(backbone="efficientnet_lite0", width=8, pretrained=False)
    made.backbone.fold_norms()
    return made.eval()


def made_crop(size=64):
    """A red square of half the side on grey, known for sure but for a rim of doubt."""
    photo = np.full((48, 60, 3), 180, np.uint8)
    level = np.full((48, 60), SURE_BACKDROP, np.uint8)
    photo[12:36, 15:45], level[12:36, 15:45] = (200, 40, 40), MAYBE_PRODUCT
    level[14:34, 17:43] = SURE_PRODUCT
    return square_crop(photo, level, size=size)


def manifest_of(rows, content=None):
    return Manifest(stage="coarse", key="k", url="memory", content_digest="d", rows=tuple(rows), content=content or {})


@pytest.mark.parametrize(("half", "differs"), [(False, 0.0), (True, 0.02)])
def test_load_saliency__gives_the_same_maps_again(network, monkeypatch, half, differs):
    monkeypatch.setattr("tasks.saliency.computes_bfloat16", lambda device: half)
    loaded = load_saliency(save(network.state_dict()), CONFIG)
    assert next(loaded.parameters()).dtype == (torch.bfloat16 if half else torch.float32)
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    maps = [predict_saliency(net, photo, working_size=64) for net in (network, loaded)]
    assert maps[1].dtype == np.float32
    assert np.abs(maps[0] - maps[1]).max() <= differs


def test_load_saliency__other_tensors(network):
    tensors = {"wrong": torch.zeros(1)}
    with pytest.raises(ValueError, match="expected a network"):
        load_saliency(save(tensors), CONFIG)


@pytest.mark.parametrize("size", [(33, 97), (120, 40), (1, 5), (200, 200)])
def test_predict_saliency__any_size(network, size):
    photo = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    made = predict_saliency(network, photo, working_size=64)
    assert made.shape == size
    assert made.dtype == np.float32
    assert made.min() >= 0 and made.max() <= 1


def test_square_crop__keeps_the_aspect_and_marks_the_rest():
    crop = made_crop()
    assert crop.shape == (64, 64, 4)
    assert (crop[:6, :, 3] == UNKNOWN).all() and (crop[-6:, :, 3] == UNKNOWN).all()
    assert product_side(crop) == pytest.approx(32, abs=1)


@pytest.mark.parametrize("make", [exemplar_sample, lambda crop, **rest: collage_sample([crop, crop], **rest)])
def test_samples__ranges_and_determinism(make):
    first, second = (make(made_crop(), size=96, doubt=0.3, generator=np.random.default_rng(5)) for _ in range(2))
    photo, target, weight = first
    assert photo.shape == (96, 96, 3) and photo.dtype == np.float32
    assert photo.min() >= 0 and photo.max() <= 255
    assert target.min() >= 0 and target.max() <= 1 and target.sum() > 50
    assert set(np.unique(weight)) <= {0.0, np.float32(0.3), 1.0}
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_exemplar_sample__target_lies_on_the_product():
    photo, target, weight = exemplar_sample(made_crop(), size=96, doubt=0.0, generator=np.random.default_rng(2))
    redness = photo[..., 0] - photo[..., 1]
    assert redness[(target > 0.5) & (weight > 0)].mean() > redness[(target == 0) & (weight > 0)].mean() + 60


def test_background__is_a_photo():
    made = background(64, generator=np.random.default_rng(0))
    assert made.shape == (64, 64, 3) and made.min() >= 0 and made.max() <= 255


def made_photo():
    """A red box on grey, its coarse mask, and the box."""
    photo = np.full((90, 120, 3), 180, np.uint8)
    photo[24:72, 30:90] = (200, 40, 40)
    made = coarse_mask(photo, (30.0, 24.0, 90.0, 72.0), params=CoarseParams())
    return photo, made


def test_window_probability__keeps_to_what_is_known(network):
    photo, coarse = made_photo()
    window = coarse.crop(photo)
    box = coarse.box_in(window.shape[:2])
    free, kept = (
        window_probability(network, window, coarse.levels_HW, box=one, working_size=64) for one in (None, box)
    )
    assert kept[~inside_box(box, height=window.shape[0], width=window.shape[1])].max() == 0
    assert kept[window.shape[0] // 2, window.shape[1] // 2] >= 0.75
    assert free.min() > 0


def test_fine_crop__product_stays_in_an_annotated_box(network):
    photo, coarse = made_photo()
    params = SaliencyParams(working_size=64, label_size=64, width=8)
    made = fine_crop(network, photo, coarse, tight=True, params=params)
    assert made.shape == (64, 64, 4)
    rows, columns = np.nonzero(np.isin(made[..., 3], (MAYBE_PRODUCT, SURE_PRODUCT)))
    x0, y0, x1, y1 = coarse.window
    side = max(x1 - x0, y1 - y0)
    assert len(rows) > 0
    assert (np.ptp(columns) + 1) * side / 64 <= 60 + side / 32
    assert (np.ptp(rows) + 1) * side / 64 <= 48 + side / 32


def trained(folder, *, turn=0, ends_after=None):
    """Losses and weights after some steps with saves between; its process ends early if asked to."""
    params = SaliencyParams(steps=6, batch=2, working_size=64, width=8, save_every=2)
    source = SampleSource(np.stack([made_crop(), made_crop()]), params=params, turn=turn)
    trainer = new_trainer(new_network(params), params=params, turn=turn)
    kept = TrainingFolder(folder)
    kept.resume(trainer)
    losses = []
    for report in train_steps(trainer, drawn(source, params=params, steps=range(trainer.step, 6)), clock=lambda: 0.0):
        losses.append(report.losses["saliency"])
        if report.step % 2 == 0:
            kept.save(trainer)
        if len(losses) == ends_after:
            break
    return losses, save({name: value.contiguous() for name, value in trainer.network.state_dict().items()})


def test_training__goes_on_where_it_was_killed(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    losses, weights = trained(tmp_path / "whole")
    trained(tmp_path / "killed", ends_after=3)
    later, again = trained(tmp_path / "killed")
    assert later == losses[2:]
    assert again == weights


def test_sample_source__by_place_alone():
    params = SaliencyParams(working_size=64)
    first, second, other = (
        SampleSource(np.stack([made_crop()] * 3), params=params, turn=turn).sample(step=4, position=1)
        for turn in (0, 0, 1)
    )
    assert all(np.array_equal(one, same) for one, same in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_new_network__leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = new_network(SaliencyParams(width=8, seed=1))
    assert torch.equal(torch.rand(1), expected)
    second = new_network(SaliencyParams(width=8, seed=1))
    assert torch.equal(first.sides[0].score.weight, second.sides[0].score.weight)


def test_teaching_rows__even_over_products():
    rows = [ManifestRow(item_id=f"coarse/a{index:02}", sku="a", quality=0.9) for index in range(20)]
    rows += [ManifestRow(item_id=f"coarse/b{index}", sku="b", quality=0.9) for index in range(3)]
    rows += [ManifestRow(item_id="coarse/c0", sku="c", quality=0.2)]
    chosen = teaching_rows(manifest_of(rows), quality=0.5, most=7, generator=np.random.default_rng(0))
    assert sorted(row.sku for row in chosen) == ["a"] * 4 + ["b"] * 3


@pytest.mark.parametrize(
    ("growth", "products", "expected"), [(0.5, "abc", True), (0.6, "abc", False), (0.1, "ab", False)]
)
def test_needs_training__by_the_share_of_new_products(growth, products, expected):
    previous = manifest_of([], content={"products": ["a", "b"]})
    assert needs_training(set(products), previous, growth=growth) is expected
    assert needs_training(set(products), None, growth=growth)
