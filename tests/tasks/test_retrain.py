import pytest

from storage.catalog import Category
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.retrain import extended_channels, of_catalog, places_of, showing


def categories(*skus, group=str):
    return [Category(id=number, sku=sku, supercategory=group(sku)) for number, sku in enumerate(skus, start=1)]


def manifest(*rows):
    return Manifest(stage="compose", key="", url="", content_digest="", rows=rows)


def row(name, *skus, ids=None):
    objects = tuple(ManifestObject(category=(ids or {}).get(sku, 1), sku=sku, box=(0, 0, 1, 1)) for sku in skus)
    return ManifestRow(item_id=name, objects=objects)


def test_places_of__follow_the_sku_whatever_the_order():
    assert places_of(categories("tea", "jam", "rum"), categories=categories("rum", "ale", "tea")) == [2, None, 0]


@pytest.mark.parametrize(
    ("channels", "wanted"),
    [((), ()), ((0, 0, 0), ()), ((0, 1, 2), (0, 1, 2, 3)), ((0, 0, 1), (0, 1, 2, 0))],
)
def test_extended_channels__stay_of_their_kind(channels, wanted):
    # Groups by the first letter: tea and toast, jam; then rum is a group of its own.
    known = categories("tea", "toast", "jam", group=lambda sku: sku[0])
    now = categories("tea", "jam", "rum", "toast", group=lambda sku: sku[0])
    assert extended_channels(channels, known=known, categories=now) == wanted


def test_showing__takes_photos_of_the_products_from_everywhere():
    photos = [manifest(*(row(f"a{n}", "tea") for n in range(4)), row("b", "jam")), manifest(row("c", "tea", "jam"))]
    assert [one.item_id for one in showing(photos, skus={"jam"}, most=9)] == ["b", "c"]
    assert [one.item_id for one in showing(photos, skus={"tea"}, most=2)] == ["a0", "a2"]


def test_of_catalog__products_that_left_are_ignored():
    photos = manifest(row("a", "tea", "gone", ids={"tea": 1, "gone": 7}))
    made = of_catalog(photos, categories=categories("tea"))
    assert [(item.sku, item.status) for item in made.rows[0].objects] == [("tea", "ok"), ("gone", "ignore")]
