"""Records of items, as the compiled parts of composing take them, that tests make by hand."""

import numpy as np

from tasks.items import ITEM, Gathering, Ground, Top
from tasks.laying import MOST_ITEMS

ANYWHERE = Gathering(pile=False, x=0.5, y=0.5, spread=0.1, places=np.ones(1))


def item_of(rgba, *, x=0, y=0, **fields):
    """A record for a crop that is already turned, and the crop, packed. Its box is the whole crop."""
    rows, columns = rgba.shape[:2]
    item = np.zeros(1, ITEM)[0]
    plain = {"xx": 1, "yy": 1, "red": 1, "green": 1, "blue": 1, "label": 1}
    box = {"left": x, "top": y, "right": x + columns, "bottom": y + rows}
    for name, value in {**plain, **box, "rows": rows, "columns": columns, "x": x, "y": y, **fields}.items():
        item[name] = value
    return item, np.array(rgba, np.uint8, order="C").view(np.uint32).flatten()


def covered(mask):
    """A record for an item of these cells, and its cover."""
    item = np.zeros(1, ITEM)[0]
    item["cell_rows"], item["cell_columns"] = mask.shape
    return item, (np.asarray(mask) * np.uint32(255 << 24)).astype(np.uint32).ravel()


def cells_of(mask, stride):
    rows, columns = np.nonzero(mask)
    return (rows * stride + columns).astype(np.int64)


def empty_top(height, width):
    areas, visible = np.zeros((2, MOST_ITEMS + 1), np.int64)
    return Top(labels_HW=np.zeros((height, width), np.uint8), areas=areas, visible=visible)


def empty_ground(rows, columns, *, cell=2):
    labels, near = np.zeros((2, rows, columns), np.uint8)
    areas, visible = np.zeros((2, MOST_ITEMS + 1), np.int64)
    return Ground(labels_RC=labels, near_RC=near, areas=areas, visible=visible, cell=cell)
