"""What rendering learns from: photos of both domains at working size, and the random crops drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.manifest import ManifestRow
from storage.rle import decode_union

Photo = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPhotos:
    """Photos at working size, all held in memory: uint8 RGB [H, W, 3]; `masks` mark the products of `synthetic`."""

    synthetic: Sequence[Photo]
    masks: Sequence[Mask]
    pool: Sequence[Photo]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """One batch: images float32 [B, 3, S, S] in [-1, 1], the synthetic images' product masks [B, 1, S, S] in {0, 1}."""

    synthetic_B3SS: Tensor
    mask_B1SS: Tensor
    pool_B3SS: Tensor


def item_mask(row: ManifestRow, *, height: int, width: int) -> Mask:
    """The union of a photo's products, bool [height, width]: their masks, or boxes where a mask is not recorded."""
    masks = [item.mask_rle for item in row.objects if item.mask_rle is not None]
    mask_HW = decode_union(masks, height=height, width=width)
    for item in row.objects:
        if item.mask_rle is None:
            left, top, right, bottom = (round(side) for side in item.box)
            mask_HW[max(top, 0) : bottom, max(left, 0) : right] = True
    return mask_HW


def shrink(photo_HW3: Photo, *, scale: float) -> Photo:
    """The photo at `scale` (at most 1) of its size, averaged over areas."""
    height, width = photo_HW3.shape[:2]
    if scale == 1.0:
        return photo_HW3
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(photo_HW3, size, interpolation=cv2.INTER_AREA), np.uint8)


def shrink_mask(mask_HW: Mask, *, scale: float) -> Mask:
    """The mask at `scale`; a pixel is set where more than half of its area was."""
    return shrink(mask_HW.astype(np.uint8) * 255, scale=scale) > 127


def to_unit(photo_HW3: Photo) -> NDArray[np.float32]:
    """uint8 0..255 to float32 -1..1, same shape."""
    return np.asarray(photo_HW3, np.float32) / 127.5 - 1


def draw_crops(photos: TrainingPhotos, *, size: int, batch: int, generator: torch.Generator) -> Crops:
    """`batch` crops of `size` x `size` pixels of each domain, photo and place drawn evenly and independently.

    Raises:
        ValueError: a photo is smaller than a crop.
    """
    synthetic, masks, pool = [], [], []
    for _ in range(batch):
        index = _draw(len(photos.synthetic), generator=generator)
        window = _draw_window(photos.synthetic[index].shape, size=size, generator=generator)
        synthetic.append(photos.synthetic[index][window])
        masks.append(photos.masks[index][window])
        other = photos.pool[_draw(len(photos.pool), generator=generator)]
        pool.append(other[_draw_window(other.shape, size=size, generator=generator)])
    return Crops(
        synthetic_B3SS=_images(synthetic),
        mask_B1SS=torch.from_numpy(np.stack(masks).astype(np.float32))[:, None],
        pool_B3SS=_images(pool),
    )


def _draw(count: int, *, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _draw_window(shape: Sequence[int], *, size: int, generator: torch.Generator) -> tuple[slice, slice]:
    height, width = shape[:2]
    if min(height, width) < size:
        raise ValueError(f"crop: expected at most {min(height, width)} pixels (a photo at working size), got {size}")
    top = _draw(height - size + 1, generator=generator)
    left = _draw(width - size + 1, generator=generator)
    return slice(top, top + size), slice(left, left + size)


def _images(crops: Sequence[Photo]) -> Tensor:
    images_B3SS = torch.from_numpy(to_unit(np.stack(crops))).permute(0, 3, 1, 2)
    return images_B3SS.contiguous(memory_format=torch.channels_last)
