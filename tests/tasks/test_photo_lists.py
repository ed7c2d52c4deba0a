from dataclasses import replace

import cv2
import numpy as np
import pytest

from storage.catalog import Category
from storage.images import decode_rgb, encode_jpeg, encode_png
from storage.manifest import ManifestObject
from tasks.confidence import UNTRAINED
from tasks.list_reader import ListReader
from tasks.photo_lists import PhotoFile, PhotoLister

CATEGORIES = (Category(id=1, sku="tea", metadata={"price": 2.5}),)
SURE = replace(UNTRAINED, acceptable=0.5)


def reader_of(*, seen, batch=1, parallel=1):
    """A reader that finds as many teas as the photo's first pixel says."""

    def read(photos):
        seen.append([photo.shape for photo in photos])
        return [
            (tuple(ManifestObject(category=1, sku="tea", box=(1, 1, 9, 9), score=0.9) for _ in range(n)), float(n))
            for n in (int(photo[0, 0, 0]) for photo in photos)
        ]

    return ListReader(
        categories=CATEGORIES, threshold=0.5, confidence=SURE, image_size=64, batch=batch, parallel=parallel, read=read
    )


@pytest.fixture
def files(tmp_path):
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(encode_png(np.full((20, 30, 3), number, np.uint8)))
    (tmp_path / "3.png").write_bytes(b"no photo")
    return [PhotoFile(path=tmp_path / f"{number}.png", name=f"{number}.png") for number in (*range(7), 8)]


@pytest.mark.parametrize(("batch", "parallel"), [(1, 1), (1, 3), (4, 1)])
def test_photo_lister__lists_in_order_and_bad_photos_in_their_place(files, batch, parallel):
    lister = PhotoLister(reader_of(seen=[], batch=batch, parallel=parallel), threshold=None, draw=False, workers=2)
    results = list(lister(files))
    assert [one.file for one in results] == files
    assert [one.found.items if one.found else None for one in results] == [0, 1, 2, None, 4, 5, 6, None]
    assert [one.found.total for one in results if one.found] == [None, 2.5, 5.0, 10.0, 12.5, 15.0]
    assert "expected a JPEG or PNG" in results[3].problem and "No such file" in results[7].problem


def test_photo_lister__photos_go_through_the_network_in_batches(files):
    seen = []
    list(PhotoLister(reader_of(seen=seen, batch=4), threshold=None, draw=False, workers=2)(files))
    assert [len(shapes) for shapes in seen] == [3, 3]


def test_photo_lister__draws_on_what_it_decoded_and_large_jpegs_are_decoded_smaller(tmp_path):
    # Smooth: a JPEG keeps it nearly as it is.
    photo = np.asarray(cv2.resize(np.uint8([[[60] * 3, [200] * 3]]), (600, 400)), np.uint8)
    (tmp_path / "large.jpg").write_bytes(encode_jpeg(photo, quality=95))
    seen = []
    lister = PhotoLister(reader_of(seen=seen), threshold=None, draw=True, workers=1)
    (result,) = lister([PhotoFile(path=tmp_path / "large.jpg", name="large.jpg")])
    assert seen == [[(100, 150, 3)]]
    assert decode_rgb(result.drawn).shape == (100, 150, 3)


def test_photo_lister__a_price_that_is_none_is_refused_before_any_photo_is_read():
    reader = ListReader(
        categories=(Category(id=1, sku="tea", metadata={"price": "cheap"}),),
        threshold=0.5,
        confidence=SURE,
        image_size=64,
        batch=1,
        parallel=1,
        read=lambda photos: [],
    )
    with pytest.raises(ValueError, match="price of tea"):
        PhotoLister(reader, threshold=None, draw=False, workers=1)
