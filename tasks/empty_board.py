"""The empty board out of photos that all have products on it.

A photo is modelled as board x light x products' departures: the board is what all photos share, the light is a smooth
surface of one photo, and what departs from both is a product or its shadow. Each board pixel is the mean over the
photos that show it bare; a plain median leaves ghosts where products often lie. Pixels that no photo shows bare are
filled from their surroundings, relative to the smooth surface through the whole board.

Boundary: photos (and product masks, if there are any) in, a board out. Legend: P photos, H x W pixels, C = 3 channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.light import Floats, fit_surface, light_gain, surface_terms

Mask = NDArray[np.bool_]

WORKING_SIDE = 160
_TOLERANCES = (0.12, 0.06, 0.035, 0.025)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyBoard:
    """board_HW3: float32 in 0..255. lights_PC6: log gains of the photos (`tasks.light`). holes: share never seen bare.

    departures_Phw3: log ratio of each photo to the lit board at the working size; 0 where the board is bare.
    """

    board_HW3: Floats
    lights_PC6: Floats
    departures_Phw3: Floats
    holes: float


def shrink(picture: NDArray[np.uint8]) -> Floats:
    """A picture [H, W] or [H, W, 3] at the working size (longer side WORKING_SIDE), float32."""
    scale = min(1.0, WORKING_SIDE / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


def recover_board(photos_PHW3: NDArray[np.uint8], *, products_Phw: Floats | None = None) -> EmptyBoard:
    """The board that the photos share, without the products and shadows on it.

    Args:
        photos_PHW3: uint8 RGB photos of one camera, at least one.
        products_Phw: probability of a product at the working size, from a saliency network; without it only the
            departure from the board tells products apart.
    """
    logs_Phw3 = np.log(np.maximum(np.stack([shrink(photo_HW3) for photo_HW3 in photos_PHW3]), 1.0))
    free_Phw = np.ones(logs_Phw3.shape[:3], np.bool_) if products_Phw is None else _grown(products_Phw > 0.3, 2)[1]
    terms_hw6 = surface_terms(*logs_Phw3.shape[1:3])
    bare_Phw = _likely_bare(logs_Phw3) & free_Phw
    lights_PC6 = np.zeros((len(photos_PHW3), 3, 6), np.float32)
    board_hw3 = _first_surface(logs_Phw3, bare_Phw=bare_Phw, terms_hw6=terms_hw6)
    for tolerance in _TOLERANCES:
        lights_PC6 = _fit_lights(logs_Phw3 - board_hw3, bare_Phw=bare_Phw, terms_hw6=terms_hw6)
        lights_PC6 -= np.median(lights_PC6, axis=0)
        levelled_Phw3 = logs_Phw3 - np.moveaxis(np.tensordot(lights_PC6, terms_hw6, axes=(2, 2)), 1, -1)
        bare_Phw = _bare(levelled_Phw3 - board_hw3, tolerance=tolerance) & free_Phw
        board_hw3 = _bare_mean(levelled_Phw3, bare_Phw=bare_Phw, terms_hw6=terms_hw6)
    board_HW3, holes = _full_size(photos_PHW3, bare_Phw=bare_Phw, lights_PC6=lights_PC6, small_hw3=board_hw3)
    return EmptyBoard(
        board_HW3=board_HW3, lights_PC6=lights_PC6, departures_Phw3=levelled_Phw3 - board_hw3, holes=holes
    )


def _grown(mask_Phw: Mask, radius: int) -> tuple[Mask, Mask]:
    """A mask dilated by `radius` pixels, and its complement."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    grown_Phw = np.stack([cv2.dilate(mask_hw.astype(np.uint8), kernel) > 0 for mask_hw in mask_Phw])
    return grown_Phw, ~grown_Phw


def _likely_bare(logs_Phw3: Floats) -> Mask:
    """First guess: calm places whose colour is near the photo's most common one."""
    chroma_Phw3 = logs_Phw3 - logs_Phw3.mean(-1, keepdims=True)
    middle_P113 = np.median(chroma_Phw3, axis=(1, 2), keepdims=True)
    grey_Phw = logs_Phw3.mean(-1)
    bright_P11 = np.percentile(grey_Phw, 75, axis=(1, 2), keepdims=True)
    near_Phw = (np.abs(chroma_Phw3 - middle_P113).max(-1) < 0.06) & (np.abs(grey_Phw - bright_P11) < 0.4)
    kernel = np.ones((5, 5), np.uint8)
    calm_Phw = np.stack([cv2.dilate(grey_hw, kernel) - cv2.erode(grey_hw, kernel) < 0.06 for grey_hw in grey_Phw])
    return np.asarray(near_Phw & calm_Phw)


