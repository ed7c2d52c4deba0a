"""Which rounds a climb takes and what each begins with, when val says what the trainings reached."""

import pytest

from flows.pipeline import Outcome, Prepared, Rung, Synthesized, better_on_val, distill
from flows.presets import PRESETS
from storage.digest import canonical_json
from storage.manifest import ManifestRow
from storage.store import Store
from tasks.params import PredictParams


def rung_with(accuracy, wrong):
    report = {"val": {"averaged": {"cAcc": accuracy, "ACD": wrong}}}
    return Rung(checkpoint=None, val_predictions=None, test_predictions=None, report=report)


@pytest.mark.parametrize(
    ("after", "expected"),
    [((0.6, 1.0), "after"), ((0.5, 1.0), "before"), ((0.5, 0.9), "after"), ((0.4, 0.1), "before")],
)
def test_better_on_val__a_later_rung_must_gain(after, expected):
    rungs = {"before": rung_with(0.5, 1.0), "after": rung_with(*after)}
    assert better_on_val("before", "after", rungs=rungs) == expected


class ScriptedRunner:
    """Every stage is a name; trainings reach what the script says on val."""

    def __init__(self, tmp_path, reached):
        self.store, self.reached, self.named, self.given = Store.open(str(tmp_path)), reached, [], {}

    def stage(self, name, params, **inputs):
        self.named.append(name)
        self.given[name] = inputs
        publication = self.store.begin(params.stage, key=name)
        rung = name.split(".", 1)[-1]
        if params.stage == "evaluate":
            averaged = {"cAcc": self.reached[rung], "ACD": 1.0}
            report = canonical_json({"val": {"averaged": averaged}, "honest": {"averaged": averaged}})
            publication.put(report, path="report.json", row=ManifestRow(item_id="report"))
        return publication.commit(metadata={}, content={"name": name, "target_protocol": "unlabelled-target"})


def climbed(tmp_path, **reached):
    run = ScriptedRunner(tmp_path, reached)
    empty = run.stage("pool", PredictParams())
    prepared = Prepared(
        **dict.fromkeys(("catalog", "pool", "val", "test", "coarse", "network", "masks", "poses"), empty)
    )
    synthesized = Synthesized(boards=empty, synthetic=empty, rendered=empty)
    preset = PRESETS["cpu"]().model_copy(update={"image_rounds": 4})
    rungs = distill(run, prepared=prepared, synthesized=synthesized, preset=preset)
    return run, Outcome(prepared=prepared, rungs=rungs)


def test_distill__rounds_end_when_val_gains_nothing_and_the_best_goes_on(tmp_path):
    run, outcome = climbed(
        tmp_path, source=0.2, render=0.3, image_level=0.5, image_level_2=0.6, image_level_3=0.55, instance_level=0.5
    )
    assert "train.image_level_4" not in run.named
    assert run.given["train.instance_level"]["init"].content["name"] == "train.image_level_2"
    assert outcome.champion == "image_level_2"


def test_distill__a_round_that_harms_is_not_built_upon(tmp_path):
    run, outcome = climbed(tmp_path, source=0.2, render=0.5, image_level=0.4, instance_level=0.45)
    assert run.given["train.instance_level"]["init"].content["name"] == "train.render"
    assert outcome.champion == "render"
