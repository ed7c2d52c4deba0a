"""docs/formats.md against the schema, and against what the stages of a real run filled in."""

import re

import pyarrow.parquet as pq
import pytest

from storage.manifest import OBJECT_TYPE, SCHEMA
from storage.store import Store
from tasks.fingerprint import params_classes
from tasks.list_files import LIST_SCHEMA
from tests.docs.pages import quoted, sections, table_rows, text_of

PAGE = text_of("docs/formats.md")
# A row with a file has these, whatever its stage.
EVERYWHERE = {"item_id", "path", "digest", "bytes", "media_type", "status", "reason", "attributes"}


def described(fields):
    """Name, type and null as the page writes them."""
    for field in fields:
        kind = re.sub(r"fixed_size_list<item: (.+?)>", r"list<\1>", str(field.type)).replace("list<item: ", "list<")
        kind = "list<struct>" if kind.startswith("list<struct") else kind
        yield [f"`{field.name}`", kind, "yes" if field.nullable else "no"]


def stage_rows(stage):
    return table_rows(sections(sections(PAGE)["Stages"], level=3)[stage])


def test_manifest__columns_and_object_fields_are_those_of_the_schema():
    rows = [row[:3] for row in table_rows(sections(PAGE)["The manifest"])]
    columns, fields = list(described(SCHEMA)), list(described(OBJECT_TYPE.fields))
    assert rows[: len(columns)] == columns
    assert rows[len(columns) : len(columns) + len(fields)] == fields


def test_stages__are_all_there():
    assert set(sections(sections(PAGE)["Stages"], level=3)) == set(params_classes())


def test_shopping_lists__columns_are_those_of_the_files():
    named = [name for row in table_rows(sections(PAGE)["Shopping lists"]) for name in quoted(row[0])]
    assert named == LIST_SCHEMA.names


@pytest.fixture(scope="module")
def manifests(micro_run):
    folder, _ = micro_run
    store = Store.open(str(folder / "store"))
    found = [path.as_uri() for path in sorted((folder / "store" / "artifacts").glob("*/*/manifest.parquet"))]
    return store, [store.load(url) for url in found]


def filled(row):
    """The columns of a row that are not empty, with the keys of its attributes."""
    columns = {name for name in SCHEMA.names if getattr(row, name) not in (None, "", (), 0)}
    return columns | {f"attributes.{name}" for name in row.attributes}


def test_stages__fill_in_what_the_page_says_and_nothing_else(manifests):
    _, made = manifests
    for stage in {one.stage for one in made}:
        told = {name for row in stage_rows(stage) for name in quoted(row[0])}
        mine = [one for one in made if one.stage == stage]
        seen = {name for one in mine for row in one.rows for name in filled(row)} - EVERYWHERE
        seen |= {f"content.{name}" for one in mine for name in one.content}
        assert seen <= told, (stage, seen - told)


def test_metadata__has_the_keys_that_the_page_names(manifests):
    _, made = manifests
    told = {name for row in table_rows(sections(PAGE)["The manifest"]) for name in quoted(row[0])}
    for one in made:
        own = {name.removeprefix("metadata.") for row in stage_rows(one.stage) for name in quoted(row[0])}
        assert set(one.metadata) <= told | own, (one.stage, set(one.metadata) - told - own)


def test_evaluate__tables_have_the_columns_that_the_page_names(manifests):
    _, made = manifests
    told = {name: quoted(row[1]) for row in stage_rows("evaluate") for name in quoted(row[0])}
    rows = [row for one in made if one.stage == "evaluate" for row in one.rows if row.item_id.startswith("table/")]
    assert {row.item_id for row in rows} == set(told)
    for row in rows:
        columns = pq.read_schema(row.url.removeprefix("file://")).names
        assert columns == told[row.item_id], row.item_id
