"""Stages `train` and `predict` on photos that the test paints: bright squares and dark bars on grey."""

import json

import numpy as np
import pytest
import torch

from storage.catalog import Category, category_records
from storage.images import encode_png
from storage.manifest import ManifestObject, ManifestRow
from storage.store import Store
from tasks import train as train_module
from tasks.params import TrainParams
from tasks.stage import run_stage_locally
from tasks.train import PhotoSource, batches, pick_device, train

SIZE = 64
CATEGORIES = (Category(id=2, sku="square"), Category(id=5, sku="bar"))
PARAMS = TrainParams(
    width=8,
    head_width=16,
    proposals=20,
    samples=16,
    image_size=SIZE,
    steps=4,
    batch=2,
    warmup=2,
    evaluate_every=2,
    save_every=1,
    threads=1,
    device="cpu",
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _photo(index):
    generator = np.random.default_rng(index)
    photo = generator.integers(110, 140, (SIZE, SIZE, 3), dtype=np.uint8)
    x, y = generator.integers(4, 30, 2)
    photo[y : y + 24, x : x + 24] = 230
    photo[52:60, 6:46] = 20
    return photo, (
        ManifestObject(category=2, sku="square", box=(x, y, x + 24, y + 24)),
        ManifestObject(category=5, sku="bar", box=(6, 52, 46, 60)),
    )


def _photos(store, name, *, count=4, labelled=True):
    publication = store.begin(name, key=name)
    for index in range(count):
        photo, objects = _photo(index)
        row = ManifestRow(item_id=f"{name}/{index}", width=SIZE, height=SIZE, objects=objects if labelled else ())
        publication.put(encode_png(photo), path=f"{index}.png", row=row)
    return publication.commit(metadata={}, content={"categories": category_records(CATEGORIES)})


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def _train(store, params=PARAMS, *, init=None, photos=None):
    photos = photos or [_photos(store, "synthetic")]
    return run_stage_locally(train, params, store=store, photos=photos, val=_photos(store, "val"), init=init)


def test_train__publishes_weights_config_and_log(store):
    made = _train(store)
    assert [row.item_id for row in made.rows] == ["checkpoint", "config", "log"]
    lines = [json.loads(line) for line in store.read(made.row("log")).splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "val" in line] == [2, 4]
    config = json.loads(store.read(made.row("config")))
    assert config["image_size"] == SIZE and [one["sku"] for one in config["categories"]] == ["square", "bar"]
    assert made.content["val"]["threshold"] == config["threshold"]


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_at", [1, 3])
def test_train__a_killed_training_goes_on_bit_for_bit(tmp_path, monkeypatch, killed_at):
    whole = Store.open(str(tmp_path / "whole"))
    expected = _train(whole)
    killed = Store.open(str(tmp_path / "killed"))
    real_step, taken = train_module.train_step, []

    def step_or_die(*args, **kwargs):
        if len(taken) == killed_at:
            raise _KilledError
        taken.append(1)
        return real_step(*args, **kwargs)

    monkeypatch.setattr(train_module, "train_step", step_or_die)
    with pytest.raises(_KilledError):
        _train(killed)
    monkeypatch.setattr(train_module, "train_step", lambda *a, **k: (taken.append(1), real_step(*a, **k))[1])
    resumed = _train(killed)
    assert len(taken) == PARAMS.steps, "steps were taken again"
    assert [row.digest for row in resumed.rows] == [row.digest for row in expected.rows]


def test_train__starts_from_a_checkpoint(store):
    first = _train(store)
    # A rate of (nearly) nothing: what comes out is what went in.
    still = PARAMS.model_copy(update={"learning_rate": 1e-12, "steps": 1, "average": 0.0})
    second = _train(store, still, init=first)
    one, other = (json.loads(store.read(made.row("config"))) for made in (first, second))
    assert one["network"] == other["network"]
    assert second.content["val"]["cAcc"] == first.content["val"]["cAcc"]


def test_train__refuses_a_checkpoint_of_other_products(store):
    first = _train(store)
    publication = store.begin("othercatalog", key="x")
    photo, _ = _photo(0)
    publication.put(encode_png(photo), path="0.png", row=ManifestRow(item_id="val/0", width=SIZE, height=SIZE))
    other = publication.commit(
        metadata={}, content={"categories": category_records([Category(id=1, sku="a"), Category(id=2, sku="b")])}
    )
    with pytest.raises(ValueError, match="expected a checkpoint of the same 2 products"):
        run_stage_locally(train, PARAMS, store=store, photos=[_photos(store, "synthetic")], val=other, init=first)


def test_photo_source__wants_a_share_for_every_input(store):
    with pytest.raises(ValueError, match="expected one share for each of 2 inputs"):
        _train(store, photos=[_photos(store, "synthetic"), _photos(store, "rendered")])


class _Context:
    """Only what sampling uses."""

    def __init__(self, store):
        self._store = store

    def read(self, row):
        return self._store.read(row)

    def generator(self, *names):
        return np.random.default_rng(abs(hash(names)) % 2**32)


def test_batches__are_a_function_of_the_step_and_keep_the_shares(store):
    photos = [_photos(store, "synthetic"), _photos(store, "rendered", labelled=False)]
    params = PARAMS.model_copy(update={"mix": (0.25, 0.75), "steps": 60, "batch": 4})
    source = PhotoSource(_Context(store), photos=photos, categories=CATEGORIES, params=params)
    everything = list(batches(_Context(store), source, params=params, first=0))
    later = list(batches(_Context(store), source, params=params, first=57))
    for expected, got in zip(everything[57:], later, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(expected.photos, got.photos, strict=True))
    labelled = [len(target["boxes"]) > 0 for batch in everything for target in batch.targets]
    assert 0.15 < np.mean(labelled) < 0.35


def test_pick_device__says_when_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="expected a CUDA GPU"):
        pick_device("cuda")
