"""Augmentation of whole batches on the device, with kornia: geometry and light, each photo by its own numbers.

The numbers are drawn with the sample (`tasks.photo_samples`), where boxes are moved by the same matrix; here pixels
are. So a sample is the same photo, but for the noise, whether a loader varies it or the device.

Shapes: B photos, H×W pixels before, S×S after. Photos are float32 RGB in [0, 1]. Matrices map pixel places (x, y)
before to places after, with the middle of the first pixel at (0, 0), as OpenCV's do. A light is seven numbers: three
colour gains, the exponent of the levels, the saturation (1: as it is), the deviation of the blur in pixels and that of
the noise in grey levels of 255 (0: none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import warp_affine
from torch import Tensor

# As wide as the strongest blur (a deviation of one pixel) reaches.
_KERNEL = (7, 7)
_LEAST_BLUR = 1e-2


def varied(photos_B3HW: Tensor, *, targets: Sequence[Mapping[str, Tensor]], size: int) -> Tensor:
    """Photos [B, 3, S, S] as their targets say: by `matrix` [2, 3], `light` [7], `seed` and `covers` [K, 5]."""
    matrices_B23, lights_B7 = (torch.stack([one[name] for one in targets]) for name in ("matrix", "light"))
    photos_B3HW = warped(photos_B3HW, matrices_B23=matrices_B23, size=size)
    photos_B3HW = relit(photos_B3HW, lights_B7=lights_B7, seeds=[int(one["seed"]) for one in targets])
    return covered(photos_B3HW, covers=[one["covers"] for one in targets])


def warped(photos_BCHW: Tensor, *, matrices_B23: Tensor, size: int) -> Tensor:
    """Photos [B, C, S, S] under affine maps, interpolated; the outermost pixels go on beyond the photo."""
    return warp_affine(photos_BCHW, matrices_B23, (size, size), mode="bilinear", padding_mode="border")


def relit(photos_B3HW: Tensor, *, lights_B7: Tensor, seeds: Sequence[int]) -> Tensor:
    """The photos in their lights; `seeds`: of each photo's noise."""
    gamma_B, saturation_B, blur_B, noise_B = (column[:, None, None, None] for column in lights_B7[:, 3:].unbind(dim=1))
    photos_B3HW = (photos_B3HW**gamma_B * lights_B7[:, :3, None, None]).clamp(0, 1)
    photos_B3HW = torch.lerp(rgb_to_grayscale(photos_B3HW), photos_B3HW, saturation_B).clamp(0, 1)
    deviation_B2 = blur_B.flatten(1).clamp(min=_LEAST_BLUR).expand(-1, 2)
    photos_B3HW = gaussian_blur2d(photos_B3HW, _KERNEL, deviation_B2, border_type="reflect")
    noise_B3HW = torch.stack([_noise(photo, seed=seed) for photo, seed in zip(photos_B3HW, seeds, strict=True)])
    return (photos_B3HW + noise_B / 255 * noise_B3HW).clamp(0, 1)


def _noise(photo_3HW: Tensor, *, seed: int) -> Tensor:
    generator = torch.Generator(photo_3HW.device).manual_seed(seed)
    return torch.randn(photo_3HW.shape, generator=generator, device=photo_3HW.device)


def covered(photos_B3HW: Tensor, *, covers: Sequence[Tensor]) -> Tensor:
    """The photos with grey boxes painted on: per photo [K, 5], xyxy in pixels and the grey level of 255."""
    photos_B3HW = photos_B3HW.clone()
    photo_K = [index for index, covers_K5 in enumerate(covers) for _ in range(len(covers_K5))]
    # Read together: each reading waits for the device.
    for index, (x0, y0, x1, y1, grey) in zip(photo_K, torch.cat(list(covers)).round().int().tolist(), strict=True):
        photos_B3HW[index, :, y0:y1, x0:x1] = grey / 255
    return photos_B3HW
