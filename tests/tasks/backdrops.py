"""Made photos of one product on backdrops that no constant was chosen on."""

import cv2
import numpy as np

BACKDROPS = ("gradient", "textured", "dark", "coloured", "two surfaces")


def made_backdrop(kind, *, height=240, width=320):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    base = {
        "gradient": np.dstack([150 + 70 * x, 150 + 60 * x, 160 + 50 * y]),
        "textured": np.dstack([170 + 8 * np.sin(x * 60) * np.sin(y * 50)] * 3),
        "dark": np.dstack([40 + 10 * x, 40 + 10 * y, 45 + 0 * x]),
        "coloured": np.dstack([90 + 20 * x, 140 + 10 * y, 190 + 0 * x]),
        "two surfaces": np.where(y[..., None] < 0.45, [110.0, 115, 112], [205.0, 205, 204]),
    }[kind]
    return np.clip(base + rng.normal(0, 1.5, base.shape), 0, 255)


def made_photo(kind, *, shape="box", colour=(200, 60, 40)):
    """A photo with one product, its mask and its box."""
    photo = made_backdrop(kind)
    mask = np.zeros(photo.shape[:2], np.uint8)
    if shape == "box":
        cv2.fillPoly(mask, [np.array([[120, 70], [205, 85], [195, 180], [110, 165]])], 1)
    elif shape == "ellipse":
        cv2.ellipse(mask, (160, 125), (60, 35), 25, 0, 360, 1, -1)
    else:
        cv2.line(mask, (80, 180), (230, 70), 1, 7)
    stripes = 1 + 0.25 * np.sin(np.arange(photo.shape[1]) / 5)[None, :, None]
    photo = np.where(mask[..., None] > 0, np.array(colour) * stripes, photo)
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return np.clip(photo, 0, 255).astype(np.uint8), mask > 0, tuple(float(value) for value in box)
