"""A shop of small random photos in folders: catalog/, pool/, val/, test/, and folders of new products."""

import json

import numpy as np

from storage.images import encode_jpeg


def photo(seed, *, side=40):
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def product(folder, sku, *, photos=2, seed=0):
    """One product's folder with photos that no other (sku, seed) has."""
    (folder / sku).mkdir(parents=True)
    for number in range(photos):
        (folder / sku / f"{number}.jpg").write_bytes(photo([*sku.encode(), seed, number]))


def shop(root, *, skus=("jam", "tea")):
    for sku in skus:
        product(root / "catalog", sku)
    (root / "pool").mkdir()
    (root / "pool/p.jpg").write_bytes(photo(1))
    for split, seed in (("val", 2), ("test", 3)):
        labelled(root / split, {"a.jpg": ["jam"], "b.jpg": ["tea", "rum"]}, seed=seed)
    return root


def labelled(folder, shown, *, seed):
    """Photos that show the named products, labelled by SKU."""
    folder.mkdir(parents=True)
    names = sorted({sku for skus in shown.values() for sku in skus})
    images, annotations = [], []
    for number, (name, skus) in enumerate(shown.items(), start=1):
        (folder / name).write_bytes(photo([seed, number]))
        images.append({"id": number, "file_name": name, "width": 40, "height": 40, "level": "easy"})
        for sku in skus:
            box = {"image_id": number, "category_id": 7 + names.index(sku), "bbox": [1, 1, 20, 20]}
            annotations.append({"id": len(annotations) + 1, **box})
    categories = [{"id": 7 + place, "name": name} for place, name in enumerate(names)]
    listing = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(listing))
