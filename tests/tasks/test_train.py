"""Stages `train` and `predict` on photos that the test paints: bright squares and dark bars on grey."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.augmentation import relit, warped
from models.dpsnet import DPSNetLosses
from models.training.loop import FailedBatchError
from models.training.trainer import Trainer
from models.training.world import ALONE, World
from storage.catalog import Category, category_records
from storage.images import encode_png
from storage.manifest import ManifestObject, ManifestRow, referenced
from storage.store import Store
from tasks import photo_source as photo_source_module
from tasks.device import pick_device
from tasks.loading import batches
from tasks.params import ComposeParams, TrainParams
from tasks.photo_samples import LabelledPhoto, Variation
from tasks.photo_source import PhotoSource, balanced_weights, collated, view_of
from tasks.stage import run_stage_locally
from tasks.train import train

pytestmark = pytest.mark.long

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
    loader_workers=0,
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


@pytest.mark.parametrize(
    ("killed_at", "workers", "save_every", "saved_at"),
    # Of the last one only what follows its evaluation is saved.
    [(1, 0, 1, 1), (3, 0, 2, 2), (3, 2, 1, 3), (3, 0, 9, 2)],
)
def test_train__a_killed_training_goes_on_bit_for_bit(tmp_path, monkeypatch, killed_at, workers, save_every, saved_at):
    whole = Store.open(str(tmp_path / "whole"))
    expected = _train(whole)
    killed = Store.open(str(tmp_path / "killed"))
    params = PARAMS.model_copy(update={"loader_workers": workers, "save_every": save_every})
    real_step, taken = Trainer.take_step, []

    def step_or_die(trainer, batch):
        if len(taken) == killed_at:
            raise _KilledError
        taken.append(trainer.step)
        return real_step(trainer, batch)

    monkeypatch.setattr(Trainer, "take_step", step_or_die)
    with pytest.raises(_KilledError):
        _train(killed, params)
    monkeypatch.setattr(Trainer, "take_step", lambda one, batch: (taken.append(one.step), real_step(one, batch))[1])
    resumed = _train(killed, params)
    assert taken[killed_at:] == list(range(saved_at, PARAMS.steps)), "went on from the start"
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


def test_train__a_loss_that_is_no_number_keeps_its_batch(store, monkeypatch):
    real_forward = DPSNetLosses.forward

    def broken(losses, photos, targets):
        made = real_forward(losses, photos, targets)
        return {**made, "count": made["count"] * float("nan")}

    monkeypatch.setattr(DPSNetLosses, "forward", broken)
    with pytest.raises(FailedBatchError, match="step 0: expected finite losses") as failed:
        _train(store)
    folder = Path(str(failed.value).rsplit("the batch is in ", 1)[1])
    assert sorted(path.name for path in folder.iterdir()) == ["000.jpg", "001.jpg", "batch.safetensors"]
    assert load_file(folder / "batch.safetensors")["part/1/0/boxes"].shape[1] == 4


def test_train__ends_when_val_gets_no_better(store):
    patient = PARAMS.model_copy(update={"steps": 12, "evaluate_every": 1, "patience": 2, "learning_rate": 1e-12})
    made = _train(store, patient)
    lines = [json.loads(line) for line in store.read(made.row("log")).splitlines()]
    assert len(lines) == 3, "the first is never bettered, and two more are waited for"


def test_train__is_never_worse_on_val_than_what_it_starts_from(store):
    first = _train(store)
    wild = PARAMS.model_copy(update={"learning_rate": 0.5, "clip": 0.0, "steps": 2, "average": 0.0, "warmup": 1})
    made = _train(store, wild, init=first)
    lines = [json.loads(line) for line in store.read(made.row("log")).splitlines()]
    assert [line["step"] for line in lines if "val" in line] == [0, 2]
    assert max(line["rank"] for line in lines if "val" in line) >= lines[0]["rank"]
    assert made.content["val"]["cAcc"] >= first.content["val"]["cAcc"]


def _pseudo(store, *, squares=3, bars=1):
    """Pseudo-labelled photos, each with one item: many squares, few bars."""
    publication = store.begin("select", key=f"{squares}-{bars}")
    for index in range(squares + bars):
        photo, objects = _photo(index)
        item = objects[0] if index < squares else objects[1]
        row = ManifestRow(item_id=f"pseudo/{index}", width=SIZE, height=SIZE, split="pseudo", objects=(item,))
        publication.put(encode_png(photo), path=f"{index}.png", row=row)
    return publication.commit(metadata={}, content={"categories": category_records(CATEGORIES)})


def test_balanced_weights__every_sku_as_often():
    item = {name: ManifestObject(category=2, sku=name, box=(0, 0, 1, 1)) for name in ("often", "rarely")}
    rows = [ManifestRow(item_id=str(index), objects=(item["often"],)) for index in range(6)]
    rows += [ManifestRow(item_id="r", objects=(item["rarely"],)), ManifestRow(item_id="none")]
    even, balanced = (balanced_weights(rows, balance=balance) for balance in (0.0, 1.0))
    np.testing.assert_allclose(even, 1 / 8)
    assert balanced[6] == pytest.approx(balanced[:6].sum())
    assert balanced[7] == balanced[0] and balanced.sum() == pytest.approx(1)


def test_balanced_weights__what_selection_says_a_photo_is_worth():
    rows = [ManifestRow(item_id=str(index), attributes={"weight": 3.0} if index == 1 else {}) for index in range(3)]
    np.testing.assert_allclose(balanced_weights(rows, balance=0.0), [0.2, 0.6, 0.2])


def test_photo_source__draws_photos_of_more_weight_more_often(store):
    plain = _pseudo(store, squares=6, bars=2)
    publication = store.begin("select", key="weighted")
    for row in plain.rows:
        publication.add(referenced(replace(row, attributes={"weight": 9.0}) if row.item_id == "pseudo/7" else row))
    photos = [publication.commit(metadata={}, content=plain.content)]
    params = PARAMS.model_copy(update={"balance": 0.0, "zoom": 1.0})
    source = PhotoSource(store, photos=photos, categories=CATEGORIES, params=params, kit=None, workers=0)
    drawn = [source.sample(step=step, position=0)[1]["labels"].tolist() for step in range(400)]
    # One of the two bars has 9 of 16 parts, the other one.
    assert drawn.count([2]) == pytest.approx(400 * 10 / 16, abs=40)


def test_photo_source__draws_rare_pseudo_labels_more_often(store):
    photos = [_pseudo(store, squares=6, bars=2)]
    labels = {}
    for balance in (0.0, 1.0):
        params = PARAMS.model_copy(update={"balance": balance, "zoom": 1.0})
        source = PhotoSource(store, photos=photos, categories=CATEGORIES, params=params, kit=None, workers=0)
        drawn = [source.sample(step=step, position=0)[1]["labels"].tolist() for step in range(400)]
        labels[balance] = np.mean([one == [2] for one in drawn])
    assert labels[0.0] == pytest.approx(0.25, abs=0.08) and labels[1.0] == pytest.approx(0.5, abs=0.08)


def test_view_of__the_student_sees_pool_photos_in_a_stronger_view():
    params = PARAMS.model_copy(update={"strong": 2.0, "erase": 0.5})
    photo = LabelledPhoto(
        photo_HW3=np.zeros((4, 4, 3), np.uint8),
        boxes_N4=np.zeros((0, 4), np.float32),
        labels_N=np.zeros(0, np.int64),
        ignore_M4=np.zeros((0, 4), np.float32),
    )
    assert view_of(photo, params=params) == Variation(zoom=params.zoom, colour=params.colour)
    strong = view_of(replace(photo, pseudo=True), params=params)
    assert strong == Variation(zoom=params.zoom, colour=2 * params.colour, erase=0.5)


@pytest.mark.parametrize("augment", ["loader", "device"])
def test_train__learns_from_pseudo_labels_in_a_strong_view_with_adapted_statistics(store, augment):
    changes = {"mix": (0.5, 0.5), "balance": 1.0, "strong": 1.5, "erase": 1.0, "adapt": 1.0, "augment": augment}
    photos = [_photos(store, "synthetic"), _pseudo(store)]
    made = _train(store, PARAMS.model_copy(update=changes), photos=photos)
    plain = _train(store, PARAMS.model_copy(update={**changes, "adapt": 0.0}), photos=photos)
    assert store.read(made.row("checkpoint")) != store.read(plain.row("checkpoint"))


def _source(store, **changes):
    photos = [_photos(store, "synthetic"), _photos(store, "rendered", labelled=False)]
    params = PARAMS.model_copy(update={"mix": (0.25, 0.75), **changes})
    return PhotoSource(store, photos=photos, categories=CATEGORIES, params=params, kit=None, workers=0)


def _batches(source, *, steps, workers=0, batch=4, world=ALONE):
    return list(batches(source, collate=collated, batch=batch, steps=steps, world=world, workers=workers))


def test_batches__are_a_function_of_the_step_whatever_the_workers(store):
    source = _source(store)
    everything = _batches(source, steps=range(6))
    later = _batches(source, steps=range(4, 6), workers=2)
    for expected, got in zip(everything[4:], later, strict=True):
        assert torch.equal(expected[0], got[0])
        assert [target["seed"] for target in expected[1]] == [target["seed"] for target in got[1]]


def test_batches__processes_share_what_one_would_take(store):
    source = _source(store)
    ((photos, targets),) = _batches(source, steps=range(3, 4))
    shares = [
        _batches(source, steps=range(3, 4), world=World(rank=rank, size=2, local_rank=rank))[0] for rank in (0, 1)
    ]
    assert torch.equal(torch.cat([share[0] for share in shares]), photos)
    assert [one["seed"] for share in shares for one in share[1]] == [one["seed"] for one in targets]


def test_photo_source__on_the_device_it_is_the_same_photo(store):
    """But for rounding; noise, which is drawn elsewhere, is left out."""
    loader, device = (_source(store, augment=where, image_size=SIZE) for where in ("loader", "device"))
    seen = 0
    for step in range(12):
        photo, target = loader.sample(step=step, position=0)
        raw, other = device.sample(step=step, position=0)
        assert all(torch.equal(target[name], other[name]) for name in ("boxes", "labels", "ignore"))
        if other["light"][6]:
            continue
        seen += 1
        raw_13HW = torch.from_numpy(raw).permute(2, 0, 1)[None] / 255
        warped_13SS = warped(raw_13HW, matrices_B23=other["matrix"][None], size=SIZE)
        made = relit(warped_13SS, lights_B7=other["light"][None], seeds=[0])[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(made - photo).mean() < 1.0
    assert seen >= 3


def test_photo_source__composes_on_the_fly(store, monkeypatch):
    """What `compose` makes of an index is what the network sees: every sample is of another index."""
    asked = []

    def composed(index, *, kit, params):
        asked.append(index)
        photo, objects = _photo(index % 4)
        return encode_png(photo), ManifestRow(item_id="x", width=SIZE, height=SIZE, objects=objects)

    monkeypatch.setattr(photo_source_module, "encoded_photo", composed)
    photos = [_photos(store, "synthetic")]
    params = PARAMS.model_copy(update={"stream": 1.0, "synthesis": ComposeParams()})
    source = PhotoSource(store, photos=photos, categories=CATEGORIES, params=params, kit=object(), workers=0)
    targets = [source.sample(step=step, position=0)[1] for step in range(5)]
    assert len(set(asked)) == 5 and all(len(target["boxes"]) for target in targets)


def test_train__options_of_network_and_engine_work_together(store):
    options = {
        "augment": "device",
        "counts": "product",
        "norm": "group",
        "precision": "bf16",
        "optimiser": "sgd",
        "schedule": "steps",
        "anchors": "strides",
        "global_batch": 4,
    }
    made = _train(store, PARAMS.model_copy(update=options))
    lines = [json.loads(line) for line in store.read(made.row("log")).splitlines()]
    assert len(lines) == PARAMS.steps / 2, "twice the batch, half the steps"
    network = json.loads(store.read(made.row("config")))["network"]
    assert network["count_channels"] == [0, 1] and network["anchor_sizes"] == []


def test_train__a_stream_needs_what_it_is_composed_of(store):
    with pytest.raises(ValueError, match="stream: expected `synthesis`"):
        _train(store, PARAMS.model_copy(update={"stream": 0.5}))


def test_photo_source__keeps_the_shares(store):
    source = _source(store)
    labelled = [len(source.sample(step=step, position=0)[1]["boxes"]) > 0 for step in range(240)]
    assert 0.15 < np.mean(labelled) < 0.35


def test_pick_device__says_when_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="expected a CUDA GPU"):
        pick_device("cuda")
