"""Stores as every released schema version wrote them are read to this day."""

import shutil

import pytest

from storage.catalogs import catalog_versions
from storage.champions import champion_history
from storage.manifest import SCHEMA_VERSION
from storage.reviews import read_decisions
from storage.roots import kept_runs
from storage.store import Store
from storage.verify import verify
from tests.storage.schema_fixture import CHAMPION, CONTENT, DECISION, GOLDEN, LOST, ROW, VERSION


def test_golden__holds_a_store_of_every_version():
    found = sorted(path.name for path in GOLDEN.glob("schema*"))
    assert found == [f"schema{number}" for number in range(1, SCHEMA_VERSION + 1)], (
        "python -m tests.storage.schema_fixture adds a store of a new version"
    )


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_store__of_every_version_is_read(version, tmp_path):
    shutil.copytree(GOLDEN / f"schema{version}", tmp_path / "store")
    store = Store.open(str(tmp_path / "store"))
    made = store.find("compose", key="k")
    assert made.metadata["schema_version"] == version and made.content == CONTENT
    photo, lost = made.row("synthetic/1"), made.row("synthetic/2")
    assert store.read(photo) == b"photo"
    for name in ("objects", "parents", "level", "quality", "attributes", "width", "height", "sku", "split"):
        assert getattr(photo, name) == getattr(ROW, name), name
    assert (lost.status, lost.reason) == (LOST.status, LOST.reason)
    assert store.load(store.manifest_url("gather", key="k")).row("synthetic/1").digest == photo.digest
    assert catalog_versions(store, catalog="shop") == (VERSION,)
    assert [one.reasons for one in champion_history(store, catalog="shop")] == [CHAMPION.reasons]
    assert read_decisions(store) == (DECISION,)
    assert [run.folder for run in kept_runs(store)] == ["/nowhere/runs/a"]
    assert verify(store).records == 4
