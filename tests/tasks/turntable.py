"""A made turntable catalog and pool in RPC format, small enough for tests: two products, no rendering."""

import json

import cv2
import numpy as np

COLOURS = {1: (200, 60, 40), 2: (40, 90, 180), 3: (60, 150, 60)}
SKUS = {1: "red_box", 2: "blue_box", 3: "green_box"}


def draw_product(photo, category, *, centre, size, turn):
    """Draws a striped box in place and returns its mask."""
    corners = cv2.boxPoints((centre, size, turn))
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    stripes = 1 + 0.3 * np.sin(np.arange(photo.shape[1]) / 4)[None, :, None]
    photo[:] = np.where(mask[..., None] > 0, np.clip(np.array(COLOURS[category]) * stripes, 0, 255), photo)
    return mask > 0


def write_photo(path, photo):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photo[..., ::-1].astype(np.uint8))


def write_catalog(folder, *, categories=(1, 2), views=3, noise=1.0):
    """Writes `views` exemplars a product and returns the masks by stem."""
    images, annotations, masks = [], [], {}
    for category in categories:
        for view in range(views):
            rng = np.random.default_rng([category, view])
            photo = np.full((120, 160, 3), 190.0) + rng.normal(0, noise, (120, 160, 3))
            size = (50 + 3 * category, 34)
            mask = draw_product(photo, category, centre=(80.0, 60.0), size=size, turn=25.0 * view)
            name = f"690000000000{category}_camera0-{1 + 10 * view}.png"
            write_photo(folder / "train2019" / name, np.clip(photo, 0, 255))
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            number = len(images) + 1
            images.append({"id": number, "file_name": name, "width": 160, "height": 120})
            annotations.append(
                {
                    "id": number, "image_id": number, "category_id": category, "bbox": [float(value) for value in box],
                    "area": float(box[2] * box[3]), "iscrowd": 0, "segmentation": [],
                }
            )  # fmt: skip
            masks[name.removesuffix(".png")] = mask
    described = [
        {"id": one, "name": SKUS[one], "supercategory": "box", "sku_name": SKUS[one], "code": f"690000000000{one}"}
        for one in categories
    ]
    content = {"images": images, "annotations": annotations, "categories": described}
    (folder / "instances_train2019.json").write_text(json.dumps(content))
    return masks


def write_pool(folder, *, photos=3):
    """Writes checkout photos with one of each product, apart."""
    images = []
    for number in range(photos):
        rng = np.random.default_rng([9, number])
        photo = np.full((200, 200, 3), 175.0) + rng.normal(0, 1, (200, 200, 3))
        for category, centre in ((1, (60.0, 60.0)), (2, (140.0, 135.0))):
            draw_product(photo, category, centre=centre, size=(50 + 3 * category, 34), turn=float(rng.uniform(0, 180)))
        name = f"pool_{number}.png"
        write_photo(folder / "pool2019" / name, np.clip(photo, 0, 255))
        images.append({"id": number + 1, "file_name": name, "width": 200, "height": 200})
    (folder / "images_pool2019.json").write_text(json.dumps({"images": images}))
