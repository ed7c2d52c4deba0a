"""Made products, boards and pools that the tests of composing share: 160 x 160 photos, three products."""

from functools import partial

import cv2
import numpy as np

from storage.images import encode_jpeg, encode_png
from storage.manifest import ManifestObject, ManifestRow
from tasks.kit import assemble
from tasks.params import ComposeParams, LevelParams
from tasks.sprites import Cutout

SIDE = 160
LEVELS = {
    "easy": LevelParams(share=1, skus=(2, 3), items=(3, 5)),
    "hard": LevelParams(share=1, skus=(3, 3), items=(8, 12)),
}
COLOURS = {"red": (190, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 190)}


def params_of(**changes):
    return ComposeParams(**{"levels": LEVELS, "photos": 6, "scale_photos": 0, **changes})


def sprite_rgba(colour, *, height=20, width=32):
    """A rectangle with a dark stripe near its left side, and a soft edge of one pixel."""
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[1:-1, 1:-1, :3] = colour
    rgba[1:-1, 4:8, :3] = 20
    rgba[1:-1, 1:-1, 3] = 255
    rgba[..., 3] = cv2.GaussianBlur(rgba[..., 3], (3, 3), 0)
    return rgba


def cutouts():
    sizes = {"red": (20, 32), "green": (16, 16), "blue": (12, 40)}
    return [
        Cutout(
            item_id=f"pose/{sku}_{view}",
            sku=sku,
            category=category,
            picture=partial(sprite_rgba, COLOURS[sku], height=sizes[sku][0] + view, width=sizes[sku][1]),
            weight=1.0 + view,
            factor=1.0,
        )
        for category, sku in enumerate(sorted(COLOURS), start=1)
        for view in range(2)
    ]


def look(**changes):
    plain = {
        "light_C6": [[0.0] * 6] * 3,
        "noise": 0.5,
        "detail": 0.1,
        "ambient": 0.1,
        "directed": 0.05,
        "angle": 0.0,
        "reach": 4.0,
    }
    return {**plain, **changes}


def board_row(number=0, **attributes):
    return ManifestRow(
        item_id=f"board/{number:02d}", width=SIDE, height=SIDE, attributes={"looks": [look()], **attributes}
    )


def board_picture():
    ramp = np.linspace(140, 170, SIDE)[:, None, None] + np.zeros((SIDE, SIDE, 3))
    return ramp.astype(np.uint8)


def kit_of(params, *, rows=None):
    return assemble(cutouts(), scale=1.0, boards=rows or [board_row()], pictures=[board_picture()], params=params)


def committed(store, stage, rows, *, content=None):
    publication = store.begin(stage, key="0")
    for row, data in rows:
        if data is None:
            publication.add(row)
        else:
            publication.put(data, path=row.item_id.replace("/", "_"), row=row)
    return publication.commit(metadata={}, content=content or {})


def catalog_of(store):
    categories = [{"id": number, "sku": sku} for number, sku in enumerate(sorted(COLOURS), start=1)]
    rows = [
        (
            ManifestRow(
                item_id=f"catalog/{one.item_id[5:]}",
                sku=one.sku,
                objects=(ManifestObject(category=one.category, sku=one.sku, box=(0, 0, one.picture().shape[1], 20)),),
                attributes={"camera": 0, "placement": ""},
            ),
            None,
        )
        for one in cutouts()
    ]
    return committed(store, "catalog", rows, content={"categories": categories})


def poses_of(store):
    rows = [
        (
            ManifestRow(item_id=one.item_id, sku=one.sku, attributes={"weight": one.weight, "camera": 0}),
            encode_png(one.picture()),
        )
        for one in cutouts()
    ]
    dropped = ManifestRow(item_id="pose/red_9", sku="red", status="dropped", reason="not seen in the pool")
    return committed(store, "prune", [*rows, (dropped, None)])


def photo_with_products(index):
    """A lit board with three coloured rectangles and a shadow beside each."""
    generator = np.random.default_rng(index)
    photo = board_picture().astype(np.float32) * generator.uniform(0.9, 1.1)
    for colour in COLOURS.values():
        x, y = generator.integers(8, SIDE - 50, 2)
        photo[y + 4 : y + 24, x + 4 : x + 36] *= 0.7
        photo[y : y + 20, x : x + 32] = colour
    return np.clip(photo, 0, 255).astype(np.uint8)


def pool_of(store, *, photos=12):
    rows = [
        (
            ManifestRow(item_id=f"pool/{index:02d}", width=SIDE, height=SIDE, media_type="image/jpeg"),
            encode_jpeg(photo_with_products(index), quality=85),
        )
        for index in range(photos)
    ]
    return committed(store, "pool", rows)


def inputs_of(store):
    boards = committed(store, "board", [(board_row(), encode_png(board_picture()))])
    return {"catalog": catalog_of(store), "poses": poses_of(store), "boards": boards, "pool": pool_of(store)}
