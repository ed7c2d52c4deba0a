"""What the pool's photos look like, in numbers: noise, sharpness, shadows, product sizes, colours and places.

Boundary: photos, the recovered board and product masks in, small numbers out; they travel as the attributes of a board.
Legend: H x W photo pixels, h x w working pixels, N blobs, M samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.manifest import ManifestRow
from tasks.light import Floats

Mask = NDArray[np.bool_]
Photo = NDArray[np.uint8]

PLACES = 16
TONE_LEVELS = tuple(range(5, 100, 5))
_DIRECTIONS = 16
_FARTHEST = 14
_NO_SHADOW = 0.1
# Markers in a JPEG file: of quantisation tables, and of the pixels, before which all tables stand.
_TABLES, _SCAN = 0xDB, 0xDA


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoLook:
    """One pool photo's look.

    light_C6: log gains relative to the board (`tasks.light`). noise: standard deviation of grey levels on the bare
    board. detail: share of the products' gradient energy in the finest scale (`detail_share`). ambient: mean darkening
    of the bare board next to products, in 0..1. directed: how much it varies with the direction. angle: direction in
    which it is strongest, radians, x right, y down. reach: how far from products it lies on average, in working pixels;
    0 where it can't be told.
    """

    light_C6: list[list[float]]
    noise: float
    detail: float
    ambient: float
    directed: float
    angle: float
    reach: float

    def to_json(self) -> dict[str, Any]:
        """The look as JSON values."""
        return asdict(self)


def is_board(row: ManifestRow) -> bool:
    """Whether a row of `board` is a board."""
    return row.item_id.startswith("board/")


def product_score(departure_hw3: Floats, *, saliency_hw: Floats | None) -> Floats:
    """How much a working pixel belongs to a product, float32 in [0, 1]; a product's outline is where it crosses 0.5.

    The saliency network's word; without one, the departure from the board relative to its strongest value near by,
    where it is coloured or too strong for a shadow.
    """
    if saliency_hw is not None:
        return saliency_hw
    grey_hw = departure_hw3.mean(-1)
    chroma_hw = np.abs(departure_hw3 - grey_hw[..., None]).max(-1)
    found_hw = (chroma_hw > 0.06) | (grey_hw > 0.08) | (grey_hw < -0.8)
    strength_hw = np.abs(departure_hw3).max(-1)
    return np.asarray(
        found_hw * strength_hw / np.maximum(cv2.dilate(strength_hw, np.ones((5, 5), np.uint8)), 1e-3), np.float32
    )


def product_mask(score_hw: Floats) -> Mask:
    """Where products lie: the score over one half, without specks and pinholes."""
    closed_hw = cv2.morphologyEx((score_hw > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.asarray(cv2.morphologyEx(closed_hw, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)


def noise_level(photo_HW3: Photo, *, bare_HW: Mask) -> float:
    """Standard deviation of the grey noise on the bare board, in grey levels; 0 if nothing is bare.

    Immerkaer, "Fast noise variance estimation", CVIU 1996: its mask is blind to gradients. Responses beyond the 99th
    percentile belong to overlooked products and are left out. JPEG takes noise away, so this is that of the file.
    """
    grey_HW = cv2.cvtColor(photo_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mask_33 = np.asarray([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    responses_M = np.abs(cv2.filter2D(grey_HW, -1, mask_33)[bare_HW])
    if responses_M.size == 0:
        return 0.0
    usual_M = responses_M[responses_M <= np.percentile(responses_M, 99)]
    return float(np.sqrt(np.pi / 2) * usual_M.mean() / 6)


def jpeg_quality_of(data: bytes) -> int | None:
    """The IJG quality (1..100) whose luminance table comes closest to that of a JPEG file; None for other files."""
    start = _first_table(data)
    # A table of 8-bit entries: marker, length, precision and number (both 0), then 64 values.
    if start is None or len(data) < start + 69 or data[start + 4] != 0:
        return None
    total = sum(data[start + 5 : start + 69])
    return min(range(1, 101), key=lambda quality: abs(_table_sum(quality) - total))


def _first_table(data: bytes) -> int | None:
    """Where a JPEG file's first quantisation tables begin, or None. Segments are passed over whole: the thumbnail that
    a camera puts into one has tables of its own."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        if data[at + 1] == _TABLES:
            return at
        # Any number of filling bytes may stand before a marker.
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _table_sum(quality: int) -> int:
    """Sum of the standard luminance table (ITU-T T.81, K.1; 3688 at quality 50) scaled as the IJG library scales it."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return max(64, min(64 * 255, 3688 * percent // 100))


def detail_share(grey_HW: Floats, *, mask_HW: Mask) -> float:
    """Energy of the finest differences over that of differences at 4 times the distance, inside a mask; 0 if empty.

    Falls with blur and is hardly touched by contrast, so it compares the sharpness of photos of the same products.
    """
    if not mask_HW.any():
        return 0.0
    fine_HW = grey_HW - cv2.GaussianBlur(grey_HW, (0, 0), 0.8)
    coarse_HW = cv2.GaussianBlur(grey_HW, (0, 0), 0.8) - cv2.GaussianBlur(grey_HW, (0, 0), 3.2)
    return float(np.square(fine_HW[mask_HW]).sum() / max(float(np.square(coarse_HW[mask_HW]).sum()), 1e-6))


def shadow_profile(departure_hw3: Floats, *, products_hw: Mask, reach: int = 6) -> tuple[float, float, float]:
    """(ambient, directed, angle): first harmonic over directions of the darkening within `reach` pixels of products."""
    dark_hw = np.clip(1 - np.exp(departure_hw3.mean(-1)), -0.1, 0.9)
    near_hw = cv2.dilate(products_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    angles_D = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
    means = [_darkness_towards(dark_hw, near_hw, angle=float(angle), reach=reach) for angle in angles_D]
    if any(mean is None for mean in means):
        return 0.0, 0.0, 0.0
    wave = complex((np.asarray(means, np.float64) * np.exp(1j * angles_D)).mean() * 2)
    return float(np.mean(np.asarray(means, np.float64))), abs(wave), float(np.angle(wave))


def shadow_reach(departure_hw3: Floats, *, products_hw: Mask, angle: float) -> float:
    """How far from products the darkening towards `angle` lies on average, beyond that on the other side; 0 if none.

    In pixels of the map. The mean distance of a shadow that fades evenly is a third of its length.
    """
    sides = [_darkness_by_distance(departure_hw3, products_hw=products_hw, angle=one) for one in (angle, angle + np.pi)]
    directed_D = np.clip(sides[0] - sides[1], 0, None)
    total = float(directed_D.sum())
    return float(directed_D @ np.arange(1, _FARTHEST + 1)) / total if total > _NO_SHADOW else 0.0


def _darkness_by_distance(departure_hw3: Floats, *, products_hw: Mask, angle: float) -> Floats:
    """Mean darkening of what shifts of the products by 1 to _FARTHEST pixels uncover, each beyond the ones before."""
    dark_hw = np.clip(1 - np.exp(departure_hw3.mean(-1)), -0.1, 0.9)
    seen_hw = cv2.dilate(products_hw.astype(np.uint8), np.ones((3, 3), np.uint8))
    first_hw, means = seen_hw, []
    for distance in range(1, _FARTHEST + 1):
        shift_23 = np.asarray([[1, 0, distance * np.cos(angle)], [0, 1, distance * np.sin(angle)]], np.float64)
        shifted_hw = cv2.warpAffine(first_hw, shift_23, first_hw.shape[::-1], flags=cv2.INTER_NEAREST)
        new_hw = (shifted_hw > 0) & (seen_hw == 0)
        means.append(float(dark_hw[new_hw].mean()) if new_hw.any() else 0.0)
        seen_hw = np.maximum(seen_hw, shifted_hw)
    return np.asarray(means, np.float32)


def _darkness_towards(dark_hw: Floats, products_hw: Mask, *, angle: float, reach: int) -> float | None:
    """Mean darkening of the pixels that a shift of the products by `reach` uncovers on one side."""
    height, width = products_hw.shape
    shift_23 = np.asarray([[1, 0, reach * np.cos(angle)], [0, 1, reach * np.sin(angle)]], np.float64)
    shifted_hw = cv2.warpAffine(products_hw.astype(np.uint8), shift_23, (width, height), flags=cv2.INTER_NEAREST) > 0
    side_hw = shifted_hw & ~products_hw
    return float(dark_hw[side_hw].mean()) if side_hw.sum() >= 20 else None


def single_blobs(score_hw: Floats, *, height: int, width: int, least_area: int = 400, solidity: float = 0.93) -> Floats:
    """(long, short) sides of the blobs that are compact enough to be one product, float32 [N, 2], in photo pixels.

    The score is enlarged to the photo's height and width before it is cut, so outlines are finer than working pixels.
    Blobs at the border are left out.
    """
    solid_hw = np.where(product_mask(score_hw), np.maximum(score_hw, _eroded_one(score_hw)), 0).astype(np.float32)
    products_HW = cv2.resize(solid_hw, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    contours, _ = cv2.findContours(products_HW.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    sides = []
    for contour in contours:
        area = cv2.contourArea(contour)
        x, y, w, h = cv2.boundingRect(contour)
        inside = x > 1 and y > 1 and x + w < width - 1 and y + h < height - 1
        if area >= least_area and inside and area >= solidity * cv2.contourArea(cv2.convexHull(contour)):
            sides.append(rectangle_sides(contour))
    return np.asarray(sides, np.float32).reshape(-1, 2)


def _eroded_one(score_hw: Floats) -> Floats:
    """1 well inside the products, 0 elsewhere: holes in the score must not cut a blob."""
    return cv2.erode(product_mask(score_hw).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)


def rectangle_sides(points: cv2.typing.MatLike) -> tuple[float, float]:
    """(long, short) side of the smallest rotated rectangle around pixels, counted from edge to edge."""
    _, (side, other), _ = cv2.minAreaRect(points)
    return max(side, other) + 1.0, min(side, other) + 1.0


def places_of(products: list[Mask]) -> Floats:
    """How often a product lies where: float32 [PLACES, PLACES] that sums to 1 (even if nothing was found)."""
    maps = [cv2.resize(mask.astype(np.float32), (PLACES, PLACES), interpolation=cv2.INTER_AREA) for mask in products]
    total = np.mean(maps, axis=0) if maps else np.zeros((PLACES, PLACES), np.float32)
    total = total + 1e-3
    return np.asarray(total / total.sum(), np.float32)


def tone_levels(pixels_M3: Floats) -> list[list[float]]:
    """Percentiles TONE_LEVELS of each channel of the products' pixels, as [3][levels] grey levels."""
    return [[round(float(level), 2) for level in np.percentile(pixels_M3[:, c], TONE_LEVELS)] for c in range(3)]