def _first_surface(logs_Phw3: Floats, *, bare_Phw: Mask, terms_hw6: Floats) -> Floats:
    """Smooth surface through the per-pixel medians of likely bare samples: no detail yet, but no ghosts."""
    seen_hw = bare_Phw.any(0)
    if seen_hw.sum() < 6:
        return np.median(logs_Phw3, axis=0)
    samples_PM3 = np.where(bare_Phw[:, seen_hw, None], logs_Phw3[:, seen_hw], np.nan)
    return np.asarray(terms_hw6 @ fit_surface(terms_hw6[seen_hw], np.nanmedian(samples_PM3, axis=0)).T)


def _fit_lights(residuals_Phw3: Floats, *, bare_Phw: Mask, terms_hw6: Floats) -> Floats:
    # Every second pixel both ways is plenty for six numbers.
    residuals_Phw3, bare_Phw, terms_hw6 = residuals_Phw3[:, ::2, ::2], bare_Phw[:, ::2, ::2], terms_hw6[::2, ::2]
    lights = []
    for residual_hw3, bare_hw in zip(residuals_Phw3, bare_Phw, strict=True):
        use_hw = bare_hw if bare_hw.sum() >= 50 else np.ones_like(bare_hw)
        lights.append(fit_surface(terms_hw6[use_hw], residual_hw3[use_hw]))
    return np.stack(lights)


def _bare(departures_Phw3: Floats, *, tolerance: float) -> Mask:
    """Pixels that look like the board in all channels, away from what does not; darker counts sooner (soft shadows)."""
    calm_Phw3 = np.stack([cv2.GaussianBlur(departure_hw3, (0, 0), 1.0) for departure_hw3 in departures_Phw3])
    other_Phw = (calm_Phw3.max(-1) > tolerance) | (calm_Phw3.min(-1) < -0.7 * tolerance)
    return _grown(other_Phw, 2)[1]


def _bare_mean(logs_Phw3: Floats, *, bare_Phw: Mask, terms_hw6: Floats) -> Floats:
    """Mean over the photos that show the pixel bare; holes filled relative to the smooth surface; a little calmed."""
    counts_hw = bare_Phw.sum(0)
    mean_hw3 = (logs_Phw3 * bare_Phw[..., None]).sum(0) / np.maximum(counts_hw, 1)[..., None]
    seen_hw = counts_hw > 0
    surface_hw3 = terms_hw6 @ fit_surface(terms_hw6[seen_hw], mean_hw3[seen_hw]).T
    weights_hw = np.minimum(counts_hw / 3.0, 1.0).astype(np.float32)
    filled_hw3 = fill_holes((mean_hw3 - surface_hw3).astype(np.float32), weights_hw=weights_hw)
    return np.asarray(cv2.GaussianBlur(surface_hw3 + filled_hw3, (0, 0), 0.8), np.float32)


def fill_holes(values_hw3: Floats, *, weights_hw: Floats) -> Floats:
    """Values where the weight is 1; elsewhere normalised convolution of the surroundings, from near to far.

    Knutsson and Westin, "Normalized and differential convolution", CVPR 1993.
    """
    filled_hw3 = np.zeros_like(values_hw3)
    for sigma in (40.0, 20.0, 10.0, 5.0, 2.5):
        certainty_hw1 = cv2.GaussianBlur(weights_hw, (0, 0), sigma)[..., None]
        near_hw3 = cv2.GaussianBlur(values_hw3 * weights_hw[..., None], (0, 0), sigma) / np.maximum(certainty_hw1, 1e-6)
        trust_hw1 = np.clip(certainty_hw1 * 4, 0, 1)
        filled_hw3 += ((near_hw3 - filled_hw3) * trust_hw1).astype(np.float32)
    return np.asarray(values_hw3 * weights_hw[..., None] + filled_hw3 * (1 - weights_hw[..., None]), np.float32)


