from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from storage.manifest import ManifestObject
from storage.reviews import Decision, append_decisions, in_force, label_text, read_decisions, reviews_for, verdicts_of
from storage.store import Store


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def decision(item_id="mask/a", *, verdict="bad", judged="d1", time="2026-01-01T00:00:00+00:00", **values):
    kind = item_id.split("/")[0]
    return Decision(time=time, reviewer="Ada", kind=kind, item_id=item_id, judged=judged, verdict=verdict, **values)


def test_append_decisions__keeps_every_row_in_a_table_that_anything_opens(store, tmp_path):
    first, second = decision(note="hand in the picture"), decision(verdict="good")
    append_decisions(store, [first])
    append_decisions(store, [second])
    assert read_decisions(store) == (first, second)
    newest = max((tmp_path / "store/reviews").iterdir())
    assert pq.read_table(newest).column("verdict").to_pylist() == ["bad", "good"]


def test_append_decisions__two_writers_lose_nothing(store):
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(lambda number: append_decisions(store, [decision(f"mask/{number}")]), range(24)))
    assert sorted(one.item_id for one in read_decisions(store)) == sorted(f"mask/{number}" for number in range(24))


def test_append_decisions__refuses_other_verdicts(store):
    with pytest.raises(ValueError, match="expected one of mask, pose, pseudo and one of good, bad, undecided, got"):
        append_decisions(store, [decision(verdict="maybe")])
    assert read_decisions(store) == ()


def test_read_decisions__a_broken_table_is_named(store, tmp_path):
    append_decisions(store, [decision()])
    (tmp_path / "store/reviews/00000002.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="00000002.parquet: expected a Parquet table of review decisions"):
        read_decisions(store)


def test_in_force__the_last_word_about_each_subject():
    said = [
        decision(),
        decision(judged="d2"),
        decision(verdict="good"),
        decision("pose/b"),
        decision("pose/b", verdict="undecided"),
    ]
    held = in_force(said)
    assert {subject: one.verdict for subject, one in held.items()} == {
        ("mask", "mask/a", "d1"): "good",
        ("mask", "mask/a", "d2"): "bad",
    }


def test_reviews_for__nothing_decided_is_no_input(store):
    append_decisions(store, [decision(), decision(verdict="undecided")])
    assert reviews_for(store, stage="prune") is None


def test_reviews_for__each_stage_sees_its_kinds(store):
    append_decisions(store, [decision(), decision("pose/b", verdict="good"), decision("pseudo/c", judged='{"tea":1}')])
    assert verdicts_of(reviews_for(store, stage="prune")) == {
        ("mask", "mask/a", "d1"): "bad",
        ("pose", "pose/b", "d1"): "good",
    }
    assert verdicts_of(reviews_for(store, stage="select")) == {("pseudo", "pseudo/c", '{"tea":1}'): "bad"}


def test_reviews_for__the_digest_is_that_of_the_verdicts(store):
    append_decisions(store, [decision()])
    before = reviews_for(store, stage="prune")
    append_decisions(store, [decision(verdict="good", note="?"), decision(time="2027-01-01T00:00:00+00:00", note="!")])
    assert reviews_for(store, stage="prune").content_digest == before.content_digest
    append_decisions(store, [decision(verdict="good")])
    assert reviews_for(store, stage="prune").content_digest != before.content_digest


def test_label_text__counts_what_teaches():
    tea, oats = (ManifestObject(category=1, sku=sku, box=(0, 0, 1, 1)) for sku in ("tea", "oats"))
    ignored = ManifestObject(category=1, sku="tea", box=(0, 0, 1, 1), status="ignore")
    assert label_text([tea, oats, tea, ignored]) == '{"oats":1,"tea":2}'
