"""`make bench`: what a benchmark printed becomes a row of RESULTS.md."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from flows.endings import EXIT_USAGE

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


def test_printed_figures__lines_of_json_among_others():
    text = 'fetching …\n{"noop": {"ratio": 2.25}}\nwarning\n{"share": 0.5}\n'
    assert bench.printed_figures(text) == {"noop": {"ratio": 2.25}, "share": 0.5}


def test_figures_of__paths_and_digits():
    found = {"ours": {"s": 1.23456, "name": "a"}, "peer": {"s": 2}, "all": [1, 2], "none": None}
    assert list(bench.figures_of(found)) == [("ours.s", "1.235"), ("ours.name", "a"), ("peer.s", "2")]


def test_append_row__begins_the_table_once_and_keeps_what_is_there(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("# Measured\n\n| a |\n|---|\n| old |\n")
    for number in range(2):
        bench.append_row(path, command="python -m benchmarks.x --json", figures=f"a|b {number}")
    text = path.read_text()
    assert text.startswith("# Measured") and "| old |" in text
    assert text.count(bench._HEADING) == 1 and text.count("| date |") == 1
    rows = [line for line in text.splitlines() if "benchmarks.x" in line]
    assert [row.count(" | ") for row in rows] == [4, 4]
    assert re.match(r"\| 20\d\d-\d\d-\d\d \| ", rows[0]) and rows[1].endswith("| a/b 1 |")


def test_run_all__one_benchmark_from_its_process_to_its_row(tmp_path, capsys):
    bench.run_all(only=("house",), out=tmp_path / "RESULTS.md")
    row = (tmp_path / "RESULTS.md").read_text().splitlines()[-1]
    assert "`python -m benchmarks.house`" in row and "median function" in row
    assert json.dumps("house") not in capsys.readouterr().err


def test_short_forms__are_of_benchmarks_that_there_are():
    assert all(find_spec(f"benchmarks.{name}") for name in bench._SHORT)


def test_run_all__refuses_a_benchmark_that_there_is_not(tmp_path):
    with pytest.raises(ValueError, match=r"^only: expected benchmarks \(house, .*\), got nope$"):
        bench.run_all(only=("house", "nope"), out=tmp_path / "RESULTS.md")
    assert not (tmp_path / "RESULTS.md").exists()


@pytest.mark.parametrize("arguments", [("prune", "--dataset", "/nope"), ("__main__", "--nope")])
def test_a_benchmark__ends_with_one_line_and_2_where_its_input_is_wrong(arguments):
    command = [sys.executable, "-m", f"benchmarks.{arguments[0]}", *arguments[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USAGE
    assert re.fullmatch(r"error: .*/?nope.*\n", done.stderr) and "tally" not in done.stderr


def test_benchmarks__all_end_by_the_same_function():
    """But the one that runs in rpctool's own environment, without this project."""
    ends = {}
    for path in (ROOT / "benchmarks").glob("*.py"):
        _, _, end = path.read_text().partition('if __name__ == "__main__":\n')
        ends[path.stem] = end.strip()
    assert ends.pop("rpctool_runner") == "main()"
    assert {end.partition("(")[0] for end in ends.values() if end} == {"end_with_code"}
