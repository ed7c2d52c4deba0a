"""The order of the stages when pseudo-labels are to weigh the views again, on a runner that computes nothing."""

from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace

import pytest

from flows.options import RunOptions
from flows.parts import stage_names
from flows.pipeline import Prepared, Synthesized, distill, image_rounds
from flows.presets import PRESETS
from storage.digest import canonical_json
from storage.manifest import Manifest, ManifestRow


def manifest(name):
    report = ManifestRow(item_id="report", digest=name)
    return Manifest(stage=name, key=name, url=f"memory://{name}", content_digest=name, rows=(report,))


def rising_store():
    """Every report that is read is better than the one before, so that no round is left out."""
    reached = count()

    def read(row):
        return canonical_json({"val": {"averaged": {"cAcc": next(reached) / 100, "ACD": 0.0}}})

    return SimpleNamespace(url="memory://", read=read, list_files=lambda url: [])


@dataclass
class RecordingRunner:
    asked: dict = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    store: SimpleNamespace = field(default_factory=rising_store)

    def stage(self, name, params, **inputs):
        self.asked[name], self.params[name] = inputs, params
        return manifest(name)


def climbed(preset):
    runner = RecordingRunner()
    names = ("catalog", "val", "test", "coarse", "network", "masks", "poses")
    pool = Manifest(
        stage="ingest", key="", url="", content_digest="pool", rows=(), content={"target_protocol": "unlabelled-target"}
    )
    prepared = Prepared(pool=pool, **{name: manifest(name) for name in names})
    synthesized = Synthesized(boards=manifest("board"), synthetic=manifest("compose"), rendered=manifest("render"))
    distill(runner, prepared=prepared, synthesized=synthesized, preset=preset)
    return runner


def climb(preset):
    return climbed(preset).asked


@pytest.mark.parametrize("rounds", [1, 3])
def test_distill__feedback_weighs_views_by_the_first_rounds_pseudo_labels(rounds):
    preset = PRESETS["micro"]().model_copy(update={"feedback": True, "image_rounds": rounds})
    asked = climb(preset)
    first = "image_level"
    assert asked["prune.feedback"]["pseudo"].key == f"select.{first}"
    assert asked["compose.feedback"]["poses"].key == "prune.feedback"
    assert asked["compose.feedback"]["pseudo"].key == f"select.{first}"
    assert asked["compose.feedback"]["composed"].key == "compose"
    for name in (*image_rounds(preset), "instance_level"):
        photos = [one.key for one in asked[f"train.{name}"]["photos"]]
        assert photos == ["compose.feedback", "render.feedback", f"select.{name}", f"paste.{name}"]
    assert [one.key for one in asked["train.render"]["photos"]] == ["compose", "render"]


def test_distill__photos_with_further_items_take_a_part_of_the_pools_share():
    preset = PRESETS["micro"]()
    runner = climbed(preset)
    assert runner.asked["paste.image_level"]["pseudo"].key == "select.image_level"
    *others, pool = preset.train["image_level"].mix
    given = runner.params["train.image_level"].mix
    assert given == pytest.approx((*others, pool * (1 - preset.paste_share), pool * preset.paste_share))


def test_distill__a_share_of_0_pastes_nothing():
    preset = PRESETS["micro"]().model_copy(update={"paste_share": 0.0})
    runner = climbed(preset)
    assert not [name for name in runner.asked if name.startswith("paste")]
    assert runner.params["train.image_level"].mix == preset.train["image_level"].mix


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
