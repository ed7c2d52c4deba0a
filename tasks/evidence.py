"""What the pool says about views: pool crops compared with every exemplar's cut-out, and shared among the products.

Both are embedded by a pretrained backbone (`models.embedding`). A product in a checkout photo may be turned by any
angle about the camera's axis, so crops are compared at many rotations, and the best one counts. No label of any
checkout photo is used; accepted pseudo-labels may say which product a crop shows.

Shapes: N views, M crops, K products, R rotations, B patches, S side of a patch, C channels, G side of a map, D = C·G².
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.boxes import area, intersection_matrix

if TYPE_CHECKING:
    from models.embedding import CutoutEmbedding

Window = tuple[int, int, int, int]
Floats = NDArray[np.float32]

_BATCH = 32
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class PoolCrop:
    """What may be one product of a pool photo: where, its maps at every rotation, float16 [R, C, G, G], and its SKU
    if a pseudo-label names it."""

    photo: str
    box: Window
    maps_RCGG: NDArray[np.float16]
    sku: str | None = None


def embed(network: CutoutEmbedding, patches: Iterable[Floats]) -> Iterator[NDArray[np.float16]]:
    """Maps [C, G, G] of patches (float32 [S, S, 4], RGB and mask), computed in batches."""
    import torch

    waiting = iter(patches)
    while batch := list(islice(waiting, _BATCH)):
        planes_B4SS = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)
        yield from network(planes_B4SS[:, :3], planes_B4SS[:, 3:]).numpy().astype(np.float16)


def channel_scale(crops: Sequence[PoolCrop]) -> Floats:
    """Standard deviation of each channel over the pool's crops, float32 [C]: every channel is to count alike.

    It comes from the pool alone, so a longer catalog changes no distance.
    """
    sums = [
        (maps.sum((0, 2, 3)), (maps**2).sum((0, 2, 3)))
        for maps in (crop.maps_RCGG.astype(np.float32) for crop in crops)
    ]
    count = len(crops) * crops[0].maps_RCGG[:, 0].size
    mean_C, square_C = (np.sum(part, axis=0) / count for part in zip(*sums, strict=True))
    return np.asarray(np.sqrt(np.maximum(square_C - mean_C**2, 1e-6)), np.float32)


def vectors(maps_NCGG: NDArray[np.floating], *, scale_C: Floats) -> Floats:
    """Maps as vectors float32 [N, D], whose length is the square root of the scaled map's.

    Bare surfaces have short maps and noisy directions, print has long ones: distances of plain maps favour the bare
    views, distances of unit vectors the printed ones. The square root lies between.
    """
    flat_ND = (maps_NCGG.astype(np.float32) / scale_C[:, None, None]).reshape(len(maps_NCGG), -1)
    length_N1 = np.linalg.norm(flat_ND, axis=1, keepdims=True)
    return np.asarray(flat_ND / np.sqrt(np.maximum(length_N1, 1e-6)), np.float32)


def distances(views_ND: Floats, turned_MRD: NDArray[np.float16]) -> Floats:
    """Euclidean distance of every view to every crop at its best rotation, float32 [N, M]; some crops at a time."""
    squares_N1 = (views_ND**2).sum(axis=1)[:, None]
    out_NM = np.empty((len(views_ND), len(turned_MRD)), np.float32)
    for start in range(0, len(turned_MRD), _BLOCK):
        some_MRD = turned_MRD[start : start + _BLOCK].astype(np.float32)
        turned_XD = some_MRD.reshape(-1, some_MRD.shape[-1])
        squared_NX = squares_N1 + (turned_XD**2).sum(axis=1) - 2 * views_ND @ turned_XD.T
        nearest_NM = squared_NX.reshape(len(views_ND), len(some_MRD), -1).min(axis=2)
        out_NM[:, start : start + _BLOCK] = np.sqrt(np.maximum(nearest_NM, 0))
    return out_NM


def best_apart(nearest_M: Floats, crops: Sequence[PoolCrop], *, overlap: float = 0.5) -> list[int]:
    """Which candidates are kept where several of a photo overlap: those that resemble some view most, in their order.

    Args:
        nearest_M: each crop's distance to its nearest view.
        crops: the candidates.
        overlap: most shared area of two that are kept, as a share of the smaller box.
    """
    boxes_M4 = np.array([crop.box for crop in crops], np.float32)
    sizes_M = area(boxes_M4)
    by_photo: dict[str, list[int]] = {}
    for index in np.argsort(nearest_M, kind="stable"):
        kept = by_photo.setdefault(crops[index].photo, [])
        shared_1K = intersection_matrix(boxes_M4[index : index + 1], boxes_M4[kept])
        if not kept or (shared_1K[0] <= overlap * np.minimum(sizes_M[index], sizes_M[kept])).all():
            kept.append(int(index))
    return sorted(chain.from_iterable(by_photo.values()))


def claims(best_KM: Floats, *, owners_M: NDArray[np.int64], sharpness: float, distrust: float) -> Floats:
    """What each product may claim of each crop, float32 [K, M] in [0, 1].

    A crop is shared among the products by how near their best view is, so look-alikes share it; a crop whose product is
    known goes to that product.

    Args:
        best_KM: distance of each crop to each product's nearest view.
        owners_M: each crop's product where it is known, otherwise -1.
        sharpness: how fast a share falls, per relative excess over the crop's best distance.
        distrust: how fast a crop's say falls, per relative excess over the median crop's best distance: a crop that
            resembles nothing is two products, or half of one.
    """
    products, crops = best_KM.shape
    best_KM = np.maximum(best_KM, 1e-6)
    nearest_M = best_KM.min(axis=0)
    share_KM = np.exp(-sharpness * (best_KM / nearest_M - 1))
    share_KM /= share_KM.sum(axis=0)
    known_M = owners_M >= 0
    share_KM[:, known_M] = np.arange(products)[:, None] == owners_M[known_M]
    own_M = np.where(known_M, best_KM[owners_M, np.arange(crops)], nearest_M)
    trust_M = np.exp(-distrust * np.maximum(0, own_M / np.median(own_M) - 1))
    return np.asarray(share_KM * trust_M, np.float32)


def evidence(distance_NM: Floats, claim_M: Floats, *, sharpness: float) -> Floats:
    """How often the pool shows each view of one product, float32 [N] >= 0.

    What the product may claim of a crop goes to the views that are about as near as its nearest one.
    """
    best_M = np.maximum(distance_NM.min(axis=0), 1e-6)
    return np.asarray((np.exp(-sharpness * (distance_NM / best_M - 1)) * claim_M).sum(axis=1), np.float32)
