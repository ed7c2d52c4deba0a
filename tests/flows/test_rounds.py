"""Which rounds a climb takes and what each begins with, when val says what the trainings reached."""

import pytest

from flows.options import RunOptions
from flows.pipeline import Outcome, Prepared, Rung, Synthesized, better_on_val, distill
from flows.presets import PRESETS
from storage.digest import canonical_json
from storage.manifest import ManifestRow
from storage.store import Store
from tasks.params import PredictParams, SelectParams


def rung_with(accuracy, wrong):
    report = {"val": {"averaged": {"cAcc": accuracy, "ACD": wrong}}}
    return Rung(checkpoint=None, val_predictions=None, test_predictions=None, report=report)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ((0.6, 1.0), "after"),
        ((0.5, 1.0), "before"),
        ((0.5, 0.9), "after"),
        ((0.4, 0.9), "after"),
        ((0.9, 1.1), "before"),
    ],
)
def test_better_on_val__a_later_rung_must_gain(after, expected):
    rungs = {"before": rung_with(0.5, 1.0), "after": rung_with(*after)}
    assert better_on_val("before", "after", rungs=rungs) == expected


class ScriptedRunner:
    """Every stage is a name; trainings reach what the script says on val."""

    def __init__(self, tmp_path, reached):
        self.store, self.reached = Store.open(str(tmp_path)), reached
        self.named, self.given, self.params = [], {}, {}

    def stage(self, name, params, **inputs):
        self.named.append(name)
        self.given[name], self.params[name] = inputs, params
        publication = self.store.begin(params.stage, key=name)
        rung = name.split(".", 1)[-1]
        if params.stage == "evaluate":
            averaged = {"cAcc": self.reached[rung], "ACD": 1.0}
            report = canonical_json({"val": {"averaged": averaged}, "honest": {"averaged": averaged}})
            publication.put(report, path="report.json", row=ManifestRow(item_id="report"))
        return publication.commit(metadata={}, content={"name": name, "target_protocol": "unlabelled-target"})


def climbed(tmp_path, *, thresholds=(), **reached):
    run = ScriptedRunner(tmp_path, reached)
    empty = run.stage("pool", PredictParams())
    prepared = Prepared(
        **dict.fromkeys(("catalog", "pool", "val", "test", "coarse", "network", "masks", "poses"), empty)
    )
    synthesized = Synthesized(boards=empty, synthetic=empty, rendered=empty)
    preset = PRESETS["cpu"]().model_copy(update={"image_rounds": 4, "thresholds": thresholds})
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


RISING = {"source": 0.2, "render": 0.3, "image_level": 0.4, "image_level_2": 0.5, "image_level_3": 0.6}


def selected_by(run):
    """What decided in each round: the score from which detections are trusted, and the expected precision."""
    params = [run.params[name] for name in run.named if name.startswith("select.")]
    return [(one.confident_score, one.precision) for one in params]


def test_distill__thresholds_rise_by_round_and_the_last_one_stays(tmp_path):
    run, _ = climbed(tmp_path, thresholds=(0.8, 0.85, 0.9), **RISING, image_level_4=0.7, instance_level=0.8)
    assert selected_by(run) == [(0.8, 0), (0.85, 0), (0.9, 0), (0.9, 0), (0.9, 0)]


def test_distill__a_round_that_was_left_out_takes_no_threshold(tmp_path):
    reached = {**RISING, "image_level_2": 0.3}
    run, _ = climbed(tmp_path, thresholds=(0.8, 0.85, 0.9, 0.95), **reached, instance_level=0.8)
    assert selected_by(run) == [(0.8, 0), (0.85, 0), (0.9, 0)]


def test_distill__without_thresholds_the_expected_precision_decides(tmp_path):
    run, _ = climbed(tmp_path, **RISING, image_level_4=0.7, instance_level=0.8)
    assert set(selected_by(run)) == {(SelectParams().confident_score, SelectParams().precision)}


def test_selection__doubt_never_begins_above_trust():
    preset = PRESETS["cpu"]().model_copy(update={"thresholds": (0.2,)})
    assert preset.selection("image_level", number=0).doubtful_score == 0.2


@pytest.mark.parametrize(
    ("preset", "asked", "thresholds"),
    [("cpu", "", ()), ("cpu", "thresholds", (0.8, 0.85, 0.9, 0.95)), ("paper", "", (0.8, 0.85, 0.9, 0.95))]
    + [("paper", "precision", ())],
)
def test_configuration__takes_what_selects_from_the_options(preset, asked, thresholds):
    assert RunOptions(dataset="sample", preset=preset, selection=asked).configuration().thresholds == thresholds
