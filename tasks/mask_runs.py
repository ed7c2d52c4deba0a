"""COCO run-length encoding of items' pixels, read off the map of all labels: no mask of its own is ever filled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.compiled import compiled

Labels = NDArray[np.uint8]
Integers = NDArray[np.int64]

# Plain unsigned positions in flat arrays: compilers make vectors of such loops, and of no others.
_U = np.uint64
_CHUNK = 16


@compiled
def _changes(labels: Labels, at: np.uint64, above: np.uint64, width: int, label: np.uint8, changed: Labels) -> np.bool_:
    """Fill `changed` with 1 where a row bears the label and the row above does not, or the other way round."""
    some = np.uint8(0)
    for c in range(_U(width)):
        one = np.uint8(labels[at + c] == label) ^ np.uint8(labels[above + c] == label)
        changed[c] = np.uint8(one)
        some = np.uint8(some | np.uint8(one))
    return some > 0


@compiled
def _any(flags: Labels, start: np.uint64) -> np.bool_:
    some = np.uint8(0)
    for c in range(_U(_CHUNK)):
        some = np.uint8(some | flags[start + c])
    return some > 0


@compiled
def _edges(labels_HW: Labels, label: int, window_4: Integers, columns: Integers, rows: Integers) -> int:
    """Where runs of a label, read down the columns, start and end: column and row of each, row by row. Their number."""
    left, upper, right, lower = window_4
    stride, width = labels_HW.shape[1], right - left
    labels, count = labels_HW.ravel(), 0
    changed = np.zeros(-(-width // _CHUNK) * _CHUNK, np.uint8)
    for y in range(upper, lower + 1):
        at = y * stride + left
        if y in (upper, lower):
            # Nothing of the label lies above the window's first row and in the row below its last.
            row = at if y == upper else at - stride
            for c in range(width):
                changed[c] = labels[row + c] == label
        elif not _changes(labels, _U(at), _U(at - stride), width, np.uint8(label), changed):
            continue
        for start in range(0, changed.size, _CHUNK):
            if _any(changed, _U(start)):
                for c in range(start, start + _CHUNK):
                    if changed[c]:
                        columns[count], rows[count] = c, y
                        count += 1
    return count


@compiled
def _in_columns(columns: Integers, rows: Integers, window_4: Integers, height: int) -> Integers:
    """The edges as ordered positions in the photo, counted down its columns, by counting sort."""
    ends = np.zeros(window_4[2] - window_4[0] + 1, np.int64)
    for k in range(columns.size):
        ends[columns[k] + 1] += 1
    ends = np.cumsum(ends)
    edges = np.empty(columns.size, np.int64)
    for k in range(columns.size):
        edges[ends[columns[k]]] = (window_4[0] + columns[k]) * height + rows[k]
        ends[columns[k]] += 1
    return edges


@compiled
def _write_counts(edges: Integers, pixels: int, text: Labels, length: int) -> int:
    """Append COCO's compressed counts of ordered edges in a photo of so many pixels; returns the new length."""
    before, last, second_last, number = 0, 0, 0, 0
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


@compiled
def _encode(labels_HW: Labels, windows_N4: Integers, texts: Labels, ends_N: Integers, boxes_N4: Integers) -> None:
    """Write the counts of labels 1 to N one after the other; where each ends, and their boxes."""
    most = 0
    for n in range(windows_N4.shape[0]):
        left, upper, right, lower = windows_N4[n]
        most = max(most, (right - left) * (lower - upper + 1))
    columns, rows = np.empty(most, np.int64), np.empty(most, np.int64)
    length = 0
    for n in range(windows_N4.shape[0]):
        left, upper, right, lower = windows_N4[n]
        count = _edges(labels_HW, n + 1, windows_N4[n], columns, rows)
        if count:
            edges = _in_columns(columns[:count], rows[:count], windows_N4[n], labels_HW.shape[0])
            length = _write_counts(edges, labels_HW.size, texts, length)
            boxes_N4[n, 0], boxes_N4[n, 2] = left + columns[:count].min(), left + columns[:count].max() + 1
            boxes_N4[n, 1], boxes_N4[n, 3] = rows[:count].min(), rows[:count].max()
        else:
            length = _write_counts(columns[:0], labels_HW.size, texts, length)
            boxes_N4[n] = (left, upper, left, upper)
        ends_N[n] = length


def encode_labels(labels_HW: Labels, *, windows_N4: Integers) -> tuple[list[str], Integers]:
    """Compressed counts of the pixels that bear the labels 1 to N, and their tight boxes xyxy, int64 [N, 4].

    `windows_N4` (xyxy) hold all pixels of each. The counts equal `storage.rle.encode_mask` of the whole masks. Where
    there is no such pixel, the box is the window's upper left corner, without extent.
    """
    sizes_N2 = windows_N4[:, 2:] - windows_N4[:, :2]
    # Every pixel of a window may be an edge; a count takes at most six letters.
    texts = np.empty(int((6 * sizes_N2[:, 0] * (sizes_N2[:, 1] + 1) + 12).sum()), np.uint8)
    ends_N, boxes_N4 = np.empty(len(windows_N4), np.int64), np.empty((len(windows_N4), 4), np.int64)
    _encode(labels_HW, windows_N4, texts, ends_N, boxes_N4)
    ends = ends_N.tolist()
    text = texts[: ends[-1] if ends else 0].tobytes().decode("ascii")
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)], boxes_N4
