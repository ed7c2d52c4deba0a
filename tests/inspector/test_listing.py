import math
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from inspector.listing import PAGE_SIZE, Filters, Listing, page_of
from inspector.pages.stages import filters_from, page_number
from storage.manifest import ManifestObject, ManifestRow
from storage.manifest_table import open_manifest_table
from storage.store import Store

ROWS = [
    ManifestRow(
        item_id=f"pose/{number:02d}",
        sku=("tea", "oats", None)[number % 3],
        level=(None, "easy", "hard")[number % 3 if number % 2 else 0],
        quality=None if number % 5 == 0 else (number * 7 % 10) / 10,
        status="dropped" if number % 4 == 0 else "ok",
        reason=f"evidence {number / 10:.2f} of {number}" if number % 4 == 0 else "",
        parents=(f"mask/{number % 6}",),
        objects=tuple(ManifestObject(category=1, sku="rice", box=(0, 0, 1, 1)) for _ in range(number % 3)),
    )
    for number in range(30)
]


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    store = Store.open(str(tmp_path_factory.mktemp("store")))
    publication = store.begin("prune", key="k")
    for row in ROWS:
        publication.add(row)
    return Listing(open_manifest_table(store, publication.commit(metadata={}).url))


def passes(row, filters):
    skus = {row.sku} if filters.sku in ("tea", "oats") else {item.sku for item in row.objects}
    quality = -math.inf if row.quality is None else row.quality
    return (
        (not filters.sku or filters.sku in skus)
        and (not filters.level or row.level == filters.level)
        and (not filters.status or row.status == filters.status)
        and (not filters.reason or row.reason.startswith("evidence"))
        and (not filters.find or filters.find.lower() in row.item_id)
        and (not filters.parent or filters.parent in row.parents)
        and (filters.low is None or quality >= filters.low - 1e-6)
        and (filters.high is None or (row.quality is not None and quality <= filters.high + 1e-6))
    )


def ranked(rows, sort):
    name, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    if name == "item":
        return rows
    value = {"quality": lambda row: row.quality, "objects": lambda row: len(row.objects)}.get(name)
    value = value or (lambda row: getattr(row, name))
    known = [row for row in rows if value(row) is not None]
    ordered = sorted(known, key=value) if sign > 0 else sorted(known, key=value, reverse=True)
    return ordered + [row for row in rows if value(row) is None]


FILTERS = st.builds(
    Filters,
    sku=st.sampled_from(["", "tea", "rice", "none"]),
    level=st.sampled_from(["", "easy", "none"]),
    status=st.sampled_from(["", "ok", "dropped"]),
    reason=st.sampled_from(["", "evidence # of #"]),
    low=st.sampled_from([None, 0.0, 0.35]),
    high=st.sampled_from([None, 0.0, 0.65]),
    find=st.sampled_from(["", "POSE/1", "7"]),
    parent=st.sampled_from(["", "mask/2"]),
    sort=st.sampled_from(["item", "quality", "-quality", "objects", "-objects", "sku", "status"]),
)


@given(FILTERS)
def test_numbers__equal_a_search_through_all_rows(listing, filters):
    found = [ROWS[number] for number in listing.numbers(filters)]
    assert found == ranked([row for row in ROWS if passes(row, filters)], filters.sort)


@given(FILTERS)
def test_query__says_what_filters_from_reads(filters):
    assert filters_from(QueryParams(filters.query())) == filters


def test_query__leaves_defaults_out_and_takes_changes():
    assert Filters().query() == ""
    assert dict(parse_qsl(Filters(sku="a b").query(page=3, sort="quality"))) == {
        "sku": "a b",
        "page": "3",
        "sort": "quality",
    }
    assert Filters(sku="a").query(page=1, sku="") == ""


@pytest.mark.parametrize("text", ["x", "nan", "inf", "1e999", "--1", ""])
def test_filters_from__nonsense_is_no_filter(text):
    query = QueryParams({"low": text, "high": text, "sort": text, "view": text, "page": text})
    assert filters_from(query) == Filters() and page_number(query) == 1


def test_facets__values_with_their_numbers(listing):
    assert [(one.value, one.count) for one in listing.facets("status")] == [("ok", 22), ("dropped", 8)]
    assert [(one.value, one.count) for one in listing.facets("sku")] == [("oats", 10), ("tea", 10)]
    assert [(one.value, one.count) for one in listing.facets("reason")] == [("evidence # of #", 8)]
    assert listing.has_quality and not listing.object_skus


@pytest.mark.parametrize(
    ("total", "number", "expected"),
    [
        (0, 1, (1, 1, 0, 0)),
        (1, 9, (1, 1, 0, 1)),
        (PAGE_SIZE + 1, 2, (2, 2, PAGE_SIZE, PAGE_SIZE + 1)),
        (5, -3, (1, 1, 0, 5)),
    ],
)
def test_page_of(total, number, expected):
    page = page_of(total, number=number)
    assert (page.number, page.pages, page.start, page.end) == expected
