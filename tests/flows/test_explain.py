from pathlib import Path

import pytest

from flows.explain import ExplainRunner, NothingToStandInError
from flows.runner import LocalRunner
from tests.flows.small_pipeline import COMPUTED, climb


def explained(store, former, *, refresh=(), **options):
    runner = ExplainRunner(store=store, former=former, refresh=frozenset(refresh))
    climb(runner, **options)
    return [(one.name, one.verdict, one.reason) for one in runner.verdicts]


@pytest.fixture
def former(store):
    runner = LocalRunner(store=store)
    climb(runner)
    COMPUTED.clear()
    return {name: result.manifest for name, result in runner.results.items()}


def test_explain_runner__everything_cached_is_a_hit(store, former):
    assert explained(store, former) == [("word", "hit", ""), ("upper", "hit", ""), ("length", "hit", "")]
    assert COMPUTED == []


def test_explain_runner__names_the_parameter_that_changed_and_what_depends_on_it(store, former):
    assert explained(store, former, exclamations=2) == [
        ("word", "hit", ""),
        ("upper", "miss", "parameter exclamations: 0 before, 2 now"),
        ("length", "depends", "on what source will be"),
    ]
    assert COMPUTED == []


def test_explain_runner__names_refreshed_damaged_and_lost_results(store, former):
    assert explained(store, former, refresh=["word"])[0] == ("word", "miss", "refresh asks for it")
    text = Path(former["upper"].removeprefix("file://")).parent / "text.txt"
    text.write_bytes(b"tee")
    assert explained(store, former)[1] == ("upper", "miss", "1 of 1 files gone or damaged, first text")
    Path(former["upper"].removeprefix("file://")).unlink()
    with pytest.raises(NothingToStandInError):
        explained(store, former)


def test_explain_runner__says_that_a_stage_never_ran(store):
    runner = ExplainRunner(store=store, former={})
    with pytest.raises(NothingToStandInError):
        climb(runner)
    assert [(one.name, one.reason) for one in runner.verdicts] == [("word", "never run before under this name")]
