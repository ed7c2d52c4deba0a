import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.augmentation import covered as covered_on_device
from storage.manifest import ManifestObject, ManifestRow
from tasks.photo_samples import (
    LabelledPhoto,
    Variation,
    covered,
    draw_covers,
    draw_light,
    draw_sample,
    labelled_photo,
    pixels,
    relit,
)


def _photo_of(boxes, *, width=80, height=60):
    """A black photo in which each box is painted in its own brightness."""
    photo = np.zeros((height, width, 3), np.uint8)
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        photo[y0:y1, x0:x1] = 100 + 60 * index
    return LabelledPhoto(
        photo_HW3=photo,
        boxes_N4=np.array(boxes, np.float32).reshape(-1, 4),
        labels_N=np.arange(1, len(boxes) + 1),
        ignore_M4=np.zeros((0, 4), np.float32),
    )


@given(st.integers(0, 10_000), st.integers(3, 50), st.integers(3, 40))
@settings(max_examples=40, deadline=None)
def test_draw_sample__boxes_stay_on_their_pixels(seed, x, y):
    source = _photo_of([(x, y, x + 24, y + 16)])
    sample = draw_sample(
        source, size=64, variation=Variation(zoom=1.3, colour=0), generator=np.random.default_rng(seed)
    )
    painted = pixels(sample, size=64)[..., 0] > 50
    if not len(sample.boxes_N4):
        return
    rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(sample.boxes_N4[0], found, atol=1.0)


@pytest.mark.parametrize("size", [40, 64, 100])
def test_draw_sample__boxes_lie_around_the_middle_of_their_pixels(size):
    """To a tenth of a pixel on average, however the photo is turned: labels beside items teach boxes beside them."""
    source, off = _photo_of([(20, 12, 44, 28)]), []
    for seed in range(24):
        generator = np.random.default_rng(seed)
        sample = draw_sample(source, size=size, variation=Variation(zoom=1.0, colour=0), generator=generator)
        weights = pixels(sample, size=size)[..., 0].astype(np.float64)
        y, x = (np.average(plane + 0.5, weights=weights) for plane in np.mgrid[:size, :size])
        off.append([x, y] - (sample.boxes_N4[0, :2] + sample.boxes_N4[0, 2:]) / 2)
    np.testing.assert_allclose(off, 0, atol=0.3)
    np.testing.assert_allclose(np.mean(off, axis=0), 0, atol=0.1)


def test_draw_sample__turns_by_quarters_and_never_mirrors():
    # An L: long arm, short arm. Its four turned copies are all there is; a mirrored one would be another shape.
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[16:48, 16:24] = 255
    photo[40:48, 24:40] = 255
    source = LabelledPhoto(
        photo_HW3=photo,
        boxes_N4=np.zeros((0, 4), np.float32),
        labels_N=np.zeros(0, np.int64),
        ignore_M4=np.zeros((0, 4), np.float32),
    )
    turned = {np.rot90(photo, turns).tobytes() for turns in range(4)}
    drawn = {
        pixels(
            draw_sample(
                source, size=64, variation=Variation(zoom=1.0, colour=0), generator=np.random.default_rng(seed)
            ),
            size=64,
        ).tobytes()
        for seed in range(30)
    }
    assert len(drawn) == 4
    for one in drawn:
        shown = np.frombuffer(one, np.uint8).reshape(64, 64, 3)
        differences = [np.mean(shown != np.frombuffer(other, np.uint8).reshape(64, 64, 3)) for other in turned]
        assert min(differences) == 0


def test_draw_sample__is_a_function_of_its_generator():
    source = _photo_of([(5, 5, 30, 30), (40, 10, 70, 50)])
    one, same, other = (
        draw_sample(source, size=64, variation=Variation(), generator=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(pixels(one, size=64), pixels(same, size=64)) and np.array_equal(one.boxes_N4, same.boxes_N4)
    assert not np.array_equal(pixels(one, size=64), pixels(other, size=64))


def test_draw_sample__items_cut_off_become_ignore_regions():
    source = _photo_of([(0, 0, 78, 8)], width=80, height=80)
    samples = [
        draw_sample(source, size=64, variation=Variation(zoom=3.0, colour=0), generator=np.random.default_rng(seed))
        for seed in range(40)
    ]
    cut = [sample for sample in samples if not len(sample.boxes_N4) and len(sample.ignore_M4)]
    assert cut, "no draw cut the item"
    assert all(len(sample.labels_N) == len(sample.boxes_N4) for sample in samples)


def test_labelled_photo__shrinks_and_sorts_objects():
    row = ManifestRow(
        item_id="pseudo/1",
        objects=(
            ManifestObject(category=7, sku="tea", box=(10, 20, 50, 60)),
            ManifestObject(category=0, sku="", box=(0, 0, 20, 20), status="ignore"),
        ),
    )
    photo = labelled_photo(row, np.zeros((100, 200, 3), np.uint8), label_of={7: 2}, longest=100)
    assert photo.photo_HW3.shape == (50, 100, 3)
    assert photo.boxes_N4.tolist() == [[5, 10, 25, 30]] and photo.labels_N.tolist() == [2]
    assert photo.ignore_M4.tolist() == [[0, 0, 10, 10]]


def _relit(photo, *, strength, seed=0):
    return relit(photo, light=draw_light(strength=strength, generator=np.random.default_rng(seed)))


def test_relit__strength_0_changes_nothing():
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(_relit(photo, strength=0), photo)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_relit__keeps_mid_grey_in_range(strength):
    photo = np.full((16, 16, 3), 128, np.uint8)
    means = [_relit(photo, strength=strength, seed=seed).mean() for seed in range(40)]
    assert 128 * 0.4 < min(means) < 128 < max(means) < 128 * 1.9


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_draw_covers__each_lies_on_a_part_of_its_item(seed):
    boxes = np.array([[10, 10, 50, 30], [60, 5, 64, 40]], np.float32)
    covers = draw_covers(boxes, chance=1.0, generator=np.random.default_rng(seed))
    assert (covers[:, :2] >= boxes[:, :2] - 1e-3).all() and (covers[:, 2:4] <= boxes[:, 2:] + 1e-3).all()
    shares = np.prod(covers[:, 2:4] - covers[:, :2], axis=1) / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    assert (shares <= 0.26).all() and (covers[:, 4] <= 255).all()


def test_draw_covers__none_by_default():
    assert draw_covers(np.ones((3, 4), np.float32), chance=0.0, generator=np.random.default_rng(0)).shape == (0, 5)


def test_covered__the_same_on_the_device():
    photo = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    covers = np.array([[2.2, 3.4, 9.7, 12.0, 200.0], [15, 0, 22, 6, 31.4]], np.float32)
    painted = covered(photo, covers_K5=covers)
    on_device = covered_on_device(
        torch.from_numpy(photo).permute(2, 0, 1)[None] / 255, covers=[torch.from_numpy(covers)]
    )
    np.testing.assert_array_equal((on_device[0] * 255).round().permute(1, 2, 0).numpy(), painted)
    assert (painted[3:12, 2:10] == 200).all() and (painted[:, 10:15] == photo[:, 10:15]).all()
