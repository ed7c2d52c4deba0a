import threading

import pytest

from flows.catalog import Catalog, add_products, catalog_name, difference, newest_version, remove_products
from flows.options import RunOptions
from flows.pipeline import DatasetChoice, ingest_splits
from flows.runner import LocalRunner
from flows.watch import Watch
from storage.catalog import categories_of
from storage.catalogs import catalog_version, catalog_versions
from storage.store import Store
from tests.flows.small_shop import product, shop


@pytest.fixture
def catalog(tmp_path):
    return Catalog(dataset=str(shop(tmp_path / "shop")), store=Store.open(str(tmp_path / "store")))


@pytest.fixture
def inbox(tmp_path):
    product(tmp_path / "inbox", "rum")
    return tmp_path / "inbox"


def ids(catalog):
    manifest = catalog.store.load(newest_version(catalog).manifest)
    return {category.sku: category.id for category in categories_of(manifest)}


def skus(catalog):
    return {row.sku for row in catalog.store.load(newest_version(catalog).manifest).ok}


def test_add_products__makes_a_version_with_copies_of_the_new_photos(catalog, inbox):
    change = add_products(str(inbox), catalog=catalog)
    assert (change.version.number, change.changed, change.version.products, change.version.photos) == (
        2,
        ("rum",),
        3,
        6,
    )
    assert [one.action for one in catalog_versions(catalog.store, catalog="shop")] == ["created", "added"]
    manifest = catalog.store.load(change.version.manifest)
    for path in (inbox / "rum").iterdir():
        path.unlink()
    assert catalog.store.verify(manifest) == []
    # "rum" sorts between the others, whose ids stay.
    assert ids(catalog) == {"jam": 1, "tea": 2, "rum": 3}


def test_add_products__again_changes_nothing(catalog, inbox):
    first = add_products(str(inbox), catalog=catalog)
    again = add_products(str(inbox), catalog=catalog)
    assert (again.version, again.changed, again.known) == (first.version, (), ("rum",))


def test_add_products__adds_the_good_and_refuses_the_bad(catalog, inbox):
    product(inbox, "gin", photos=1)
    (inbox / "gin/0.jpg").write_bytes(b"\xff\xd8")
    product(inbox, "ale")
    (inbox / "ale/0.jpg").write_bytes((inbox.parent / "shop/catalog/tea/0.jpg").read_bytes())
    change = add_products(str(inbox), catalog=catalog)
    assert change.changed == ("rum",)
    assert change.refused["gin"].startswith("gin: expected at least one usable photo, got none (file: ")
    assert change.refused["ale"] == "ale: catalog/ale_0 has the same bytes as catalog/tea_0"
    assert [row.item_id for row in change.quarantined] == ["catalog/gin_0"]
    assert skus(catalog) == {"jam", "tea", "rum"}


