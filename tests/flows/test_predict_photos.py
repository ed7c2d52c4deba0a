import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows.predict_photos import find_photos, predict_photos, refreshing, watch_photos
from flows.serving import Served
from storage.catalog import Category
from storage.images import encode_jpeg, encode_png
from storage.manifest import ManifestObject
from tasks.confidence import UNTRAINED
from tasks.context import discard_event
from tasks.list_reader import ListReader
from tasks.photo_lists import PhotoLister
from tests.waiting import LONGEST, wait_for

PHOTO = encode_jpeg(np.full((20, 30, 3), 90, np.uint8))
# Every list is as good as another.
SURE = replace(UNTRAINED, acceptable=0.5)


def reader(sku="tea"):
    def read(photos):
        found = ManifestObject(category=1, sku=sku, box=(1, 1, 9, 9), score=0.9)
        return [((found,), 1.0) for _ in photos]

    tea = Category(id=1, sku=sku, metadata={"price": 2.5})
    return ListReader(categories=(tea,), threshold=0.5, confidence=SURE, image_size=64, batch=1, parallel=2, read=read)


def lister_of(reader):
    return PhotoLister(reader, threshold=None, draw=True, workers=2)


def put(folder, name, data=PHOTO):
    """Write a photo as a camera should: moved into place when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{name}").write_bytes(data)
    (folder / f".{name}").rename(folder / name)


def test_find_photos__file_folder_globs_and_their_names(tmp_path, monkeypatch):
    for place in ("a/1.jpg", "a/2.PNG", "a/notes.txt", "b/1.jpg"):
        put(tmp_path / place[0], place[2:])
    assert [one.name for one in find_photos(str(tmp_path / "a"))] == ["1.jpg", "2.PNG"]
    assert [one.name for one in find_photos(str(tmp_path / "a/2.PNG"))] == ["2.PNG"]
    assert [one.name for one in find_photos(f"{tmp_path}/*/*.jpg")] == ["a/1.jpg", "b/1.jpg"]
    monkeypatch.chdir(tmp_path)
    assert [one.name for one in find_photos("**/*.jpg")] == ["a/1.jpg", "b/1.jpg"]
    with pytest.raises(ValueError, match="got nothing for"):
        find_photos("nowhere/*.jpg")


def test_predict_photos__writes_everything_and_skips_bad_photos(tmp_path):
    put(tmp_path / "in", "a.jpg")
    put(tmp_path / "in", "a.png", encode_png(np.zeros((9, 9, 3), np.uint8)))
    put(tmp_path / "in", "b.jpg", PHOTO[:100])
    events = []
    files = find_photos(str(tmp_path / "in"))
    done = predict_photos(files, lister=lister_of(reader()), out=tmp_path / "out", events=events.append)
    assert sorted(path.name for path in (tmp_path / "out/photos").iterdir()) == ["a.jpg", "a.png.jpg"]
    assert [one["photo"] for one in json.loads((tmp_path / "out/shopping_lists.json").read_text())] == [
        "a.jpg",
        "a.png",
    ]
    assert pq.read_table(tmp_path / "out/shopping_lists.parquet").column("total").to_pylist() == [2.5, 2.5]
    assert (
        (tmp_path / "out/shopping_lists.csv")
        .read_text()
        .startswith("photo,sku,name,count,confidence,list_confidence,state,")
    )
    assert list(done.skipped) == ["b.jpg"] and "truncated" in done.skipped["b.jpg"]
    assert "2 shopping lists, 0 need a review, 2 receipts of 5.00 altogether, 1 photos skipped" in done.summary
    assert done.summary.endswith("photos/s")
    assert [one["done"] for one in events if one["kind"] == "progress"] == [1, 2, 3]


def listed(out):
    path = out / "shopping_lists.json"
    return [one["photo"] for one in json.loads(path.read_text())] if path.exists() else []


class Watching:
    """`watch_photos` in a thread, stopped at the end."""

    def __init__(self, tmp_path, refreshed):
        self.stop, self.out = threading.Event(), tmp_path / "out"
        (tmp_path / "in").mkdir(exist_ok=True)
        arguments = {"refreshed": refreshed, "out": self.out, "events": discard_event, "stop": self.stop}
        target = lambda: watch_photos(tmp_path / "in", every=0.01, **arguments)  # noqa: E731
        self.thread = threading.Thread(target=target, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(LONGEST)
        assert not self.thread.is_alive()


def test_watch_photos__reads_what_comes_and_goes_on_where_it_was(tmp_path):
    read = []

    def counting():
        read.append(1)
        return lister_of(reader())

    put(tmp_path / "in", "a.jpg")
    with Watching(tmp_path, counting) as watching:
        wait_for(lambda: listed(watching.out) == ["a.jpg"])
        put(tmp_path / "in", "b.jpg")
        put(tmp_path / "in", "bad.jpg", b"no photo")
        wait_for(lambda: listed(watching.out) == ["a.jpg", "b.jpg"])
    rounds = len(read)
    with Watching(tmp_path, counting) as watching:
        put(tmp_path / "in", "c.jpg")
        wait_for(lambda: listed(watching.out) == ["a.jpg", "b.jpg", "c.jpg"])
    assert rounds in (2, 3) and (watching.out / "photos/c.jpg").exists()


def test_watch_photos__a_photo_that_grows_is_read_when_it_is_whole(tmp_path):
    with Watching(tmp_path, lambda: lister_of(reader())) as watching:
        growing = tmp_path / "in/a.jpg"
        for end in range(10, 50):
            growing.write_bytes(PHOTO[:end])
        growing.write_bytes(PHOTO)
        wait_for(lambda: listed(watching.out) == ["a.jpg"])


def test_watch_photos__wants_a_folder(tmp_path):
    with pytest.raises(ValueError, match="expected a folder to watch"):
        watch_photos(
            tmp_path / "none", refreshed=lambda: None, out=tmp_path, events=discard_event, stop=threading.Event()
        )


def test_refreshing__takes_a_new_model_and_says_when_there_is_none(tmp_path):
    model = tmp_path / "model.onnx"
    served = Served(find=lambda: model, load=lambda path: reader(sku=path.read_text()))
    refreshed = refreshing(served, lister_of=lambda reader: reader.categories[0].sku)
    with pytest.raises(ValueError, match="No such file|not exist"):
        refreshed()
    skus = []
    for text in ("tea", "oats!"):
        model.write_text(text)
        skus += [refreshed(), refreshed()]
    assert skus[0] == "tea" and skus[-1] == "oats!"


def test_find_photos__a_relative_path(tmp_path, monkeypatch):
    put(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert [(one.name, one.path) for one in find_photos("a.jpg")] == [("a.jpg", Path("a.jpg"))]
