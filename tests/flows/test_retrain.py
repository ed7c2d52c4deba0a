"""The order of the stages of a retraining, on a runner that computes nothing."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import orjson
import pytest

from flows.pipeline import Splits
from flows.presets import PRESETS
from flows.retrain import mixed, replayed, retrain, with_composition
from storage.catalog import Category, category_records
from storage.champions import ChampionRecord
from storage.manifest import Manifest, ManifestRow

MICRO = PRESETS["micro"]()
STAGES = ("coarse", "saliency", "segment", "prune", "board", "compose", "render")


def manifest(name, *rows, **content):
    made = {"stage": name, "key": name, "url": f"memory://{name}", "content_digest": name, "rows": rows}
    return Manifest(**made, content=content, metadata={"parameters": {"renderer": "fastcut"}})


def products(*skus):
    return category_records([Category(id=number, sku=sku) for number, sku in enumerate(skus, start=1)])


CHAMPION = manifest("champion", ManifestRow(item_id="config"))


@dataclass
class RecordingRunner:
    known: tuple = ("jam", "tea")
    asked: dict = field(default_factory=dict)
    pool_teaches: bool = True

    @property
    def store(self):
        made = {CHAMPION.url: CHAMPION} | {f"memory://{name}": self._before(name) for name in STAGES}
        config = orjson.dumps({"categories": [{"sku": sku} for sku in self.known], "threshold": 0.5})
        return SimpleNamespace(
            url="memory://", load=made.__getitem__, read=lambda row: config, list_files=lambda url: []
        )

    def _before(self, name):
        return manifest(name, *(ManifestRow(item_id=f"{name}/{sku}", sku=sku) for sku in self.known))

    def stage(self, name, params, **inputs):
        self.asked[name] = (params, inputs)
        rows = [ManifestRow(item_id="report")] if name.startswith("evaluate") else []
        if name == "select.pool" and self.pool_teaches:
            rows = [ManifestRow(item_id="pool/a")]
        reached = {"retrain.new": 0.5, "retrain.pool": 0.6}.get(name, 0.0)
        return manifest(name, *rows, val={"cAcc": reached, "ACD": 1.0})


def splits(*skus, pool=1):
    content = {"categories": products(*skus), "target_protocol": "unlabelled-target"}
    rows = [ManifestRow(item_id=f"pool/{number}") for number in range(pool)]
    return Splits(
        catalog=manifest("catalog", **content),
        pool=manifest("pool", *rows, **content),
        val=manifest("val", **content),
        test=manifest("test", **content),
    )


def record():
    return ChampionRecord(
        catalog="shop",
        action="promoted",
        time="t",
        run="r",
        rung="render",
        checkpoint=CHAMPION.url,
        checkpoint_digest="d",
        stages={name: f"memory://{name}" for name in STAGES},
    )


def test_retrain__cuts_out_only_new_products_and_starts_from_the_champion():
    run = RecordingRunner()
    made = retrain(run, splits=splits("jam", "tea", "rum"), record=record(), preset=MICRO)
    assert (made.change.new, made.change.gone) == (("rum",), ())
    assert run.asked["gather.new"][0].skus == ("rum",)
    assert run.asked["coarse"][1]["catalog"].key == "gather.new"
    assert run.asked["segment"][1]["coarse"].key == "coarse"
    assert run.asked["prune"][1]["previous"].url == "memory://prune"
    assert run.asked["saliency"][1]["previous"].url == "memory://saliency"
    assert run.asked["compose.new"][0].sku_weights == {"rum": 2.0}
    params, inputs = run.asked["render.new"]
    assert (params.renderer, inputs["previous"].url) == ("fastcut", "memory://render")
    params, inputs = run.asked["retrain.new"]
    assert [one.key for one in inputs["photos"]] == ["compose.new", "render.new", "compose", "render"]
    assert (inputs["champion"].key, inputs["init"], len(params.mix)) == ("champion", None, 4)
    params, inputs = run.asked["retrain.pool"]
    assert inputs["init"].key == "retrain.new" and inputs["photos"][-1].key == "select.pool"
    assert made.rung.checkpoint.key == "retrain.pool"
    assert {"compose", "render", "compose.1", "render.1"} <= set(made.stages)


def test_retrain__products_that_left_need_no_training():
    run = RecordingRunner(known=("jam", "tea", "gone"))
    made = retrain(run, splits=splits("jam", "tea"), record=record(), preset=MICRO)
    assert made.change.gone == ("gone",)
    assert not [name for name in run.asked if name.startswith(("retrain", "compose", "segment", "coarse", "render"))]
    assert run.asked["adapt"][1]["checkpoint"].key == "champion"
    assert run.asked["gather.prune.kept"][0].without == ("gone",)
    assert made.rung.checkpoint.key == "adapt"


def test_retrain__of_a_changed_pool_alone_composes_nothing():
    run = RecordingRunner()
    made = retrain(run, splits=splits("jam", "tea"), record=record(), preset=MICRO)
    assert not [name for name in run.asked if name.startswith(("compose", "coarse", "segment", "prune"))]
    assert [one.key for one in run.asked["retrain.pool"][1]["photos"]] == ["compose", "render", "select.pool"]
    assert run.asked["retrain.pool"][1]["init"] is None
    assert made.rung.checkpoint.key == "retrain.pool"


def test_retrain__without_pool_labels_stays_with_what_it_has():
    run = RecordingRunner(pool_teaches=False)
    assert retrain(run, splits=splits("jam", "tea", "rum"), record=record(), preset=MICRO).rung.checkpoint.key == (
        "retrain.new"
    )
    run = RecordingRunner()
    made = retrain(run, splits=splits("jam", "tea", "rum", pool=0), record=record(), preset=MICRO)
    assert made.rung.checkpoint.key == "retrain.new" and "render.new" not in run.asked


def test_retrain__needs_what_the_champions_run_left():
    bare = ChampionRecord(**{**record().to_json(), "stages": {"coarse": "memory://coarse"}, "reasons": ()})
    with pytest.raises(ValueError, match="expected one whose run left saliency, segment, prune, board"):
        retrain(RecordingRunner(), splits=splits("jam", "tea", "rum"), record=bare, preset=MICRO)


def test_with_composition__keeps_the_first_and_the_latest():
    stages = {"compose": manifest("first"), "render": manifest("first")}
    for number in range(1, 7):
        stages = with_composition(stages, photos=[manifest(f"c{number}"), manifest(f"r{number}")])
    kept = [one.key for one in replayed(stages)]
    assert kept == ["first", "c3", "c4", "c5", "c6", "first", "r3", "r4", "r5", "r6"]


def test_mixed__has_a_share_for_each_input():
    params = mixed(MICRO.retrain["pool"], new=2, replay=4, pool=1)
    assert params.mix == (0.2, 0.2, 0.05, 0.05, 0.05, 0.05, 0.4)
    assert mixed(MICRO.retrain["new"], new=1, replay=1, pool=0).mix == (0.7, 0.3)


def test_preset__a_short_retraining_forgets_where_its_average_began():
    made = PRESETS["demo"]().retrain["new"]
    later = PRESETS["demo"]().train["render"]
    assert made.learning_rate == 2 * later.learning_rate
    assert made.average**made.steps < 0.01 < later.average**made.steps
