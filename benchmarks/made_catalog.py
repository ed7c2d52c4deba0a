"""A made turntable catalog with exact masks, on backdrops that nothing was tuned on: gradient, textured, coloured, ...

    python -m benchmarks.made_catalog FOLDER [--seed 0]
    python -m benchmarks.segment --dataset FOLDER

Flat shapes with prints, in RPC layout (train2019/, instances_train2019.json, masks/train2019/): a box, a bottle, a bag,
a mug whose handle has a hole, a thin rod, a crescent. Every product stands on every backdrop, which is its "camera",
and turns in front of it. Nothing here is a photograph.

Shapes: H×W pixels of a photo.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.endings import end_with_code
from storage.boxes import mask_box
from storage.images import encode_jpeg, encode_png

BACKDROPS = ("gradient", "textured", "dark", "coloured", "turntable")
SHAPES = ("box", "bottle", "bag", "mug", "rod", "crescent")
SIZES = ((480, 360), (640, 480), (1280, 960))
LARGEST = (2592, 1944)
_FINE = 2

Plane = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class View:
    """One photo to be made: what is on it, how it is turned (degrees), and its size (width, height)."""

    shape: str
    backdrop: str
    turn: float
    size: tuple[int, int]
    seed: int


def outlines(shape: str) -> list[tuple[int, NDArray[np.float64]]]:
    """Polygons to draw one over the other, 1 for product, 0 for a hole, in halves of the height; y points down."""
    around = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    circle = np.column_stack([np.cos(around), np.sin(around)])
    if shape == "box":
        return [(1, np.array([[-0.62, -1], [0.62, -0.94], [0.66, 1], [-0.6, 0.96]]))]
    if shape == "bottle":
        right = np.array([[0.16, -1], [0.16, -0.72], [0.24, -0.62], [0.42, -0.3], [0.42, 1]])
        return [(1, np.concatenate([right, right[::-1] * [-1, 1]]))]
    if shape == "bag":
        rounded = np.sign(circle) * np.abs(circle) ** 0.35
        return [(1, (rounded * [0.8, 1]) * (1 + 0.05 * np.sin(9 * around))[:, None])]
    if shape == "mug":
        body = np.array([[-0.7, -0.9], [0.5, -0.9], [0.5, 0.9], [-0.7, 0.9]])
        return [(1, circle * [0.42, 0.55] + [0.55, 0]), (0, circle * [0.24, 0.36] + [0.6, 0]), (1, body)]
    if shape == "rod":
        return [(1, np.array([[-0.05, -1], [0.05, -1], [0.05, 1], [-0.05, 1]]))]
    outer, inner = np.linspace(-0.4, np.pi + 0.4, 60), np.linspace(np.pi + 0.25, -0.25, 60)
    bow = np.column_stack([np.cos(outer), np.sin(outer) - 0.4])
    return [(1, np.concatenate([bow, np.column_stack([0.78 * np.cos(inner), 0.62 * np.sin(inner) - 0.42])]))]


def draw_mask(view: View, *, scale: int) -> NDArray[np.uint8]:
    """The shape's mask (0 or 1) at `scale` times the photo's size."""
    width, height = view.size[0] * scale, view.size[1] * scale
    angle, narrow = np.radians(view.turn * 0.35), 1 - 0.25 * abs(np.sin(np.radians(view.turn)))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mask_HW = np.zeros((height, width), np.uint8)
    for value, points in outlines(view.shape):
        placed = (points * [narrow, 1]) @ rotation.T * 0.27 * height + [0.5 * width, 0.52 * height]
        cv2.fillPoly(mask_HW, [np.round(placed * 16).astype(np.int32)], value, shift=4)
    return mask_HW


def backdrop(view: View, *, generator: np.random.Generator) -> Plane:
    """The ground without a product, float32 RGB [H, W, 3]; the same for all views of a product."""
    width, height = view.size
    y_HW, x_HW = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    slope_HW = (generator.uniform(-40, 40) * x_HW + generator.uniform(-40, 40) * y_HW)[..., None]
    if view.backdrop == "gradient":
        return 170 + 1.4 * slope_HW + np.zeros(3, np.float32)
    if view.backdrop == "dark":
        return 45 + 0.3 * slope_HW + generator.uniform(-6, 6, 3).astype(np.float32)
    if view.backdrop == "coloured":
        return generator.uniform(70, 190, 3).astype(np.float32) + 0.6 * slope_HW
    if view.backdrop == "textured":
        grain_HW = np.zeros((height, width), np.float32)
        for cells in (24, 60, 140):
            noise = generator.standard_normal((cells, cells)).astype(np.float32)
            grain_HW += np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
        return generator.uniform(90, 180, 3).astype(np.float32) + 5 * grain_HW[..., None] + 0.4 * slope_HW
    ground_HW3 = np.where(y_HW[..., None] < 0.38, 120 + 0.3 * slope_HW, 185 + 0.3 * slope_HW) + np.zeros(3, np.float32)
    disc_HW = np.zeros((height, width), np.float32)
    centre, axes = (round(0.5 * width), round(0.7 * height)), (round(0.3 * width), round(0.14 * height))
    cv2.ellipse(disc_HW, (centre[0], centre[1] + round(0.02 * height)), axes, 0, 0, 360, 0.75, -1, cv2.LINE_AA)
    cv2.ellipse(disc_HW, centre, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    return np.where(disc_HW[..., None] > 0, 225 * disc_HW[..., None], ground_HW3).astype(np.float32)


def prints(view: View, *, generator: np.random.Generator) -> Plane:
    """The product's colours over the whole photo, float32 RGB [H, W, 3]; they move as it turns."""
    width, height = view.size
    colour_3 = generator.uniform(30, 220, 3).astype(np.float32)
    photo_HW3 = np.full((height, width, 3), colour_3, np.float32)
    shift = view.turn / 360 * width
    for _ in range(7):
        x, y = generator.uniform(0.2, 0.8, 2) * [width, height] + [shift, 0]
        across, down = generator.uniform(0.03, 0.16, 2) * height
        # A third of the prints are as white as many grounds.
        shade = np.full(3, 236.0) if generator.random() < 0.35 else generator.uniform(10, 250, 3)
        corners = np.array([[x, y], [x + across, y], [x + across, y + down], [x, y + down]])
        cv2.fillPoly(
            photo_HW3, [np.round(corners % [width, 10 * height]).astype(np.int32)], shade.tolist(), cv2.LINE_AA
        )
    x_HW = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    return np.asarray(photo_HW3 * (1 - 0.12 * x_HW), np.float32)


