"""Training samples out of labelled photos: drawn, cropped, turned and recoloured, the same for the same generator.

A checkout camera looks straight down, so a quarter turn of a photo is a photo again; mirroring is not (print would be
reversed). Items cut by the edge of a crop become regions that teach nothing when little of them is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.images import Picture
from storage.manifest import ManifestRow

Floats = NDArray[np.float32]
_LEAST_VISIBLE = 0.3
_LEAST_SIDE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPhoto:
    """A photo uint8 [H, W, 3] with boxes [N, 4] xyxy, labels [N] from 1, and ignore boxes [M, 4]; `pseudo`: the labels
    are a model's."""

    photo_HW3: Picture
    boxes_N4: Floats
    labels_N: NDArray[np.int64]
    ignore_M4: Floats
    pseudo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How much samples vary: `zoom` is the largest factor of size either way, `colour` scales every change of light,
    `erase` is the chance that a part of an item is covered (Zhong et al., "Random Erasing Data Augmentation", 2020)."""

    zoom: float = 1.25
    colour: float = 1.0
    erase: float = 0.0


def labelled_photo(row: ManifestRow, photo_HW3: Picture, *, label_of: dict[int, int], longest: int) -> LabelledPhoto:
    """A manifest row with its decoded photo, shrunk so that its longer side is at most `longest` pixels."""
    factor = min(1.0, longest / max(photo_HW3.shape[:2]))
    if factor < 1:
        size = round(photo_HW3.shape[1] * factor), round(photo_HW3.shape[0] * factor)
        photo_HW3 = np.asarray(cv2.resize(photo_HW3, size, interpolation=cv2.INTER_AREA), np.uint8)
    known = [item for item in row.objects if item.status == "ok"]
    ignored = [item for item in row.objects if item.status != "ok"]
    return LabelledPhoto(
        photo_HW3=photo_HW3,
        boxes_N4=_boxes([item.box for item in known]) * np.float32(factor),
        labels_N=np.array([label_of[item.category] for item in known], np.int64),
        ignore_M4=_boxes([item.box for item in ignored]) * np.float32(factor),
        pseudo=row.split == "pseudo",
    )


def _boxes(values: Sequence[tuple[float, float, float, float]]) -> Floats:
    return np.array(values, np.float32).reshape(-1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Another light: colour gains, exponent of the levels, saturation (1: as it is), deviation of the blur in pixels
    and of the noise in grey levels (0: none), and the noise's seed."""

    gains: tuple[float, float, float]
    gamma: float
    saturation: float
    blur: float
    noise: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A sample whose pixels are still to be made: the labels in it, and what `matrix_23` (middles of the photo's pixels
    to those of the sample's, the first at (0, 0)), `light` and `covers_K5` (boxes in the sample and their grey level)
    make of the photo."""

    photo_HW3: Picture
    boxes_N4: Floats
    labels_N: NDArray[np.int64]
    ignore_M4: Floats
    matrix_23: NDArray[np.float64]
    light: Light
    covers_K5: Floats


def draw_sample(source: LabelledPhoto, *, size: int, variation: Variation, generator: np.random.Generator) -> Drawn:
    """A square sample of `size` pixels: a random quarter turn, size and place, and another light."""
    matrix_23 = _placement(source.photo_HW3.shape[:2], size=size, zoom=variation.zoom, generator=generator)
    boxes_N4, visible_N = _moved(source.boxes_N4, matrix_23=matrix_23, size=size)
    ignore_M4, _ = _moved(source.ignore_M4, matrix_23=matrix_23, size=size)
    sides_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2]
    kept_N = (visible_N >= _LEAST_VISIBLE) & (sides_N2 >= _LEAST_SIDE).all(axis=1)
    cut_N = ~kept_N & (visible_N > 0)
    return Drawn(
        photo_HW3=source.photo_HW3,
        boxes_N4=boxes_N4[kept_N],
        labels_N=source.labels_N[kept_N],
        ignore_M4=np.concatenate([ignore_M4[(ignore_M4[:, 2:] > ignore_M4[:, :2]).all(axis=1)], boxes_N4[cut_N]]),
        matrix_23=_between_middles(matrix_23),
        light=draw_light(strength=variation.colour, generator=generator),
        covers_K5=draw_covers(boxes_N4[kept_N], chance=variation.erase, generator=generator),
    )


def draw_covers(boxes_N4: Floats, *, chance: float, generator: np.random.Generator) -> Floats:
    """What covers parts of items: boxes xyxy with a grey level (0 to 255), float32 [K, 5].

    Every item is covered with a chance, on a quarter to a half of each side, so that its label stays true.
    """
    if not chance:
        return np.zeros((0, 5), np.float32)
    chosen_K4 = boxes_N4[generator.random(len(boxes_N4)) < chance]
    sides_K2 = chosen_K4[:, 2:] - chosen_K4[:, :2]
    size_K2 = sides_K2 * generator.uniform(0.25, 0.5, sides_K2.shape)
    corner_K2 = chosen_K4[:, :2] + (sides_K2 - size_K2) * generator.random(sides_K2.shape)
    grey_K1 = generator.uniform(0, 255, (len(chosen_K4), 1))
    return np.concatenate([corner_K2, corner_K2 + size_K2, grey_K1], axis=1, dtype=np.float32)


def covered(photo_HW3: Picture, *, covers_K5: Floats) -> Picture:
    """The photo, uint8, with its covers painted on."""
    photo_HW3 = photo_HW3.copy()
    for x0, y0, x1, y1, grey in np.rint(covers_K5).astype(int):
        photo_HW3[y0:y1, x0:x1] = grey
    return photo_HW3


def pixels(drawn: Drawn, *, size: int) -> Picture:
    """The pixels of a drawn sample, uint8 [size, size, 3]."""
    photo_HW3 = cv2.warpAffine(
        drawn.photo_HW3, drawn.matrix_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    photo_HW3 = relit(np.asarray(photo_HW3, np.uint8), light=drawn.light)
    return covered(photo_HW3, covers_K5=drawn.covers_K5) if len(drawn.covers_K5) else photo_HW3


def _placement(
    shape: tuple[int, ...], *, size: int, zoom: float, generator: np.random.Generator
) -> NDArray[np.float64]:
    """The affine map (2×3, photo pixels to sample pixels) of a random quarter turn, scale and shift."""
    height, width = shape[:2]
    scale = size / max(height, width) * zoom ** generator.uniform(-1, 1)
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[generator.integers(4)]
    turn_22 = scale * np.array([[cosine, -sine], [sine, cosine]], np.float64)
    room = size - scale * np.array([width, height])[:: 1 if sine == 0 else -1]
    # The photo's middle lands where the whole photo stays inside the sample, or where the sample stays full of photo.
    middle_2 = size / 2 + generator.uniform(-0.5, 0.5, 2) * room
    shift_2 = middle_2 - turn_22 @ np.array([width / 2, height / 2])
    return np.column_stack([turn_22, shift_2])


def _between_middles(matrix_23: NDArray[np.float64]) -> NDArray[np.float64]:
    """An affine map of places, as boxes have them (the first pixel is a square from 0 to 1), for those who count pixels
    by their middles (OpenCV, kornia)."""
    shift_2 = matrix_23[:, 2] + matrix_23[:, :2].sum(axis=1) / 2 - 0.5
    return np.column_stack([matrix_23[:, :2], shift_2])


def _moved(boxes_N4: Floats, *, matrix_23: NDArray[np.float64], size: int) -> tuple[Floats, Floats]:
    """Boxes under a map that turns by quarters, clipped to the sample, and the share of each that is left, [N]."""
    corners_N22 = boxes_N4.reshape(-1, 2, 2) @ matrix_23[:, :2].T + matrix_23[:, 2]
    whole_N4 = np.concatenate([corners_N22.min(axis=1), corners_N22.max(axis=1)], axis=1)
    clipped_N4 = np.clip(whole_N4, 0, size)
    left_N = np.prod(clipped_N4[:, 2:] - clipped_N4[:, :2], axis=1)
    area_N = np.prod(whole_N4[:, 2:] - whole_N4[:, :2], axis=1)
    return clipped_N4.astype(np.float32), (left_N / np.maximum(area_N, 1e-6)).astype(np.float32)


def draw_light(*, strength: float, generator: np.random.Generator) -> Light:
    """Another exposure, white balance, gamma, saturation, sharpness and noise; strength 0 changes nothing."""
    gains = (1 + strength * generator.uniform(-0.25, 0.25)) * (1 + strength * generator.uniform(-0.08, 0.08, 3))
    gamma = float(np.exp(strength * generator.uniform(-0.25, 0.25)))
    saturation = 1 + strength * generator.uniform(-0.25, 0.25)
    blurred, noisy = generator.random() < 0.4, generator.random() < 0.5
    blur, noise = generator.uniform(0.3, 0.3 + 0.7 * strength), strength * generator.uniform(1, 6)
    return Light(
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        gamma=gamma,
        saturation=float(saturation),
        blur=float(blur) if blurred and strength else 0.0,
        noise=float(noise) if noisy else 0.0,
        seed=int(generator.integers(2**31)),
    )


def relit(photo_HW3: Picture, *, light: Light) -> Picture:
    """The photo, uint8, in another light."""
    photo_HW3 = cv2.LUT(photo_HW3, _light_table(light))  # type: ignore[assignment]
    grey_HW3 = cv2.cvtColor(cv2.cvtColor(photo_HW3, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    photo_HW3 = cv2.addWeighted(photo_HW3, light.saturation, grey_HW3, 1 - light.saturation, 0)  # type: ignore[assignment]
    if light.blur:
        photo_HW3 = cv2.GaussianBlur(photo_HW3, (0, 0), light.blur)  # type: ignore[assignment]
    if light.noise:
        noise_HW3 = np.random.default_rng(light.seed).standard_normal(photo_HW3.shape, np.float32)
        photo_HW3 = np.clip(photo_HW3 + noise_HW3 * np.float32(light.noise), 0, 255).astype(np.uint8)
    return photo_HW3


def _light_table(light: Light) -> Picture:
    """A look-up table [1, 256, 3]: exposure and white balance as gains, and gamma."""
    levels_256 = (np.arange(256) / 255) ** light.gamma
    return np.clip(levels_256[None, :, None] * np.array(light.gains) * 255 + 0.5, 0, 255).astype(np.uint8)
