"""What people decide changes what prune keeps, and nothing else."""

import numpy as np
import pytest

from storage.images import encode_jpeg, encode_png
from storage.manifest import ManifestObject, ManifestRow
from storage.reviews import Decision, append_decisions, reviews_for
from storage.store import Store
from tasks.params import PruneParams
from tasks.stage import key_of, load_stage, run_stage_locally

BOX = ManifestObject(category=1, sku="tea", box=(8, 8, 24, 24))
PARAMS = PruneParams(rule="area", area_ratio=0.45)
# Of "narrow" the rule thinks too little, of "poor" the segmentation did, "empty" has nothing to cut out.
AREAS = {"a": 256, "b": 256, "narrow": 64, "poor": 256, "empty": 0}


def mask_row(stem):
    poor = stem in ("poor", "empty")
    return ManifestRow(
        item_id=f"mask/{stem}",
        sku="tea" if stem != "b" else "oats",
        parents=(f"catalog/{stem}", f"coarse/{stem}"),
        media_type="image/png",
        width=32,
        height=32,
        objects=() if stem == "empty" else (BOX,),
        status="review" if poor else "ok",
        attributes={"area": AREAS[stem]},
    )


def alpha(stem):
    mask = np.zeros((32, 32), np.uint8)
    if AREAS[stem]:
        mask[8:24, 8 : 8 + AREAS[stem] // 16] = 255
    return encode_png(mask)


@pytest.fixture
def made(tmp_path):
    store = Store.open(str(tmp_path / "store"))
    catalog, masks = store.begin("ingest", key="c"), store.begin("segment", key="m")
    for number, stem in enumerate(AREAS):
        photo = encode_jpeg(np.full((32, 32, 3), 40 + number, np.uint8))
        row = ManifestRow(item_id=f"catalog/{stem}", media_type="image/jpeg", width=32, height=32)
        catalog.put(photo, path=f"{stem}.jpg", row=row)
        masks.put(alpha(stem), path=f"{stem}.png", row=mask_row(stem))
    return store, {"catalog": catalog.commit(metadata={}), "masks": masks.commit(metadata={})}


def decide(made, item_id, verdict):
    store, inputs = made
    kind, stem = item_id.split("/")
    judged = inputs["masks" if kind == "mask" else "catalog"].row(f"{'mask' if kind == 'mask' else 'catalog'}/{stem}")
    one = Decision(time="", reviewer="Ada", kind=kind, item_id=item_id, judged=judged.digest, verdict=verdict)
    append_decisions(store, [one])


def pruned(made, **more):
    store, inputs = made
    reviews = reviews_for(store, stage="prune")
    inputs = {**inputs, **more, **({"reviews": reviews} if reviews else {})}
    found = run_stage_locally(load_stage("prune"), PARAMS, store=store, **inputs)
    return found, {row.item_id.removeprefix("pose/"): (row.status, row.reason) for row in found.rows}


def statuses(made, **more):
    return {stem: status for stem, (status, _) in pruned(made, **more)[1].items()}


def test_prune__without_decisions_the_rule_alone_counts(made):
    assert statuses(made) == {"a": "ok", "b": "ok", "narrow": "dropped"}


def test_prune__a_bad_mask_drops_its_view_with_the_reason(made):
    decide(made, "mask/a", "bad")
    assert pruned(made)[1]["a"] == ("dropped", "a person marked the mask as bad")
    assert statuses(made)["b"] == "ok"


def test_prune__a_good_mask_lets_a_poor_one_in_but_not_an_empty_one(made):
    decide(made, "mask/poor", "good")
    decide(made, "mask/empty", "good")
    assert statuses(made) == {"a": "ok", "b": "ok", "narrow": "dropped", "poor": "ok"}


def test_prune__a_person_overrules_the_rule_either_way(made):
    decide(made, "pose/narrow", "good")
    decide(made, "pose/a", "bad")
    _, said = pruned(made)
    assert said["narrow"] == ("ok", "a person marked the view as good; area 0.25 of the largest, rule > 0.45")
    assert said["a"][0] == "dropped" and said["a"][1].startswith("a person marked the view as bad")


def test_prune__a_decision_about_another_mask_of_the_exemplar_is_none(made):
    store, _ = made
    stale = Decision(time="", reviewer="", kind="mask", item_id="mask/a", judged="0" * 64, verdict="bad")
    append_decisions(store, [stale])
    assert statuses(made)["a"] == "ok"


def test_prune__decisions_change_its_key_and_taking_them_back_restores_it(made):
    store, inputs = made

    def key():
        reviews = reviews_for(store, stage="prune")
        return key_of(PARAMS, inputs={**inputs, **({"reviews": reviews} if reviews else {})})

    before = key()
    decide(made, "mask/a", "bad")
    assert key() != before
    decide(made, "mask/a", "undecided")
    assert key() == before


def test_prune__decided_products_are_decided_anew_beside_an_earlier_result(made):
    decide(made, "mask/a", "bad")
    earlier, _ = pruned(made)
    decide(made, "mask/a", "undecided")
    assert statuses(made, previous=earlier) == {"a": "ok", "b": "ok", "narrow": "dropped"}
    decide(made, "pose/b", "bad")
    assert statuses(made, previous=earlier)["b"] == "dropped"
