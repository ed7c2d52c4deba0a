"""Labelled photos as training samples: read from manifests, or composed on the fly from sprites.

Boundary: manifests and a store in, samples (`tasks.photo_samples`) and batches as `models.dpsnet.DPSNetLosses` takes
them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.training.batches import Batch
from storage.catalog import Category
from storage.images import Picture, decode_rgb
from storage.manifest import Manifest, ManifestRow
from storage.store import Store
from tasks.compose import encoded_photo
from tasks.params import TrainParams
from tasks.photo_samples import Drawn, LabelledPhoto, Variation, draw_sample, labelled_photo, pixels
from tasks.sprites import Kit

Sample = tuple[Picture, dict[str, Tensor | int]]


class PhotoSource:
    """Samples of labelled photos of several manifests, and of synthetic photos that nobody stored.

    Decoded photos stay in memory up to a limit, a share of it for each worker.
    """

    def __init__(
        self,
        store: Store,
        *,
        photos: Sequence[Manifest],
        categories: Sequence[Category],
        params: TrainParams,
        kit: Kit | None,
        workers: int,
    ) -> None:
        """`params.mix` holds the share of the samples for each manifest, in their order; `kit` is what
        `params.stream` of the samples are composed from.

        Raises:
            ValueError: the shares do not fit the manifests, or there is nothing to learn from.
        """
        if len(params.mix) != len(photos):
            raise ValueError(f"mix: expected one share for each of {len(photos)} inputs, got {list(params.mix)}")
        self._store, self._kit, self._params = store, kit, params
        self._rows = [[row for row in manifest.rows if row.status == "ok"] for manifest in photos]
        shares = np.array([share if rows else 0.0 for share, rows in zip(params.mix, self._rows, strict=True)])
        if shares.sum() <= 0:
            raise ValueError("photos: expected at least one labelled photo with a share above 0, got none")
        self._shares = shares / shares.sum()
        self._reached = [_cumulative(rows, balance=params.balance) for rows in self._rows]
        self._label_of = {category.id: index for index, category in enumerate(categories, start=1)}
        self._longest = round(params.image_size * params.zoom)
        self._cache: dict[str, LabelledPhoto] = {}
        self._room = params.cache_gigabytes * 2**30 / max(1, workers)

    def sample(self, *, step: int, position: int) -> Sample:
        """One photo uint8 [S, S, 3] and its target: varied already, or with the numbers to do so on the device."""
        generator = np.random.default_rng((self._params.seed, step, position))
        photo = self._draw(generator)
        variation = view_of(photo, params=self._params)
        drawn = draw_sample(photo, size=self._params.image_size, variation=variation, generator=generator)
        target = _target(drawn, seed=int(generator.integers(2**31)))
        if self._params.augment == "loader":
            return pixels(drawn, size=self._params.image_size), target
        return on_canvas(drawn.photo_HW3, side=self._longest), {**target, **_numbers(drawn)}

    def _draw(self, generator: np.random.Generator) -> LabelledPhoto:
        if generator.random() < self._params.stream:
            return self._compose(int(generator.integers(2**31)))
        place = generator.choice(len(self._rows), p=self._shares)
        rows, reached_N = self._rows[place], self._reached[place]
        if reached_N is None:
            return self._load(rows[generator.integers(len(rows))])
        return self._load(rows[int(np.searchsorted(reached_N, generator.random(), side="right"))])

    def _compose(self, index: int) -> LabelledPhoto:
        assert self._kit is not None and self._params.synthesis is not None
        data, row = encoded_photo(index, kit=self._kit, params=self._params.synthesis)
        return labelled_photo(row, decode_rgb(data), label_of=self._label_of, longest=self._longest)

    def _load(self, row: ManifestRow) -> LabelledPhoto:
        # Photos of two compositions may have the same item_id.
        key = f"{row.item_id} {row.digest}"
        found = self._cache.get(key)
        if found is None:
            photo_HW3 = decode_rgb(self._store.read(row))
            found = labelled_photo(row, photo_HW3, label_of=self._label_of, longest=self._longest)
            self._room -= found.photo_HW3.nbytes
            if self._room > 0:
                self._cache[key] = found
        return found


def view_of(photo: LabelledPhoto, *, params: TrainParams) -> Variation:
    """How a photo is varied: one with pseudo-labels more, as its labels come from a view that was not varied at all."""
    if not photo.pseudo:
        return Variation(zoom=params.zoom, colour=params.colour)
    return Variation(zoom=params.zoom, colour=params.colour * params.strong, erase=params.erase)


def balanced_weights(rows: Sequence[ManifestRow], *, balance: float) -> NDArray[np.float64]:
    """How often each photo is drawn, float64 [N] with sum 1: the mean over its items of (1 / frequency of the SKU).

    `balance` is the exponent: 0 draws all alike, 1 shows every SKU about as often. A photo without an item gets what
    the least wanted one gets. SKUs that are hard to tell apart are rare among trusted items, so they gain as well.
    What selection thinks a photo is worth (its attribute `weight`; else 1) is multiplied with that.
    """
    skus = [[item.sku for item in row.objects if item.status == "ok"] for row in rows]
    frequency = Counter(sku for photo in skus for sku in photo)
    weights_N = np.array([np.mean([frequency[sku] ** -balance for sku in photo]) if photo else 0.0 for photo in skus])
    least = weights_N[weights_N > 0].min(initial=np.inf)
    weights_N[weights_N == 0] = least if np.isfinite(least) else 1.0
    weights_N *= [float(row.attributes.get("weight", 1.0)) for row in rows]
    return weights_N / weights_N.sum()


def _cumulative(rows: Sequence[ManifestRow], *, balance: float) -> NDArray[np.float64] | None:
    """What `searchsorted` draws a pseudo-labelled photo with; None where all photos are drawn alike."""
    if not any(row.split == "pseudo" and (balance or "weight" in row.attributes) for row in rows):
        return None
    # The last sum may be a little below 1, where a number could be drawn.
    return np.cumsum(balanced_weights(rows, balance=balance))[:-1]


def collated(samples: Sequence[Sample]) -> Batch:
    """Photos uint8 [B, S, S, 3] and their targets as `DPSNetLosses` takes them."""
    return torch.from_numpy(np.stack([photo_HW3 for photo_HW3, _ in samples])), [target for _, target in samples]


def _target(drawn: Drawn, *, seed: int) -> dict[str, Tensor | int]:
    return {
        "boxes": torch.from_numpy(drawn.boxes_N4),
        "labels": torch.from_numpy(drawn.labels_N),
        "ignore": torch.from_numpy(drawn.ignore_M4),
        "seed": seed,
    }


def _numbers(drawn: Drawn) -> dict[str, Tensor | int]:
    light = drawn.light
    numbers = (*light.gains, light.gamma, light.saturation, light.blur, light.noise)
    return {
        "matrix": torch.from_numpy(drawn.matrix_23).float(),
        "light": torch.tensor(numbers),
        "covers": torch.from_numpy(drawn.covers_K5),
    }


def on_canvas(photo_HW3: Picture, *, side: int) -> Picture:
    """The photo in the corner of a square, its last row and column repeated: photos of a batch are of one size."""
    below, right = side - photo_HW3.shape[0], side - photo_HW3.shape[1]
    return np.asarray(cv2.copyMakeBorder(photo_HW3, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
