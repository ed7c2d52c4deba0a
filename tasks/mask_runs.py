"""COCO run-length encoding of one label's pixels, read off the map of all labels: no mask of its own is ever filled."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Labels = NDArray[np.uint8]

# Plain unsigned positions in flat arrays: compilers make vectors of such loops, and of no others.
_U = np.uint64
_CHUNK = 16


@njit(cache=True, nogil=True)
def _changes(labels: Labels, at: np.uint64, above: np.uint64, width: int, label: np.uint8, changed: Labels) -> np.bool_:
    """Fill `changed` with 1 where a row bears the label and the row above does not, or the other way round."""
    some = np.uint8(0)
    for c in range(_U(width)):
        one = np.uint8(labels[at + c] == label) ^ np.uint8(labels[above + c] == label)
        changed[c] = np.uint8(one)
        some = np.uint8(some | np.uint8(one))
    return some > 0


@njit(cache=True, nogil=True)
def _any(flags: Labels, start: np.uint64) -> np.bool_:
    some = np.uint8(0)
    for c in range(_U(_CHUNK)):
        some = np.uint8(some | flags[start + c])
    return some > 0


@njit(cache=True, nogil=True)
def _edges(labels_HW: Labels, label: int, window_4: tuple, edges: NDArray[np.int64], box_4: NDArray[np.int64]) -> int:
    """Write the places, counted down the columns, where runs of a label start and end; unordered. Returns how many."""
    left, top, right, bottom = window_4
    height, stride = labels_HW.shape
    labels, count, width = labels_HW.ravel(), 0, right - left
    changed = np.zeros(-(-width // _CHUNK) * _CHUNK, np.uint8)
    box_4[0], box_4[1], box_4[2], box_4[3] = right, bottom, left, top
    for y in range(top, bottom + 1):
        at, above = y * stride + left, (y - 1) * stride + left
        if y in (top, bottom):
            # Nothing of the label lies above the window's first row and in the row below its last.
            row = at if y == top else above
            for c in range(width):
                changed[c] = labels[row + c] == label
        elif not _changes(labels, _U(at), _U(above), width, np.uint8(label), changed):
            continue
        for start in range(0, changed.size, _CHUNK):
            if not _any(changed, _U(start)):
                continue
            for c in range(start, start + _CHUNK):
                if changed[c]:
                    edges[count] = (left + c) * height + y
                    count += 1
                    if y < bottom and labels[at + c] == label:
                        box_4[0], box_4[2] = min(box_4[0], left + c), max(box_4[2], left + c + 1)
                        box_4[1] = min(box_4[1], y)
                    else:
                        box_4[3] = max(box_4[3], y)
    return count


@njit(cache=True, nogil=True)
def _write_counts(edges: NDArray[np.int64], pixels: int, text: NDArray[np.uint8]) -> int:
    """Write COCO's compressed counts of ordered edges in a photo of so many pixels; returns their length."""
    length, before, last, second_last, number = 0, 0, 0, 0, 0
    position = 0
    while position <= edges.size:
        # A run that ends at the foot of one column and goes on at the top of the next is one run.
        if position + 1 < edges.size and edges[position] == edges[position + 1]:
            position += 2
            continue
        edge = edges[position] if position < edges.size else pixels
        position += 1
        count = edge - before
        if count == 0 and position > edges.size:
            break
        # From the fourth on, each count is written as the difference to the one before the last.
        value = count - second_last if number > 2 else count
        more = True
        while more:
            five = value & 31
            value >>= 5
            more = value != (-1 if five & 16 else 0)
            text[length] = 48 + five + (32 if more else 0)
            length += 1
        second_last, last, before = last, count, edge
        number += 1
    return length


def encode_label(labels_HW: NDArray[np.uint8], *, label: int, window: tuple[int, int, int, int]) -> tuple[str, Box]:
    """Compressed counts of the pixels that bear `label`, and their tight box (xyxy).

    `window` (xyxy) holds them all. The counts equal `storage.rle.encode_mask` of the whole mask. Where there is no such
    pixel, the box is the window's upper left corner, without extent.
    """
    left, top, right, bottom = window
    edges = np.empty((right - left + 2) * (bottom - top + 2), np.int64)
    box_4 = np.empty(4, np.int64)
    found = edges[: _edges(labels_HW, label, window, edges, box_4)]
    found.sort()
    text = np.empty(6 * (len(found) + 2), np.uint8)
    length = _write_counts(found, labels_HW.size, text)
    x0, y0, x1, y1 = box_4.tolist() if len(found) else (left, top, left, top)
    return text[:length].tobytes().decode("ascii"), (float(x0), float(y0), float(x1), float(y1))
