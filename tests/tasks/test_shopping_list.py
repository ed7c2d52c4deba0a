import numpy as np
import pytest

from storage.catalog import Category
from storage.manifest import ManifestObject
from tasks.confidence import UNTRAINED, ListConfidence
from tasks.shopping_list import draw_detections, kept, prices_of, shopping_list

NAMES = {"tea": "Green tea"}


def item(sku, score, box=(10, 40, 60, 90)):
    return ManifestObject(category=1, sku=sku, box=box, score=score)


# Confidence is the probability that all detections are on their side of the threshold 0.5.
TRUST = ListConfidence(
    temperature=1.0, weights=(1.0, 0.0, 0.0), means=(0.0,) * 3, scales=(1.0,) * 3, bias=0.0, acceptable=0.4
)
FOUND = [item("tea", 0.9), item("cola", 0.7), item("tea", 0.6), item("tea", 0.2)]


def listed(**options):
    given = {"objects": FOUND, "count": 3.0, "review": 0.0, **options}
    return shopping_list("a.jpg", threshold=0.5, trust=TRUST, names=NAMES, **given)


def test_kept__score_equal_to_the_threshold_counts():
    assert [one.score for one in kept(FOUND, threshold=0.7)] == [0.9, 0.7]


def test_shopping_list__counts_by_sku_with_the_lowest_score():
    one = listed()
    assert [(p.sku, p.name, p.count, p.confidence) for p in one.products] == [
        ("cola", "cola", 1, 0.7),
        ("tea", "Green tea", 2, 0.6),
    ]
    assert (one.items, one.state) == (3, "accepted")


def test_shopping_list__the_models_confidence_decides_unless_another_is_wanted():
    sure, unsure = [item("tea", 0.99)], [item("tea", 0.6)]
    assert listed(objects=sure, count=1.0, review=None).state == "accepted"
    assert listed(objects=unsure, count=1.0, review=None).state == "needs-review"
    assert listed(objects=unsure, count=1.0, review=0.1).state == "accepted"
    assert 0 < listed(objects=unsure, count=1.0).confidence < listed(objects=sure, count=1.0).confidence < 1


@pytest.mark.parametrize(
    ("scores", "count", "reason"),
    [
        ((0.95, 0.6), 2.0, "is it Green tea? (0.60)"),
        ((0.95, 0.45), 1.0, "is there also Green tea? (0.45)"),
        ((0.95, 0.6), 3.1, "2 products found, 3.1 counted"),
    ],
)
def test_shopping_list__a_list_that_may_be_wrong_says_where(scores, count, reason):
    one = listed(objects=[item("tea", score) for score in scores], count=count, review=0.9)
    assert (one.state, one.reason) == ("needs-review", reason)


def test_shopping_list__nothing_found_needs_review():
    one = listed(objects=[], count=0.0)
    assert (one.products, one.state, one.reason) == ((), "needs-review", "nothing found")


def test_shopping_list__without_val_no_list_is_accepted():
    one = shopping_list("a.jpg", objects=FOUND, count=3.0, threshold=0.5, trust=UNTRAINED, names={})
    assert one.state == "needs-review"


PRICED = (Category(id=1, sku="tea", metadata={"price": 0.1}), Category(id=2, sku="cola", metadata={"price": 2}))


def test_shopping_list__prices_give_a_total_without_binary_rounding():
    one = listed(objects=[item("tea", 0.99)] * 3, prices=prices_of(PRICED))
    assert (one.products[0].amount, one.total, one.state) == (0.3, 0.3, "accepted")
    assert listed(prices=prices_of(PRICED)).total == 2.2


def test_shopping_list__a_product_without_a_price_asks_for_a_review_and_leaves_no_total():
    one = listed(prices={"tea": 1.0})
    assert (one.total, one.state, one.reason) == (None, "needs-review", "no price for cola")
    assert (listed().total, listed().state) == (None, "accepted")


@pytest.mark.parametrize("price", ["2,50", -1, float("nan"), True])
def test_prices_of__refuses_what_is_no_price(price):
    with pytest.raises(ValueError, match="price of tea: expected a number"):
        prices_of([Category(id=1, sku="tea", metadata={"price": price})])


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
