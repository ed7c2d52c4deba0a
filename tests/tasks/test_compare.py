import math

import numpy as np
import orjson
import pytest

from storage.catalog import Category, category_records
from storage.manifest import ManifestObject, ManifestRow
from storage.store import Store
from tasks.compare import compare, decide, group_figures
from tasks.evaluation_set import from_manifests
from tasks.params import CompareParams
from tasks.stage import run_stage_locally

CATEGORIES = (Category(id=1, sku="tea"), Category(id=2, sku="jam"), Category(id=5, sku="rum"))
IDS = {category.sku: category.id for category in CATEGORIES}


def figures(averaged, *, old=None, **levels):
    values = {"averaged": averaged, **levels}
    made = {"all": {name: {"cAcc": value} for name, value in values.items()}}
    return made | ({"old": {"averaged": {"cAcc": old}}} if old is not None else {})


@pytest.mark.parametrize(
    ("champion", "challenger", "params", "promoted", "reason"),
    [
        (figures(0.5, easy=0.6), figures(0.51, easy=0.6), {}, True, "better by the margin"),
        (figures(0.5), figures(0.502), {}, False, "a gain of 0.005 is asked for"),
        (figures(0.5), figures(0.505), {}, True, "better by the margin"),
        (figures(0.5, hard=0.4), figures(0.6, hard=0.39), {}, False, "level hard: cAcc falls from 0.400 to 0.390"),
        (figures(0.5, hard=0.4), figures(0.6, hard=0.39), {"tolerance": 0.01}, True, "better by the margin"),
        (figures(0.5, old=0.8), figures(0.6, old=0.7), {}, False, "old products: cAcc falls from 0.800 to 0.700"),
        (figures(0.5), figures(0.4), {}, False, "averaged: cAcc falls from 0.500 to 0.400"),
        (figures(0.5), figures(0.5), {"required": True}, True, "products left the catalog"),
        (figures(0.5, easy=0.5), figures(0.5, easy=0.4), {"required": True}, False, "level easy"),
    ],
)
def test_decide__asks_for_a_margin_and_no_loss(champion, challenger, params, promoted, reason):
    decision = decide(champion, challenger, params=CompareParams(**params))
    assert decision.promoted is promoted
    assert reason in " ".join(decision.reasons)
    assert decision.reasons[0].startswith("averaged cAcc on val")


def row(photo, *items, level="easy"):
    """A photo with items ("tea", score)."""
    objects = tuple(
        ManifestObject(category=IDS[sku], sku=sku, box=(10 * place, 0, 10 * place + 9, 9), score=score)
        for place, (sku, score) in enumerate(items)
    )
    return ManifestRow(item_id=photo, objects=objects, level=level, attributes={"count": float(len(items))})


def publish(store, name, rows):
    publication = store.begin("made", key=name)
    for one in rows:
        publication.add(one)
    return publication.commit(metadata={}, content={"categories": category_records(CATEGORIES)})


def test_group_figures__count_the_groups_products_alone(tmp_path):
    store = Store.open(str(tmp_path))
    truth = publish(store, "t", [row("a", ("tea", 1), ("rum", 1)), row("b", ("jam", 1), ("rum", 1), level="hard")])
    found = publish(store, "f", [row("a", ("tea", 0.9)), row("b", ("jam", 0.9), ("rum", 0.9), ("rum", 0.8))])
    evaluated = from_manifests(truth, predictions=found, categories=CATEGORIES)
    made = group_figures(
        evaluated,
        threshold=0.5,
        groups={"all": ["tea", "jam", "rum"], "old": ["tea", "jam"], "new": ["rum"], "none": []},
    )
    assert set(made) == {"all", "old", "new"}
    assert {name: made[name]["averaged"]["cAcc"] for name in made} == {"all": 0.0, "old": 1.0, "new": 0.0}
    assert (made["new"]["averaged"]["recall"], made["new"]["averaged"]["precision"]) == (0.5, 0.5)
    assert (made["new"]["easy"]["recall"], made["new"]["hard"]["recall"]) == (0.0, 1.0)
    assert math.isnan(made["old"]["easy"]["recall"]) is False


def test_compare__writes_the_decision_with_all_figures(tmp_path):
    store = Store.open(str(tmp_path))
    photos = [row(f"p{number}", ("tea", 1), ("rum", 1)) for number in range(6)]
    val, test = publish(store, "val", photos), publish(store, "test", photos)
    worse = publish(store, "worse", [row(one.item_id, ("tea", 0.9)) for one in photos])
    better = publish(store, "better", [row(one.item_id, ("tea", 0.9), ("rum", 0.9)) for one in photos])
    publication = store.begin("train", key="champion")
    known = {"categories": [{"sku": "tea"}, {"sku": "jam"}, {"sku": "gone"}]}
    publication.put(orjson.dumps(known), path="model.json", row=ManifestRow(item_id="config"))
    champion = publication.commit(metadata={})
    made = run_stage_locally(
        compare,
        CompareParams(),
        store=store,
        val=val,
        test=test,
        champion=champion,
        champion_predictions=[worse, worse],
        challenger_predictions=[better, better],
    )
    body = orjson.loads(store.read(made.row("decision")))
    assert (body["promoted"], body["new"], made.content["promoted"]) == (True, ["rum"], True)
    assert body["figures"]["val"]["champion"]["all"]["averaged"]["cAcc"] == 0.0
    assert body["figures"]["test"]["challenger"]["new"]["averaged"]["recall"] == 1.0
    assert np.isfinite(body["figures"]["threshold"]["challenger"])
