import json

import pytest

from flows.champion import resolve_model
from flows.champion_desk import ChampionDesk
from storage.champions import champion_history, current_champion
from storage.manifest import ManifestRow
from storage.store import Store

FIGURES = {"averaged": {"cAcc": 0.5}}


def checkpoint(store, name):
    publication = store.begin("train", key=name)
    for item in ("checkpoint", "config"):
        publication.put(f"{item} of {name}".encode(), path=item, row=ManifestRow(item_id=item))
    return publication.commit(metadata={})


@pytest.fixture
def made(tmp_path):
    store, stages = Store.open(str(tmp_path / "store")), []
    for rung in ("source", "render"):
        manifest = checkpoint(store, rung)
        told = {
            "name": f"train.{rung}",
            "key": rung,
            "manifest": manifest.url,
            "content_digest": manifest.content_digest,
        }
        stages.append(told)
    stages += [
        {"name": f"ingest.{split}", "manifest": "m", "content_digest": f"d-{split}"} for split in ("pool", "val")
    ]
    run = {
        "name": "night",
        "catalog": "shop",
        "catalog_version": 3,
        "stages": stages,
        "val_ladder": {"render": FIGURES},
    }
    return ChampionDesk(store, tmp_path / "runs"), run


def served(desk):
    return (resolve_model("champion", runs=desk.runs) / "model.safetensors").read_bytes()


def test_promote__records_it_and_puts_it_to_use(made):
    desk, run = made
    assert desk.promote(run, rung="source", reason="first") == (
        "source of run night is the champion of shop (record 1)"
    )
    assert served(desk) == b"checkpoint of source"
    desk.promote(run, rung="render", reason="better")
    assert served(desk) == b"checkpoint of render"
    record = current_champion(desk.store, catalog="shop")
    assert (record.rung, record.replaced, record.catalog_version, record.reasons) == ("render", 1, 3, ("better",))
    assert record.inputs == {"pool": "d-pool", "val": "d-val"}
    assert record.figures["val"] == {"challenger": {"all": {"averaged": {"cAcc": 0.5}}}}


def test_roll_back__brings_an_earlier_one_back(made):
    desk, run = made
    for rung in ("source", "render"):
        desk.promote(run, rung=rung, reason="?")
    desk.roll_back("shop", to=1, reason="worse at night")
    assert served(desk) == b"checkpoint of source"
    assert [one.action for one in champion_history(desk.store, catalog="shop")] == [
        "promoted",
        "promoted",
        "rolled back",
    ]
    assert json.loads((desk.runs / "champion.json").read_text())["number"] == 3


def test_promote__refuses_what_is_no_model_or_is_the_champion(made):
    desk, run = made
    with pytest.raises(ValueError, match="rung: expected one that run night trained, got 'image_level'"):
        desk.promote(run, rung="image_level", reason="?")
    desk.promote(run, rung="source", reason="?")
    with pytest.raises(ValueError, match="is the champion already"):
        desk.promote(run, rung="source", reason="?")
    with pytest.raises(ValueError, match="expected the number of an earlier champion"):
        desk.roll_back("shop", to=7, reason="?")
