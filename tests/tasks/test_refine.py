"""Edge-aware refinement: the guided filter against kornia's, and outlines that snap to edges."""

import cv2
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.filters import guided_blur

from tasks.params import RefineParams
from tasks.refine import guided_filter, refine, refine_twice, sharpen

PARAMS = RefineParams(size=128)


def disc(height=90, width=110, radius=28):
    y, x = np.mgrid[:height, :width]
    mask = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    photo = np.where(mask[..., None], (190, 50, 40), (200, 202, 198)).astype(np.uint8)
    return photo, mask


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


@given(st.integers(0, 2**31), st.integers(1, 4), st.floats(1e-4, 1e-1))
@settings(max_examples=15, deadline=None)
def test_guided_filter__as_kornia(seed, radius, epsilon):
    rng = np.random.default_rng(seed)
    guide, plane = rng.integers(0, 256, (23, 31, 3), np.uint8), rng.random((23, 31), np.float32)
    colours = torch.from_numpy(guide / np.float32(255)).permute(2, 0, 1)[None]
    theirs = guided_blur(colours, torch.from_numpy(plane)[None, None], 2 * radius + 1, epsilon)[0, 0].numpy()
    assert np.allclose(guided_filter(plane, guide, guide, radius=radius, epsilon=epsilon), theirs, atol=2e-4)


def test_refine__rough_mask_snaps_to_the_edge():
    photo, truth = disc()
    rough = cv2.GaussianBlur(np.roll(truth, 2, axis=1).astype(np.float32), (0, 0), 2.0)
    assert iou(rough > 0.5, truth) < 0.95
    assert iou(refine(rough, photo, photo, params=PARAMS) > 0.5, truth) > 0.985


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_refine__alpha_is_in_range(seed):
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (40, 52, 3), np.uint8)
    alpha = refine(rng.random((40, 52), np.float32), photo, photo, params=PARAMS)
    assert alpha.shape == (40, 52)
    assert alpha.min() >= 0 and alpha.max() <= 1


def test_refine__flipped_photo_flipped_mask():
    photo, truth = disc()
    truth[20:30, 55:90] = True
    photo[20:30, 55:90] = (30, 60, 150)
    soft = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 1.5)
    plain = refine(soft, photo, photo, params=PARAMS) > 0.5
    other = photo[:, ::-1].copy()
    flipped = refine(soft[:, ::-1].copy(), other, other, params=PARAMS)[:, ::-1] > 0.5
    assert iou(plain, flipped) > 0.99


def test_refine__full_size_from_a_bounded_one():
    photo, truth = disc(height=720, width=880, radius=224)
    small = cv2.resize(photo, (220, 180), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(cv2.resize(truth.astype(np.float32), (220, 180)), (0, 0), 2.0)
    alpha = refine(soft, small, photo, params=PARAMS)
    assert iou(alpha > 0.5, truth) > 0.99


def test_refine_twice__rough_mask_lies_closer_to_the_edge():
    photo, truth = disc()
    photo = cv2.GaussianBlur(photo, (0, 0), 0.8)
    rough = cv2.GaussianBlur(np.roll(truth, 2, axis=1).astype(np.float32), (0, 0), 2.0)
    alpha = refine_twice(rough, photo, photo, rim=0.018, params=PARAMS)
    assert alpha.min() >= 0 and alpha.max() <= 1
    assert iou(alpha > 0.5, truth) > 0.985
    assert iou(alpha > 0.5, truth) >= iou(refine(rough, photo, photo, params=PARAMS) > 0.5, truth)


def test_sharpen__keeps_the_outline():
    alpha = np.linspace(0, 1, 101, dtype=np.float32)
    assert np.array_equal(sharpen(alpha) > 0.5, alpha > 0.5)
