from xml.etree import ElementTree

import pytest

from flows.stage_markdown import guard_rails_markdown
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.guard_rails import disagreement, expected_skus, flags, guard_rails, plot_guard_rails


def item(sku="a", *, x=0.0, score=0.9, status="ok", reason=""):
    category = 1 + ord(sku) - ord("a")
    return ManifestObject(category=category, sku=sku, box=(x, 0, x + 10, 10), score=score, status=status, reason=reason)


def photo(name, *objects, status="ok", mode="image"):
    return ManifestRow(item_id=f"pseudo/{name}", objects=objects, status=status, attributes={"mode": mode})


def selected(*rows):
    return Manifest(stage="select", key="", url="", content_digest="", rows=rows)


def test_expected_skus__adds_up_probabilities():
    assert expected_skus([[item("a", score=0.5), item("b", score=0.25)], [item("a", score=1.0)]]) == {
        "a": 1.5,
        "b": 0.25,
    }


@pytest.mark.parametrize(
    ("histogram", "said"),
    [
        ({"a": 50, "b": 50}, []),
        ({"a": 80, "b": 20}, []),
        ({"a": 90, "b": 10}, ["b vanishes: 10 items teach, 50 would be its share"]),
        ({"a": 100}, ["b vanishes: 0 items teach, 50 would be its share"]),
        ({}, []),
    ],
)
def test_flags__a_product_that_vanishes(histogram, said):
    assert flags(histogram, expected={"a": 300.0, "b": 300.0}) == said


def test_flags__a_product_that_floods_and_one_too_rare_to_say():
    said = flags({"a": 60, "b": 40}, expected={"a": 180.0, "b": 19.0, "c": 1.0})
    assert said == ["b floods: 40 items teach, 10 would be its share"]


def test_disagreement__of_the_same_and_of_nothing_in_common():
    rows = [photo("1", item("a"), item("b", x=50)), photo("2", item("a"))]
    assert disagreement(rows, former=rows) == 0
    assert disagreement(rows, former=[photo("1", item("c"), item("a", x=50)), photo("2", item("a", x=30))]) == 1
    assert disagreement(rows, former=[photo("3", item("a"))]) is None


def test_disagreement__is_one_minus_dice():
    new, old = photo("1", item("a"), item("b", x=50)), photo("1", item("a", x=1), item("c", x=50), item("a", x=90))
    assert disagreement([new], former=[old]) == pytest.approx(1 - 2 * 1 / 5)


def test_disagreement__doubtful_items_do_not_count_and_photos_that_were_left_do():
    doubt = item("b", x=50, status="ignore", reason="score")
    left = photo("1", item("a", status="ignore"), doubt, status="rejected")
    assert disagreement([left], former=[photo("1", item("a"))]) == 0


def test_guard_rails__plot_and_markdown_show_every_product():
    rows = [
        photo("1", item("a"), item("a", x=50)),
        photo("2", item("a"), item("b", x=50, status="ignore", reason="?"), mode="instance"),
        ManifestRow(item_id="pseudo/3", status="rejected", reason="nothing trusted"),
    ]
    figures = guard_rails(rows, expected={"a": 10.0, "b": 10.0, "c": 0.2}, former=selected(*rows))
    assert figures["estimated_precision"] == pytest.approx(0.9) and figures["disagreement"] == 0
    assert (figures["image"], figures["instance"], figures["rejected"], figures["ignored"]) == (1, 1, 1, 1)
    plot = ElementTree.fromstring(plot_guard_rails(figures))
    assert plot.tag.endswith("svg")
    text = guard_rails_markdown(figures)
    assert "| a | 3 | 1.5 |" in text and "| b | 0 | 1.5 |" in text and "| c | 0 | 0.0 |" in text
    assert "no product vanishes or floods" in guard_rails_markdown({**figures, "flags": []})


def test_guard_rails__of_nothing():
    figures = guard_rails([], expected={})
    assert figures["estimated_precision"] is None and figures["disagreement"] is None and figures["flags"] == []
    assert plot_guard_rails(figures)
