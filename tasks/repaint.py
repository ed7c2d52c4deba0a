"""The bare board under a photo: what on it is not board, and painting doubtful places over with board.

Boundary: arrays in, arrays out; nothing here knows detections' scores or labels. Legend: H x W pixels, h x w the
working size, N boxes xyxy in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.boxes import Boxes
from storage.images import Picture
from tasks.light import fit_surface, light_gain, surface_terms

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

_WORKING_SIDE = 160
_BRIGHTER, _DARKER = 0.10, -0.9
_RIM_BLUR = 0.04
_LEAST_BARE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LitBoard:
    """The board as it would look in one photo.

    `board_HW3`: the board, uint8. `light_C6`: the photo's light on it (`tasks.light`). `departure_hw3`: log ratio
    of the photo to the lit board at the working size. `free_hw`: working pixels outside all given boxes.
    `spread`: median absolute departure there.
    """

    board_HW3: Picture
    light_C6: Floats
    departure_hw3: Floats
    free_hw: Mask
    spread: float


def lit_board(photo_HW3: Picture, *, board_HW3: Picture, boxes_N4: Boxes) -> LitBoard | None:
    """The board in the light of a photo, fitted where no box lies; None where too little of it is bare to fit."""
    height, width = photo_HW3.shape[:2]
    board_HW3 = board_HW3 if board_HW3.shape == photo_HW3.shape else _resized(board_HW3, (width, height))
    ratio_hw3 = _small_log(photo_HW3) - _small_log(board_HW3)
    scale = ratio_hw3.shape[1] / width
    free_hw = ~box_mask(boxes_N4 * scale, height=ratio_hw3.shape[0], width=ratio_hw3.shape[1])
    if free_hw.sum() < _LEAST_BARE:
        return None
    terms_hw6 = surface_terms(*ratio_hw3.shape[:2])
    light_C6 = fit_surface(terms_hw6[free_hw], ratio_hw3[free_hw])
    departure_hw3 = ratio_hw3 - terms_hw6 @ light_C6.T
    return LitBoard(
        board_HW3=board_HW3,
        light_C6=light_C6,
        departure_hw3=departure_hw3,
        free_hw=free_hw,
        spread=float(np.median(np.abs(departure_hw3[free_hw]))),
    )


def closest_board(photo_HW3: Picture, *, boards: list[Picture], boxes_N4: Boxes) -> LitBoard | None:
    """The lit board that departs least from the photo where no box lies."""
    fitted = [lit_board(photo_HW3, board_HW3=board_HW3, boxes_N4=boxes_N4) for board_HW3 in boards]
    return min((one for one in fitted if one is not None), key=lambda one: one.spread, default=None)


def _resized(picture: Picture, size: tuple[int, int]) -> Picture:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _small_log(picture_HW3: Picture) -> Floats:
    scale = min(1.0, _WORKING_SIDE / max(picture_HW3.shape[:2]))
    size = (max(1, round(picture_HW3.shape[1] * scale)), max(1, round(picture_HW3.shape[0] * scale)))
    return np.log(np.maximum(_resized(picture_HW3, size), 1).astype(np.float32))


def box_mask(boxes_N4: Boxes, *, height: int, width: int) -> Mask:
    """The pixels that any box touches, bool [height, width]."""
    mask_HW = np.zeros((height, width), np.bool_)
    for x0, y0, x1, y1 in np.asarray(boxes_N4, np.float64):
        mask_HW[max(int(y0), 0) : max(int(np.ceil(y1)), 0), max(int(x0), 0) : max(int(np.ceil(x1)), 0)] = True
    return mask_HW


def grown(boxes_N4: Boxes, *, margin: float) -> Boxes:
    """Boxes with `margin` times their longer side added on every side."""
    sides_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2]
    added_N1 = margin * sides_N2.max(axis=1, keepdims=True, initial=0)
    return np.concatenate([boxes_N4[:, :2] - added_N1, boxes_N4[:, 2:] + added_N1], axis=1, dtype=np.float32)


def stray_boxes(lit: LitBoard, *, contrast: float, least_area: float) -> Boxes:
    """Things on the board that no box covers, as boxes xyxy float32 [N, 4] in pixels of the photo.

    A shadow darkens all channels alike, so only a departure in colour by more than `contrast` (log ratio), a brighter
    place, or one darker than shadows get counts as a thing. `least_area` is the least visible area in photo pixels.
    """
    brightness_hw = lit.departure_hw3.mean(axis=-1)
    colour_hw = np.abs(lit.departure_hw3 - brightness_hw[..., None]).max(axis=-1)
    odd_hw = lit.free_hw & ((colour_hw > contrast) | (brightness_hw > _BRIGHTER) | (brightness_hw < _DARKER))
    opened_hw = cv2.morphologyEx(odd_hw.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(opened_hw)
    scale = lit.board_HW3.shape[1] / lit.departure_hw3.shape[1]
    things = stats[1:][stats[1:, cv2.CC_STAT_AREA] * scale**2 >= least_area]
    left, top, width, height = (things[:, column] for column in range(4))
    return (np.stack([left, top, left + width, top + height], axis=1) * scale).astype(np.float32)


def paint_board(
    photo_HW3: Picture, *, lit: LitBoard, doubtful_N4: Boxes, kept_N4: Boxes, margin: float
) -> tuple[Picture, Mask]:
    """The photo with its doubtful boxes painted over by board, and the pixels that were touched, bool [H, W].

    The paint is full inside the boxes and fades out over `margin` times the longer side around them; it is matched to
    the photo where the board is bare around the hole. No pixel of a kept box is touched.
    """
    height, width = photo_HW3.shape[:2]
    alpha_HW = _soft_holes(doubtful_N4, margin=margin, height=height, width=width)
    alpha_HW[box_mask(kept_N4, height=height, width=width)] = 0.0
    touched_HW = alpha_HW > 0
    painted_HW3 = photo_HW3.copy()
    rows, columns = np.flatnonzero(touched_HW.any(axis=1)), np.flatnonzero(touched_HW.any(axis=0))
    if not rows.size:
        return painted_HW3, touched_HW
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    gain_HW3 = light_gain(lit.light_C6, height=height, width=width)[window]
    paint_hw3 = lit.board_HW3[window] * gain_HW3 * _rim_gain(lit, height=height, width=width)[window]
    photo_hw3 = painted_HW3[window]
    mixed_hw3 = photo_hw3 + alpha_HW[window][..., None] * (paint_hw3 - photo_hw3)
    painted_HW3[window] = np.clip(np.rint(mixed_hw3), 0, 255).astype(np.uint8)
    return painted_HW3, touched_HW


def _soft_holes(boxes_N4: Boxes, *, margin: float, height: int, width: int) -> Floats:
    """1 inside the boxes, fading to 0 with the distance to them; float32 [height, width]."""
    x_W, y_H = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    alpha_HW = np.zeros((height, width), np.float32)
    for x0, y0, x1, y1 in boxes_N4:
        away_W, away_H = np.maximum(np.maximum(x0 - x_W, x_W - x1), 0), np.maximum(np.maximum(y0 - y_H, y_H - y1), 0)
        distance_HW = np.hypot(away_W[None], away_H[:, None])
        np.maximum(alpha_HW, 1 - distance_HW / (1.0 + margin * max(x1 - x0, y1 - y0)), out=alpha_HW)
    return alpha_HW


def _rim_gain(lit: LitBoard, *, height: int, width: int) -> Floats:
    """What the light fit left over near each pixel: departures of bare pixels, blurred with their weights."""
    quiet_hw = lit.free_hw & (np.abs(lit.departure_hw3).max(axis=-1) < max(3 * lit.spread, 0.02))
    weight_hw1 = quiet_hw.astype(np.float32)[..., None]
    sigma = _RIM_BLUR * max(quiet_hw.shape)
    above_hw3 = cv2.GaussianBlur(lit.departure_hw3.astype(np.float32) * weight_hw1, (0, 0), sigma)
    below_hw = cv2.GaussianBlur(weight_hw1, (0, 0), sigma)
    # Far from any bare pixel the correction fades to none and the fitted light alone remains.
    gain_hw3 = np.exp(above_hw3 / (below_hw[..., None] + 0.02))
    return np.asarray(cv2.resize(gain_hw3, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