def _full_size(
    photos_PHW3: NDArray[np.uint8], *, bare_Phw: Mask, lights_PC6: Floats, small_hw3: Floats
) -> tuple[Floats, float]:
    """The board at the photos' size: levelled bare pixels, and the small board enlarged where few photos show them."""
    height, width = photos_PHW3.shape[1:3]
    total_HW3 = np.exp(cv2.resize(small_hw3, (width, height), interpolation=cv2.INTER_CUBIC))
    seen_HW = np.zeros((height, width), np.float32)
    for photo_HW3, bare_hw, light_C6 in zip(photos_PHW3, bare_Phw, lights_PC6, strict=True):
        soft_hw = cv2.erode(bare_hw.astype(np.float32), np.ones((3, 3), np.uint8))
        bare_HW = cv2.resize(soft_hw, (width, height), interpolation=cv2.INTER_LINEAR)
        gain_HW3 = light_gain(light_C6, height=height, width=width)
        total_HW3 += photo_HW3 / gain_HW3 * bare_HW[..., None]
        seen_HW += bare_HW
    return (total_HW3 / (seen_HW + 1)[..., None]).astype(np.float32), float((seen_HW < 0.5).mean())


def board_groups(photos_PHW3: NDArray[np.uint8], *, most: int, gain: float = 0.6, least: int = 8) -> list[list[int]]:
    """Groups of photos that show the same board under the same camera, at most `most`, the largest first.

    Photos are compared by the log colours of 8 x 8 tiles, as the share of their likely bare pixels allows, relative to
    the photo's own mean. A group is split in two while that takes away more than `gain` of its variance and leaves at
    least `least` photos on either side.
    """
    descriptors_PD = np.stack([_tile_colours(photo_HW3) for photo_HW3 in photos_PHW3])
    groups = [list(range(len(photos_PHW3)))]
    while len(groups) < most:
        splits = [(group, _split(descriptors_PD, group)) for group in groups]
        useful = [(group, halves) for group, (halves, drop) in splits if drop > gain and min(map(len, halves)) >= least]
        if not useful:
            break
        group, halves = useful[0]
        groups = [other for other in groups if other is not group] + halves
    return sorted(groups, key=lambda group: (-len(group), group))


def _tile_colours(photo_HW3: NDArray[np.uint8]) -> Floats:
    """Median log colour of 8 x 8 tiles over likely bare pixels, less the photo's mean; 0 for tiles without any."""
    logs_hw3 = np.log(np.maximum(shrink(photo_HW3), 1.0))
    bare_hw = _likely_bare(logs_hw3[None])[0]
    mean_3 = np.median(logs_hw3[bare_hw], axis=0) if bare_hw.any() else np.median(logs_hw3, axis=(0, 1))
    tiles = np.zeros((8, 8, 3), np.float32)
    for row, logs_band in enumerate(np.array_split(logs_hw3, 8)):
        bare_band = np.array_split(bare_hw, 8)[row]
        for column, (logs, bare) in enumerate(
            zip(np.array_split(logs_band, 8, axis=1), np.array_split(bare_band, 8, axis=1), strict=True)
        ):
            if bare.mean() > 0.3:
                tiles[row, column] = np.median(logs[bare], axis=0) - mean_3
    return tiles.ravel()


def _split(descriptors_PD: Floats, group: list[int]) -> tuple[list[list[int]], float]:
    """The group in two by 2-means from its two most distant members, and the share of variance that takes away."""
    points_MD = descriptors_PD[group]
    middle_D = np.median(points_MD, axis=0)
    first = int(np.square(points_MD - middle_D).sum(1).argmax())
    second = int(np.square(points_MD - points_MD[first]).sum(1).argmax())
    centres_2D = points_MD[[first, second]]
    for _ in range(10):
        nearest_M = np.square(points_MD[:, None] - centres_2D[None]).sum(-1).argmin(1)
        centres_2D = np.stack(
            [points_MD[nearest_M == k].mean(0) if (nearest_M == k).any() else centres_2D[k] for k in (0, 1)]
        )
    before = np.square(points_MD - points_MD.mean(0)).sum()
    after = np.square(points_MD - centres_2D[nearest_M]).sum()
    halves = [[index for index, side in zip(group, nearest_M, strict=True) if side == k] for k in (0, 1)]
    return halves, float(1 - after / max(before, 1e-12))
