"""What keeps the code readable, measured; `python -m benchmarks.house` prints it, and `pytest -s` of this file."""

from pathlib import Path

import pytest

from benchmarks.house import drawn_graph, functions_of, import_graph, measured, source_files, undocumented

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
BUDGETS = {"longest file": 600, "median function": 15, "90th percentile": 45, "longest function": 100}


@pytest.fixture(scope="module")
def figures():
    found = measured()
    print("\n" + "\n".join(f"{name:<22}{value:.10g}" for name, value in found.items()))
    return found


@pytest.mark.parametrize("name", BUDGETS)
def test_lengths__stay_within_their_budget(name, figures):
    assert figures[name] <= BUDGETS[name]


@pytest.fixture(scope="module")
def functions():
    return [one for path in source_files() for one in functions_of(path)]


def test_functions__are_annotated(functions):
    assert [one.place for one in functions if not one.annotated] == []


def test_public_names__are_documented():
    assert [name for path in source_files() for name in undocumented(path)] == []


def test_functions_of_arrays__say_their_shapes(functions):
    assert [one.place for one in functions if one.public and one.shaped is False] == []


def test_functions_of__measures_what_it_says(tmp_path):
    (tmp_path / "one.py").write_text(
        '"""Doc."""\n\n\ndef short(a: int) -> int:\n    """Doc."""\n    return a\n\n\n'
        "class Named:\n    def bare(self, x):\n        def inner(y): ...\n        return inner\n\n\n"
        'def grey(photo: NDArray) -> None:\n    """Doc."""\n\n\n'
        'def mask(photo_HW3: NDArray) -> None:\n    """Doc."""\n'
    )
    short, bare, inner, grey, mask = functions_of(tmp_path / "one.py")
    assert (short.lines, short.annotated, short.documented, short.shaped) == (3, True, True, None)
    assert (bare.lines, bare.annotated, bare.documented, bare.public, inner.public) == (3, False, False, True, False)
    assert (grey.shaped, mask.shaped) == (False, True)
    assert [one.rsplit(": ")[1] for one in undocumented(tmp_path / "one.py")] == ["bare", "Named"]


def test_import_graph__is_the_one_that_is_drawn():
    assert drawn_graph(import_graph()) in (ROOT / "CONTRIBUTING.md").read_text()