def test_add_products__without_a_usable_product_says_why(catalog, inbox, tmp_path):
    (inbox / "rum/0.jpg").write_bytes(b"")
    (inbox / "rum/1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="expected new products that can be used, got none: rum: .*empty"):
        add_products(str(inbox), catalog=catalog)
    with pytest.raises(ValueError, match="does not exist"):
        add_products(str(tmp_path / "none"), catalog=catalog)
    with pytest.raises(ValueError, match="got no folder with photos"):
        add_products(str(tmp_path / "shop/pool"), catalog=catalog)
    assert newest_version(catalog).number == 1


def test_remove_products__keeps_ids_and_gives_them_to_nobody_else(catalog, inbox):
    add_products(str(inbox), catalog=catalog)
    assert remove_products(["rum", "unknown"], catalog=catalog).changed == ("rum",)
    assert ids(catalog) == {"jam": 1, "tea": 2}
    product(inbox, "gin")
    add_products(str(inbox), catalog=catalog, skus=["gin"])
    assert ids(catalog) == {"jam": 1, "tea": 2, "gin": 4}
    add_products(str(inbox), catalog=catalog, skus=["rum"])
    assert ids(catalog) == {"jam": 1, "tea": 2, "gin": 4, "rum": 3}
    with pytest.raises(ValueError, match="at least one product to stay"):
        remove_products(list(ids(catalog)), catalog=catalog)


def test_add_products__at_the_same_time_lose_nothing(catalog, tmp_path):
    for sku in ("ale", "gin", "rum"):
        product(tmp_path / f"inbox-{sku}", sku)
    newest_version(catalog)
    start = threading.Barrier(3)

    def add(sku):
        start.wait()
        add_products(str(tmp_path / f"inbox-{sku}"), catalog=catalog)

    threads = [threading.Thread(target=add, args=(sku,)) for sku in ("ale", "gin", "rum")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert skus(catalog) == {"jam", "tea", "ale", "gin", "rum"}
    assert [one.number for one in catalog_versions(catalog.store, catalog="shop")] == [1, 2, 3, 4]


def test_difference__tells_added_removed_and_changed_products(catalog, inbox):
    add_products(str(inbox), catalog=catalog)
    remove_products(["tea"], catalog=catalog)
    found = difference(catalog.store, name="shop", before=1, after=0)
    assert (found.added, found.removed, found.changed) == (("rum",), ("tea",), ())
    with pytest.raises(ValueError, match="expected at most 3, for catalog 'shop', got 9"):
        catalog_version(catalog.store, catalog="shop", number=9)
    with pytest.raises(ValueError, match="got none yet"):
        difference(catalog.store, name="other", before=0, after=0)
    with pytest.raises(ValueError, match="only its data set's own exemplars"):
        catalog_version(catalog.store, catalog="other", number=1)


def test_watch__takes_a_product_once_its_photos_are_still(catalog, inbox):
    watched = Watch(catalog=catalog, folder=inbox)
    assert watched.look() is None
    (inbox / "rum/2.jpg").write_bytes((inbox / "rum/1.jpg").read_bytes()[:90])
    assert watched.look() is None
    assert watched.look().changed == ("rum",)
    assert watched.look() is None
    remove_products(["rum"], catalog=catalog)
    assert watched.look() is None


def test_watch__tries_a_refused_product_again_when_it_changes(catalog, inbox):
    (inbox / "rum/0.jpg").write_bytes(b"")
    (inbox / "rum/1.jpg").write_bytes(b"")
    watched = Watch(catalog=catalog, folder=inbox)
    watched.look()
    with pytest.raises(ValueError, match="rum"):
        watched.look()
    assert watched.look() is None
    product(inbox / "new", "rum", seed=1)
    (inbox / "new/rum/0.jpg").rename(inbox / "rum/0.jpg")
    assert watched.look() is None
    assert watched.look().changed == ("rum",)


@pytest.mark.parametrize(("dataset", "name"), [("/a/shop", "shop"), ("/a/my shop!", "my-shop-"), ("/a/.x", "x")])
def test_catalog_name__is_the_folders(dataset, name):
    assert catalog_name(dataset) == name


def test_ingest_splits__of_a_version_reads_labels_by_its_products(catalog, inbox):
    run = LocalRunner(store=catalog.store)

    def splits():
        version = newest_version(catalog)
        choice = DatasetChoice(dataset=catalog.dataset, catalog=catalog.store.load(version.manifest))
        return ingest_splits(run, choice=choice)

    before = splits()
    val = before.val
    assert [(row.item_id, row.status) for row in val.rows] == [("val/a", "ok"), ("val/b", "quarantined")]
    assert val.row("val/b").reason == "category_id: expected a product of the catalog, got 'rum'"
    add_products(str(inbox), catalog=catalog)
    after = splits()
    assert {row.item_id: [(item.category, item.sku) for item in row.objects] for row in after.val.ok} == {
        "val/a": [(1, "jam")],
        "val/b": [(2, "tea"), (3, "rum")],
    }
    assert [category.sku for category in categories_of(after.test)] == ["jam", "tea", "rum"]
    assert after.pool.content_digest == before.pool.content_digest


def test_run_options__mean_the_newest_version_unless_one_is_named(catalog, inbox):
    def products(**values):
        options = RunOptions(dataset=catalog.dataset, store=catalog.store.url, **values)
        made = options.choice(catalog.store).catalog
        return None if made is None else [category.sku for category in categories_of(made)]

    assert products() is None
    add_products(str(inbox), catalog=catalog)
    assert products() == ["jam", "tea", "rum"]
    assert products(catalog_version=1) == ["jam", "tea"]
    assert products(catalog="other") is None
