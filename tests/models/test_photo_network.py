import cv2
import numpy as np
import pytest
import torch

from models.photo_network import fit, fused_scores
from tasks import fusion


@pytest.mark.parametrize("shape", [(640, 640), (500, 333), (700, 801), (64, 64), (50, 41)])
def test_fit__resizes_as_opencv_does(shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    size = 64
    factor = size / max(shape)
    scaled = (round(shape[1] * factor), round(shape[0] * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    expected = cv2.resize(photo, scaled, interpolation=method).astype(np.float32)
    fitted = fit(torch.from_numpy(photo), size_2=torch.tensor(shape).double(), image_size=size, side=size)
    got = fitted[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(got[: scaled[1], : scaled[0]] - expected).max() < 1.01
    # OpenCV interpolates enlarged photos in 11-bit fixed point.
    assert np.abs(got[: scaled[1], : scaled[0]] - expected).mean() < (0.05 if factor <= 1 else 0.2)
    assert (got[scaled[1] :] == got[scaled[1] - 1 : scaled[1]]).all()
    assert (got[:, scaled[0] :] == got[:, scaled[0] - 1 : scaled[0]]).all()


def test_fused_scores__as_in_numpy():
    scores = np.sort(np.random.default_rng(1).random(9).astype(np.float32))[::-1].copy()
    got = fused_scores(torch.from_numpy(scores), count=torch.tensor(4.3, dtype=torch.float64))
    assert got.numpy() == pytest.approx(fusion.fused_scores(scores, count=4.3), abs=1e-6)
