"""Items of a pool photo that pseudo-labels name: which pixels are whose, and which stand clear enough to be cut out.

Where products lie is the saliency network's word; whose a pixel is, where boxes overlap, is that of the box whose
inscribed ellipse it lies deepest in.

Boundary: a saliency map and boxes in, arrays out. Legend: H x W pixels, N items, boxes xyxy in pixels; label i is the
i-th box.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.boxes import Boxes, area, intersection_matrix
from tasks.mask_shapes import convex_hull, largest_pieces

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_SALIENT = 0.5
# With less of its box salient, an item is something that the network overlooked: the ellipse in the box stands for it.
_LEAST_FILLED = 0.25
# An item that others' boxes reach into, or that is not compact, is rather left where it is than cut out badly.
_MOST_SHARED, _LEAST_SOLID = 0.25, 0.85
_SOFT = (0.25, 0.75)
_REACH = np.ones((5, 5), np.uint8)


def item_labels(probability_HW: Floats, *, boxes_N4: Boxes) -> Labels:
    """Whose each pixel is: 0 nobody's, i the i-th item's; uint8 [H, W]. At most 255 items.

    `probability_HW`: that a pixel belongs to a product. No item is without pixels unless others take its whole box.
    """
    assert len(boxes_N4) < 256, "an item's label is a byte"
    depth_HW = np.full(probability_HW.shape, np.inf, np.float32)
    owner_HW = np.zeros(probability_HW.shape, np.uint8)
    for number, box_4 in enumerate(boxes_N4, start=1):
        window = _window(box_4, shape=probability_HW.shape)
        depth_hw = _from_middle(box_4, window=window)
        deeper_hw = depth_hw < depth_HW[window]
        depth_HW[window][deeper_hw] = depth_hw[deeper_hw]
        owner_HW[window][deeper_hw] = number
    labels_HW = np.zeros_like(owner_HW)
    for number, (box_4, whole) in enumerate(zip(boxes_N4, area(boxes_N4), strict=True), start=1):
        window = _window(box_4, shape=probability_HW.shape)
        own_hw = owner_HW[window] == number
        item_hw = own_hw & (probability_HW[window] > _SALIENT)
        if item_hw.sum() >= _LEAST_FILLED * whole:
            item_hw = largest_pieces(item_hw)
        else:
            item_hw = own_hw & (depth_HW[window] <= 1)
        labels_HW[window][item_hw] = number
    return labels_HW


def _window(box_4: NDArray[np.float32], *, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The pixels that a box touches."""
    x0, y0, x1, y1 = box_4.tolist()
    rows = slice(max(0, int(y0)), min(shape[0], int(np.ceil(y1))))
    return rows, slice(max(0, int(x0)), min(shape[1], int(np.ceil(x1))))


def _from_middle(box_4: NDArray[np.float32], *, window: tuple[slice, slice]) -> Floats:
    """Squared distance of pixels to the middle of a box, 1 on its inscribed ellipse; float32 [h, w]."""
    x0, y0, x1, y1 = box_4.tolist()
    rows, columns = (np.arange(one.start, one.stop, dtype=np.float32) + 0.5 for one in window)
    down_h = (2 * rows - (y0 + y1)) / max(y1 - y0, 1.0)
    across_w = (2 * columns - (x0 + x1)) / max(x1 - x0, 1.0)
    return np.asarray(np.square(down_h)[:, None] + np.square(across_w)[None], np.float32)


def stand_clear(labels_HW: Labels, *, boxes_N4: Boxes, others_M4: Boxes) -> NDArray[np.bool_]:
    """Which items can be cut out whole: little of their box is others', they are compact and away from the border.

    `others_M4`: places of which nobody knows what lies there.
    """
    height, width = labels_HW.shape
    shared_NN = intersection_matrix(boxes_N4, boxes_N4)
    np.fill_diagonal(shared_NN, 0)
    shared_N = shared_NN.sum(axis=1) + intersection_matrix(boxes_N4, others_M4).sum(axis=1)
    inside_N = (boxes_N4[:, :2] > 1).all(axis=1) & (boxes_N4[:, 2:] < (width - 1, height - 1)).all(axis=1)
    clear_N = inside_N & (shared_N <= _MOST_SHARED * area(boxes_N4))
    for index in np.flatnonzero(clear_N):
        item_hw = labels_HW[_window(boxes_N4[index], shape=labels_HW.shape)] == index + 1
        clear_N[index] = item_hw.any() and item_hw.sum() >= _LEAST_SOLID * convex_hull(item_hw).sum()
    return np.asarray(clear_N, np.bool_)


def soft_alpha(probability_HW: Floats, *, labels_HW: Labels, label: int) -> Labels:
    """How much of each pixel an item covers, uint8 [H, W]: soft where it ends on the board, hard where on another."""
    low, high = _SOFT
    alpha_HW = np.rint(255 * np.clip((probability_HW - low) / (high - low), 0, 1)).astype(np.uint8)
    own_HW = (labels_HW == label).astype(np.uint8)
    near_HW = (cv2.dilate(own_HW, _REACH) > 0) & ((labels_HW == 0) | (labels_HW == label))
    # Where the network overlooked the item, the ellipse that stands for it is solid.
    alpha_HW[(own_HW > 0) & (alpha_HW < 128)] = 255
    return np.where(near_HW, alpha_HW, 0).astype(np.uint8)
