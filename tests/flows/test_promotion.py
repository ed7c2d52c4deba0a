import json

import pytest

from flows.champion import resolve_model
from flows.promotion import already_judged, install, kept_stages, settled
from storage.champions import ChampionRecord, champion_history, record_decision, roll_back
from storage.manifest import ManifestRow
from storage.store import Store

ONE, TWO = {"catalog": "1", "pool": "1", "val": "1"}, {"catalog": "2", "pool": "1", "val": "1"}


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def checkpoint(store, name):
    publication = store.begin("train", key=name)
    for item, file in (("checkpoint", "model.safetensors"), ("config", "model.json")):
        publication.put(f"{item} of {name}".encode(), path=file, row=ManifestRow(item_id=item))
    return publication.commit(metadata={})


def decide(store, name, *, action="promoted", inputs=ONE):
    made = checkpoint(store, name)
    record = ChampionRecord(
        catalog="shop",
        action=action,
        time="t",
        run="r",
        rung="render",
        checkpoint=made.url,
        checkpoint_digest=name,
        inputs=inputs,
    )
    return record_decision(store, record)


def history(store):
    return champion_history(store, catalog="shop")


def test_settled__when_the_champion_was_made_or_kept_on_these_inputs(store):
    assert not settled(history(store), inputs=ONE)
    decide(store, "a")
    assert settled(history(store), inputs=ONE) and not settled(history(store), inputs=TWO)
    decide(store, "b", action="rejected", inputs=TWO)
    assert settled(history(store), inputs=TWO)
    decide(store, "c", inputs=TWO)
    # The champion has changed: what was made from the first inputs is no longer what is in service.
    assert not settled(history(store), inputs=ONE)


def test_settled__a_rolled_back_champion_stays_until_something_changes(store):
    decide(store, "a")
    decide(store, "b", inputs=TWO)
    roll_back(store, catalog="shop", to=0, time="t", reason="a reads better")
    assert settled(history(store), inputs=TWO)
    assert already_judged(history(store), inputs=TWO, checkpoint="b").action == "promoted"


def test_already_judged__a_rejected_model_is_judged_anew_against_another_champion(store):
    decide(store, "a")
    decide(store, "b", action="rejected")
    assert already_judged(history(store), inputs=ONE, checkpoint="b").number == 2
    assert already_judged(history(store), inputs=TWO, checkpoint="b") is None
    decide(store, "c")
    assert already_judged(history(store), inputs=ONE, checkpoint="b") is None
    assert already_judged(history(store), inputs=ONE, checkpoint="a").number == 1


def test_install__puts_the_champion_where_a_model_is_looked_for(store, tmp_path):
    runs = tmp_path / "runs"
    first, second = decide(store, "a"), decide(store, "b")
    for record, name in ((first, "a"), (second, "b")):
        folder = install(record, store=store, runs=runs)
        assert resolve_model("champion", runs=runs) == folder
        assert (folder / "model.json").read_text() == f"config of {name}"
    back = roll_back(store, catalog="shop", to=0, time="t", reason="")
    assert install(back, store=store, runs=runs) == runs / "champions/a"
    assert json.loads((runs / "champion.json").read_text())["number"] == 3


def test_install__touches_nothing_that_is_right(store, tmp_path):
    record = decide(store, "a")
    folder = install(record, store=store, runs=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (*folder.iterdir(), tmp_path / "champion.json")}
    install(record, store=store, runs=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_kept_stages__are_those_after_feedback_where_there_was_some():
    urls = {"coarse": "c", "prune": "p", "prune.feedback": "pf", "train.render": "t"}
    assert kept_stages(urls) == {"coarse": "c", "prune": "pf"}
