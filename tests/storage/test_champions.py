from dataclasses import replace

import pytest

from storage.champions import (
    ChampionRecord,
    champion_catalogs,
    champion_history,
    current_champion,
    record_decision,
    roll_back,
)
from storage.journal import append_record
from storage.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def decide(store, name, *, action="promoted", catalog="shop", **values):
    record = ChampionRecord(
        catalog=catalog,
        action=action,
        time="2026-01-01T00:00:00+00:00",
        run=name,
        rung="render",
        checkpoint=f"file:///s/artifacts/train/{name}/manifest.parquet",
        checkpoint_digest=name,
        reasons=("better on val",),
        **values,
    )
    return record_decision(store, record)


def test_record_decision__is_read_back_as_it_was(store):
    made = decide(store, "a", inputs={"pool": "12"}, stages={"prune": "file:///p"}, figures={"val": {"cAcc": 0.5}})
    assert made.number == 1
    assert champion_history(store, catalog="shop") == (made,)
    assert champion_catalogs(store) == ["shop"]


def test_current_champion__is_the_last_promoted_whatever_was_rejected_after(store):
    assert current_champion(store, catalog="shop") is None
    first = decide(store, "a")
    decide(store, "b", action="rejected")
    decide(store, "c", catalog="other")
    assert current_champion(store, catalog="shop") == first


def test_roll_back__brings_an_earlier_champion_back_and_keeps_the_history(store):
    for name in ("a", "b", "c"):
        decide(store, name)
    back = roll_back(store, catalog="shop", to=0, time="later", reason="b read better")
    assert (back.run, back.number, back.replaced, back.restored) == ("b", 4, 3, 2)
    assert current_champion(store, catalog="shop") == back
    again = roll_back(store, catalog="shop", to=1, time="later", reason="a even more so")
    assert (again.run, again.action) == ("a", "rolled back")
    assert [one.number for one in champion_history(store, catalog="shop")] == [1, 2, 3, 4, 5]


def test_roll_back__refuses_what_was_no_champion(store):
    decide(store, "a")
    decide(store, "b", action="rejected")
    for number in (0, 1, 2, 9):
        with pytest.raises(ValueError, match="champion: expected the number of an earlier champion"):
            roll_back(store, catalog="shop", to=number, time="later", reason="")


def test_champion_history__reads_what_a_newer_program_wrote(store):
    made = decide(store, "a")
    newer = {**replace(made, number=2).to_json(), "signature": "…"}
    append_record(store, "champions/shop", body=lambda number: newer)
    assert champion_history(store, catalog="shop")[1].number == 2
