import cv2
import numpy as np
import torch

from models.augmentation import covered, relit, warped


def _matrix(scale=0.8, shift=(3.0, -2.0), quarter=1):
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter]
    turn = scale * np.array([[cosine, -sine], [sine, cosine]])
    middle = np.array([31.5, 31.5])
    return np.column_stack([turn, middle - turn @ middle + shift])


def test_warped__is_opencvs_warp_photo_by_photo():
    generator = np.random.default_rng(0)
    photos = [cv2.GaussianBlur(generator.random((64, 64, 3), np.float32), (0, 0), 2) for _ in range(3)]
    matrices = [_matrix(quarter=quarter, scale=0.7 + 0.2 * quarter) for quarter in range(3)]
    made = warped(
        torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2),
        matrices_B23=torch.from_numpy(np.stack(matrices)).float(),
        size=48,
    )
    for photo, matrix, got in zip(photos, matrices, made, strict=True):
        expected = cv2.warpAffine(photo, matrix, (48, 48), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # OpenCV places pixels in steps of 1/32.
        np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), expected, atol=0.02)


def test_relit__a_light_that_changes_nothing_and_one_of_gains():
    photos = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5
    still = torch.tensor([[1.0, 1, 1, 1, 1, 0, 0]]).repeat(2, 1)
    torch.testing.assert_close(relit(photos, lights_B7=still, seeds=[0, 1]), photos)
    brighter = still.clone()
    brighter[1, :3] = torch.tensor([1.5, 1.2, 0.5])
    made = relit(photos, lights_B7=brighter, seeds=[0, 1])
    torch.testing.assert_close(made[0], photos[0])
    torch.testing.assert_close(made[1], photos[1] * brighter[1, :3, None, None])


def test_relit__noise_depends_on_the_photos_own_seed():
    photos = torch.full((2, 3, 32, 32), 0.5)
    noisy = torch.tensor([[1.0, 1, 1, 1, 1, 0, 5.0]]).repeat(2, 1)
    both, second = relit(photos, lights_B7=noisy, seeds=[1, 2]), relit(photos[1:], lights_B7=noisy[1:], seeds=[2])
    assert torch.equal(both[1], second[0]) and not torch.equal(both[0], both[1])
    assert abs(float(both.std()) - 5 / 255) < 1e-3


def test_covered__paints_each_photos_own_boxes():
    photos = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    covers = [
        torch.tensor([[1.0, 2, 4, 5, 51], [2.6, 0, 8, 3, 255]]),
        torch.zeros(0, 5),
        torch.tensor([[0.0, 0, 2, 1, 0]]),
    ]
    expected = photos.clone()
    expected[0, :, 2:5, 1:4] = 0.2
    expected[0, :, 0:3, 3:8] = 1
    expected[2, :, 0:1, 0:2] = 0
    torch.testing.assert_close(covered(photos, covers=covers), expected)
