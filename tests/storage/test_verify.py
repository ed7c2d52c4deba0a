import random

import pytest

from storage.catalogs import record_version
from storage.files import local_path
from storage.manifest import ManifestRow, referenced
from storage.roots import note_run
from storage.store import Store
from storage.verify import may_be_made_again, set_aside, verify
from tests.storage.schema_fixture import VERSION, write
from tests.storage.test_seal import flipped


@pytest.fixture
def store(tmp_path):
    write(tmp_path / "store")
    return Store.open(str(tmp_path / "store"))


def publish(store, key, *, stage="s", refers=()):
    publication = store.begin(stage, key=key)
    publication.put(key.encode(), path="a.bin", row=ManifestRow(item_id="a"))
    for number, other in enumerate(refers):
        publication.add(referenced(other.row("a"), item_id=f"other/{number}"))
    return publication.commit(metadata={"inputs": {}})


def files_of(store):
    folders = ("artifacts", "catalogs", "champions", "reviews", "roots")
    found = [path for folder in folders for path in (local_path(store.url) / folder).rglob("*") if path.is_file()]
    return sorted(path for path in found if path.name != ".used")


def problems(store):
    # The fixture's catalog and champion name a manifest that never was in this store.
    return [one.url for one in verify(store).damage]


def test_verify__finds_one_flipped_bit_in_every_file(store):
    assert problems(store) == []
    draw = random.Random(0)
    for path in files_of(store):
        data = path.read_bytes()
        path.write_bytes(flipped(data, draw.randrange(len(data) * 8)))
        assert problems(store) == [f"file://{path}"], path
        path.write_bytes(data)
    assert problems(store) == []


def test_verify__finds_every_missing_file_that_something_names(store, tmp_path):
    (tmp_path / "run").mkdir()
    note_run(store, folder=tmp_path / "run", manifests=[store.manifest_url("gather", key="k")], time="t")
    for path in files_of(store):
        inside = path.relative_to(local_path(store.url)).parts
        if inside[0] != "artifacts":
            continue
        data = path.read_bytes()
        path.unlink()
        assert problems(store) == [f"file://{path}"], path
        path.write_bytes(data)


def test_verify__reads_no_more_of_rows_than_where_their_files_are(store, monkeypatch):
    publish(store, "a")

    def decode(record, **more):
        raise AssertionError("a million rows would fill the memory")

    monkeypatch.setattr("storage.manifest.decode_row", decode)
    found = verify(store)
    assert found.manifests > 0 and found.files > 0 and not found.damage


def test_verify__finds_a_gap_among_records(store):
    for number in (2, 3):
        assert record_version(store, VERSION.__class__(**{**as_dict(VERSION), "number": number}))
    (local_path(store.url) / "catalogs/shop/000002.json").unlink()
    [damage] = verify(store).damage
    assert damage.url.endswith("/catalogs/shop") and "none numbered 2" in damage.problem


def as_dict(version):
    return {name: getattr(version, name) for name in version.__slots__}


def test_verify__does_not_mind_what_killed_runs_leave(store):
    store.begin("s", key="half").put(b"half", path="half.bin", row=ManifestRow(item_id="half"))
    found = verify(store)
    assert (found.damage, found.unfinished) == ([], 1)


def test_verify__reads_photos_outside_the_store_when_asked(store, tmp_path):
    photo = tmp_path / "a photo, 100 %é.jpg"
    photo.write_bytes(b"photo")
    publication = store.begin("ingest", key="k")
    row = ManifestRow(item_id="a", path=f"file://{photo}", digest="0" * 64, bytes=5)
    publication.add(row)
    publication.commit(metadata={"inputs": {}})
    assert verify(store).damage == []
    [damage] = verify(store, photos=True).damage
    assert (damage.url, damage.remade) == (f"file://{photo}", False)


def test_set_aside__moves_what_is_damaged_and_only_that(store):
    sound, broken = publish(store, "sound"), publish(store, "broken")
    local_path(broken.row("a").url).write_bytes(b"BROKEN")
    damage = verify(store).damage
    assert set_aside(store, damage) == 1
    assert verify(store).damage == [] and store.find("s", key="broken") is None
    assert store.find("s", key="sound").rows == sound.rows
    aside = local_path(store.url) / "quarantine/s/broken"
    assert sorted(path.name for path in aside.iterdir()) == ["a.bin", "manifest.parquet", "reason.json"]
    assert (aside / "a.bin").read_bytes() == b"BROKEN"


def test_set_aside__leaves_what_a_catalog_version_is_made_of(store):
    photos = publish(store, "photos", stage="ingest")
    version = publish(store, "version", stage="gather", refers=[photos])
    assert record_version(store, VERSION.__class__(**{**as_dict(VERSION), "number": 2, "manifest": version.url}))
    other = publish(store, "other")
    assert not may_be_made_again(store, photos.row("a").url) and may_be_made_again(store, other.row("a").url)
    local_path(photos.row("a").url).write_bytes(b"PHOTOS")
    [damage] = verify(store).damage
    assert not damage.remade and set_aside(store, [damage]) == 0
    local_path(version.url).write_bytes(b"BROKEN")
    assert not may_be_made_again(store, photos.row("a").url)
