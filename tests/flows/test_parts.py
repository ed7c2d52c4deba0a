import pytest

from flows.parts import Part, PartDoneError, PartRunner, part_of, stage_names
from flows.presets import PRESETS
from flows.runner import LocalRunner
from tests.flows.small_pipeline import COMPUTED, climb

MICRO = PRESETS["micro"]()


def part(first="", last="", only="", refresh=()):
    return part_of(MICRO, first=first, last=last, only=only, refresh=refresh)


def test_part_of__without_names_is_everything():
    assert part() == Part(computed=frozenset(stage_names(MICRO)))


def test_part_of__a_kind_means_all_its_places():
    assert part(refresh=["train"]).refresh == {
        f"train.{rung}" for rung in ("source", "render", "image_level", "instance_level")
    }
    assert part(last="train").last == "train.instance_level"
    assert "train.source" in part(first="train").computed and "render" not in part(first="train").computed
    assert part(only="prune").computed == {"prune"}


@pytest.mark.parametrize("option", [{"first": "trian"}, {"last": "train.x"}, {"refresh": ["segments"]}])
def test_part_of__refuses_what_is_no_stage(option):
    with pytest.raises(ValueError, match="expected a stage .*segment.* got"):
        part(**option)


def test_part_runner__stops_after_the_last_stage(store):
    runner = LocalRunner(store=store)
    with pytest.raises(PartDoneError, match="upper"):
        climb(PartRunner(inner=runner, part=Part(computed=frozenset({"word", "upper"}), last="upper")))
    assert COMPUTED == ["word", "upper"]


def test_part_runner__stops_before_what_comes_after_a_last_stage_that_the_run_does_not_have(store):
    part = Part(computed=frozenset({"word", "upper", "length"}), last="colour", beyond=frozenset({"length"}))
    with pytest.raises(PartDoneError, match="colour"):
        climb(PartRunner(inner=LocalRunner(store=store), part=part))
    assert COMPUTED == ["word", "upper"]


def test_part_of__knows_what_comes_after_the_last():
    names = stage_names(MICRO)
    assert part(last="render").beyond == set(names[names.index("render") + 1 :])
    assert part().beyond == frozenset()


def test_part_runner__does_not_compute_what_comes_before(store):
    only = Part(computed=frozenset({"upper"}), last="upper")
    with pytest.raises(ValueError, match="word: expected its result in the store.*--from word"):
        climb(PartRunner(inner=LocalRunner(store=store), part=only))
    climb(LocalRunner(store=store))
    COMPUTED.clear()
    with pytest.raises(PartDoneError):
        climb(PartRunner(inner=LocalRunner(store=store), part=only), exclamations=3)
    assert COMPUTED == ["upper"]