def make_photo(view: View) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The photo (uint8 RGB) and its exact mask (a pixel is product when half of it is)."""
    _width, height = view.size
    scale = 1 if height > 1000 else _FINE
    mask_HW = draw_mask(view, scale=scale).astype(np.float32)
    cover_HW = np.asarray(cv2.resize(mask_HW, view.size, interpolation=cv2.INTER_AREA), np.float32)
    # Ground and prints belong to the product and its camera; only noise and light differ from view to view.
    fixed = np.random.default_rng((view.seed, SHAPES.index(view.shape), BACKDROPS.index(view.backdrop)))
    own = np.random.default_rng((view.seed, round(view.turn * 10)))
    ground_HW3, product_HW3 = backdrop(view, generator=fixed), prints(view, generator=fixed)
    drop = np.array([[1, 0, 0.02 * height], [0, 1, 0.015 * height]], np.float32)
    shadow_HW = cv2.GaussianBlur(cv2.warpAffine(cover_HW, drop, view.size), (0, 0), 0.018 * height)
    ground_HW3 *= 1 - 0.4 * shadow_HW[..., None]
    photo_HW3 = ground_HW3 + (product_HW3 - ground_HW3) * cover_HW[..., None]
    photo_HW3 = cv2.GaussianBlur(photo_HW3, (0, 0), 0.6) * np.float32(own.uniform(0.98, 1.02))
    photo_HW3 += own.normal(0, 1.5, photo_HW3.shape).astype(np.float32)
    return np.clip(photo_HW3, 0, 255).astype(np.uint8), cover_HW >= 0.5


def write_catalog(folder: Path, *, views: Sequence[View]) -> None:
    """Writes photos, annotations and masks of a catalog in RPC layout."""
    (folder / "train2019").mkdir(parents=True, exist_ok=True)
    (folder / "masks" / "train2019").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number, view in enumerate(views, start=1):
        photo_HW3, mask_HW = make_photo(view)
        category, camera = SHAPES.index(view.shape) + 1, BACKDROPS.index(view.backdrop)
        stem = f"69000000000{category:02}_camera{camera}-{1 + round(view.turn / 9)}"
        (folder / "train2019" / f"{stem}.jpg").write_bytes(encode_jpeg(photo_HW3, quality=92))
        (folder / "masks" / "train2019" / f"{stem}.png").write_bytes(encode_png(mask_HW.astype(np.uint8) * 255))
        box = mask_box(mask_HW)
        assert box is not None
        sides = [float(value) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])]
        images.append({"id": number, "file_name": f"{stem}.jpg", "width": view.size[0], "height": view.size[1]})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": category,
                "bbox": sides,
                "area": sides[2] * sides[3],
                "iscrowd": 0,
                "segmentation": [],
            }
        )
    categories = [
        {"id": index, "name": shape, "supercategory": "made", "sku_name": shape, "code": f"69000000000{index:02}"}
        for index, shape in enumerate(SHAPES, start=1)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances_train2019.json").write_text(json.dumps(content))


def all_views(*, seed: int, turns: int = 5) -> list[View]:
    """Every shape on every backdrop in `turns` positions, in sizes that take turns; one product in RPC's size."""
    views = []
    for row, shape in enumerate(SHAPES):
        for column, ground in enumerate(BACKDROPS):
            size = LARGEST if (shape, ground) == ("bag", "turntable") else SIZES[(row + column) % len(SIZES)]
            views += [
                View(shape=shape, backdrop=ground, turn=360 * turn / turns, size=size, seed=seed)
                for turn in range(turns)
            ]
    return views


def main() -> None:
    """Write the catalog that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the catalog is written")
    parser.add_argument("--seed", type=int, default=0, help="other prints, grounds and noise")
    arguments = parser.parse_args()
    write_catalog(arguments.folder, views=all_views(seed=arguments.seed))


if __name__ == "__main__":
    end_with_code(main)
