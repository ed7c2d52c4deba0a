"""The order of the stages when pseudo-labels are to weigh the views again, on a runner that computes nothing."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from flows.options import RunOptions
from flows.parts import stage_names
from flows.pipeline import Prepared, Synthesized, distill
from flows.presets import PRESETS
from storage.manifest import Manifest, ManifestRow

REPORT = ManifestRow(item_id="report")


def manifest(name):
    return Manifest(stage=name, key=name, url=f"memory://{name}", content_digest=name, rows=(REPORT,))


@dataclass
class RecordingRunner:
    asked: dict = field(default_factory=dict)
    store: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(url="memory://", read=lambda row: b"{}", list_files=lambda url: [])
    )

    def stage(self, name, params, **inputs):
        self.asked[name] = inputs
        return manifest(name)


def climb(preset):
    runner = RecordingRunner()
    names = ("catalog", "val", "test", "coarse", "network", "masks", "poses")
    pool = Manifest(
        stage="ingest", key="", url="", content_digest="pool", rows=(), content={"target_protocol": "unlabelled-target"}
    )
    prepared = Prepared(pool=pool, **{name: manifest(name) for name in names})
    synthesized = Synthesized(boards=manifest("board"), synthetic=manifest("compose"), rendered=manifest("render"))
    distill(runner, prepared=prepared, synthesized=synthesized, preset=preset)
    return runner.asked


@pytest.mark.parametrize("rounds", [1, 3])
def test_distill__feedback_weighs_views_by_the_first_rounds_pseudo_labels(rounds):
    preset = PRESETS["micro"]().model_copy(update={"feedback": True, "image_rounds": rounds})
    asked = climb(preset)
    first = "image_level" if rounds == 1 else "image_level_1"
    assert asked["prune.feedback"]["pseudo"].key == f"select.{first}"
    assert asked["compose.feedback"]["poses"].key == "prune.feedback"
    for name in (first, "image_level", "instance_level"):
        photos = [one.key for one in asked[f"train.{name}"]["photos"]]
        assert photos == ["compose.feedback", "render.feedback", f"select.{name}"]
    assert [one.key for one in asked["train.render"]["photos"]] == ["compose", "render"]


def test_distill__without_feedback_composes_once():
    asked = climb(PRESETS["micro"]())
    assert not [name for name in asked if name.endswith(".feedback")]


@pytest.mark.parametrize("feedback", [False, True])
def test_stage_names__are_those_that_distill_asks_for(feedback):
    preset = PRESETS["micro"]().model_copy(update={"feedback": feedback, "image_rounds": 2})
    assert list(climb(preset)) == [name for name in stage_names(preset) if name in climb(preset)]
    assert [name for name in stage_names(preset) if "feedback" in name] == [
        name for name in climb(preset) if "feedback" in name
    ]


def test_configuration__takes_feedback_from_the_options():
    assert RunOptions(dataset="sample", preset="micro", feedback=True).configuration().feedback
    assert not RunOptions(dataset="sample", preset="micro").configuration().feedback
