"""The stages that the renderer `auto` asks for, on a runner that computes nothing."""

import pytest

from flows.options import RunOptions
from flows.parts import stage_names
from flows.presets import PRESETS
from flows.renderers import chosen_renderer, render_stage_names, rendered_photos
from storage.manifest import Manifest, ManifestRow
from tasks.params import ChooseParams
from tests.flows.test_feedback import RecordingRunner, manifest

AUTO = RunOptions(dataset="sample", preset="micro", renderer="auto").configuration()
TWICE = AUTO.model_copy(update={"trials": 2})


class ParamsRunner(RecordingRunner):
    def stage(self, name, params, **inputs):
        super().stage(name, params, **inputs)
        self.params = {**getattr(self, "params", {}), name: params}
        return manifest(name)


def rendered(preset):
    runner = ParamsRunner()
    rendered_photos(
        runner, synthetic=manifest("compose"), pool=manifest("ingest.pool"), val=manifest("ingest.val"), preset=preset
    )
    return runner


def test_rendered_photos__a_named_renderer_is_one_stage():
    assert list(rendered(PRESETS["micro"]()).asked) == ["render"]


def test_rendered_photos__auto_judges_every_candidate_by_the_same_trainings_on_val():
    runner = rendered(TWICE)
    assert list(runner.asked) and set(runner.asked) == set(render_stage_names(TWICE))
    for number in (0, 1):
        trials = [runner.params[f"train.trial.{name}.{number}"] for name in AUTO.renderers]
        assert all(one == trials[0] and one.steps == AUTO.trial_steps and one.seed == number for one in trials)
    for name in AUTO.renderers:
        assert runner.params[f"render.{name}"].renderer == name
        assert [one.key for one in runner.asked[f"train.trial.{name}.1"]["photos"]] == [f"render.{name}"]
        judged = runner.asked[f"evaluate.trial.{name}.1"]
        assert {one.key for one in judged.values()} == {"ingest.val", f"predict.trial.{name}.1.val"}
    assert runner.params["render"] == ChooseParams(renderers=AUTO.renderers)
    assert [one.key for one in runner.asked["render"]["rendered"]] == [f"render.{name}" for name in AUTO.renderers]
    assert [one.key for one in runner.asked["render"]["reports"]] == [
        f"evaluate.trial.{name}.{number}" for name in AUTO.renderers for number in (0, 1)
    ]


@pytest.mark.parametrize("preset", [AUTO, TWICE])
def test_stage_names__know_the_trials(preset):
    names = stage_names(preset)
    assert [name for name in names if "trial" in name or name.split(".")[0] == "render"] == render_stage_names(preset)


def test_chosen_renderer__is_what_the_table_says():
    row = ManifestRow(item_id="renderers", attributes={"chosen": "fastcut"})
    photos = Manifest(stage="choose", key="", url="", content_digest="", rows=(row,))
    assert chosen_renderer(AUTO.render, rendered=photos).renderer == "fastcut"
    named = PRESETS["micro"]().render
    assert chosen_renderer(named, rendered=photos) is named


def test_run_options__refuse_a_renderer_that_is_none():
    with pytest.raises(ValueError, match=r"renderer\n.*'cyclegan', 'fastcut', .* 'auto' or ''"):
        RunOptions(dataset="sample", preset="micro", renderer="magic")
