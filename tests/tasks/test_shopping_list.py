import csv
import io
import json

import numpy as np
import pytest

from storage.manifest import ManifestObject
from tasks.shopping_list import draw_detections, encode_csv, encode_json, kept, shopping_list

NAMES = {"tea": "Green tea"}


def item(sku, score, box=(10, 40, 60, 90)):
    return ManifestObject(category=1, sku=sku, box=box, score=score)


FOUND = [item("tea", 0.9), item("cola", 0.7), item("tea", 0.6), item("tea", 0.2)]


def listed(**options):
    return shopping_list("a.jpg", objects=FOUND, threshold=0.5, names=NAMES, **options)


def test_kept__score_equal_to_the_threshold_counts():
    assert [one.score for one in kept(FOUND, threshold=0.7)] == [0.9, 0.7]


def test_shopping_list__counts_by_sku_with_the_lowest_score():
    one = listed()
    assert [(p.sku, p.name, p.count, p.confidence) for p in one.products] == [
        ("cola", "cola", 1, 0.7),
        ("tea", "Green tea", 2, 0.6),
    ]
    assert (one.items, one.state) == (3, "accepted")


@pytest.mark.parametrize(("count", "state"), [(3.4, "accepted"), (3.6, "needs-review"), (2.0, "needs-review")])
def test_shopping_list__the_counting_view_may_object(count, state):
    assert listed(count=count).state == state


def test_shopping_list__nothing_found_needs_review():
    one = shopping_list("a.jpg", objects=[], threshold=0.5, names={})
    assert (one.products, one.state, one.reason) == ((), "needs-review", "nothing found")


def test_encode_csv__one_line_a_product():
    empty = shopping_list("b, c.jpg", objects=[], threshold=0.5, names={})
    rows = list(csv.DictReader(io.StringIO(encode_csv([listed(), empty]).decode())))
    assert [(row["photo"], row["sku"], row["count"]) for row in rows] == [
        ("a.jpg", "cola", "1"),
        ("a.jpg", "tea", "2"),
        ("b, c.jpg", "", "0"),
    ]


def test_encode_json__products_and_totals():
    one = json.loads(encode_json([listed(count=9.0)]))[0]
    assert (one["photo"], one["items"], one["state"]) == ("a.jpg", 3, "needs-review")
    assert one["reason"] == "3 products found, 9.0 counted"
    assert one["products"][1] == {"sku": "tea", "name": "Green tea", "count": 2, "confidence": 0.6}


def test_draw_detections__draws_on_a_copy():
    photo = np.full((200, 300, 3), 128, np.uint8)
    drawn = draw_detections(photo, objects=[item("tea", 0.9, (100, 80, 200, 160))], names=NAMES)
    assert (photo == 128).all()
    assert (drawn[120, 100] != 128).any()
    assert (drawn[120, 150] == 128).all()


def test_draw_detections__a_sku_has_one_colour_and_names_may_be_of_any_alphabet():
    photo = np.full((400, 400, 3), 128, np.uint8)
    boxes = (150, 200, 200, 300), (250, 200, 300, 300)
    drawn = draw_detections(photo, objects=[item("tea", 0.9, box) for box in boxes], names={"tea": "绿茶"})
    assert (drawn[250, 150] == drawn[250, 250]).all()


def test_draw_detections__boxes_beyond_the_edge():
    photo = np.zeros((50, 60, 3), np.uint8)
    assert draw_detections(photo, objects=[item("tea", 0.9, (-20, -20, 90, 90))], names=NAMES).shape == photo.shape
