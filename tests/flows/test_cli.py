import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pyarrow.parquet as pq
import pytest

from flows import cli
from flows.cli import app
from flows.endings import EXIT_USAGE, end_with_code
from storage.images import encode_png
from tests.commands import tally

pytestmark = pytest.mark.long

COMMANDS = {
    "verify",
    "automations",
    "champion",
    "retrain",
    "catalog",
    "gc",
    "run",
    "predict",
    "export",
    "serve",
    "evaluate",
    "status",
    "inspect",
}


def test_app__has_these_commands_and_each_has_help():
    names = {name for name in app if not name.startswith("-")}
    assert names == COMMANDS
    assert all(app[name].help for name in names)


def test_version__is_that_of_the_distribution(capsys):
    app("--version")
    assert capsys.readouterr().out.strip() == version("tally-checkout")


@pytest.fixture
def refusal(monkeypatch, capsys):
    """What the command, run in a folder, says before it ends with 2; here, as a process would import for seconds."""
    # That is for a process which ends with its command: it would catch signals of this one and of all that it forks.
    monkeypatch.setattr(cli, "end_on_signals", lambda: None)

    def refusal_of(*arguments, folder):
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as end:
            end_with_code(lambda: app(arguments, exit_on_error=False, print_error=False))
        assert end.value.code == EXIT_USAGE
        return " ".join(capsys.readouterr().err.split())

    return refusal_of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--dataset", "nowhere"), "does not exist"),
        (("run", "--dataset", ".", "--preset", "huge"), "huge"),
        (("predict", "nothing-here"), "expected a run under"),
        (("status",), "expected a run under"),
        (("serve", "--model", "broken.onnx"), "expected an ONNX file"),
        (("serve", "--model", "broken.onnx", "--host", "0.0.0.0"), "expected --token-file when listening beyond"),
        (("export", "--model", "broken.onnx", "--photos", "."), "exported already"),
        (("evaluate", "--results", "r.json", "--annotations", "a.json"), "does not exist"),
    ],
)
def test_main__says_what_is_wrong_and_ends_with_2(arguments, message, refusal, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert message in refusal(*arguments, folder=tmp_path)


def test_main__a_process_ends_with_one_line_and_2(tmp_path):
    done = tally("status", folder=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_evaluate__prints_tables_of_both_protocols(tmp_path):
    annotations = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9, "level": "easy"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "tea", "supercategory": "drinks"}],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 0.9}]
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    (tmp_path / "r.json").write_text(json.dumps(results))
    done = tally("evaluate", "--results", "r.json", "--annotations", "a.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "honest" in done.stdout and "tuned on test" in done.stdout and "100.0%" in done.stdout
    printed = tally("evaluate", "--results", "r.json", "--annotations", "a.json", "--json", folder=tmp_path).stdout
    assert json.loads(printed)["honest"]["easy"]["cAcc"] == 1.0


@pytest.fixture
def evaluated(tmp_path):
    """A folder with annotations, results and photos of which one product was taken for another."""
    annotations = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "width": 40, "height": 30, "level": level}
            for n, level in enumerate(("easy", "hard"), start=1)
        ],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 20, 20]} for n in (1, 2)],
        "categories": [{"id": 1, "name": "tea"}, {"id": 2, "name": "oats"}],
    }
    results = [
        {"image_id": n, "category_id": n, "bbox": [2, 2, 20, 20], "score": score} for n, score in ((1, 0.4), (2, 0.3))
    ]
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    (tmp_path / "r.json").write_text(json.dumps(results))
    for n in (1, 2):
        (tmp_path / f"{n}.png").write_bytes(encode_png(np.full((30, 40, 3), 90, np.uint8)))
    return tmp_path


def test_evaluate__the_threshold_comes_from_val_and_the_analysis_goes_to_a_folder(evaluated):
    files = ("--results", "r.json", "--annotations", "a.json")
    val = ("--val-results", "r.json", "--val-annotations", "a.json")
    done = tally("evaluate", *files, *val, "--out", "what", "--photos", ".", "--json", folder=evaluated)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert 0 < report["threshold"] < 0.5 and report["warnings"] == []
    written = {str(path.relative_to(evaluated / "what")) for path in (evaluated / "what").rglob("*.*")}
    assert written >= {"report.json", "plots/confusions.png", "plots/reliability.svg", "tables/mistakes.parquet"}
    assert json.loads((evaluated / "what/report.json").read_text())["error_kinds"]["wrong SKU"] == 1
    assert pq.read_table(evaluated / "what/tables/accuracy_by_items.parquet").to_pylist() == [
        {"products": 1, "photos": 2, "cAcc": 0.5}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--val-results", "r.json"), "expected both --val-results and --val-annotations"),
        (("--val-results", "r.json", "--val-annotations", "a.parquet"), "got both kinds"),
        (("--out", "what", "--photos", "nowhere"), "expected the folder of the annotated photos"),
        (("--threshold", "50"), "threshold: expected 0 to 1, got 50"),
    ],
)
def test_evaluate__says_what_is_wrong_with_its_options(evaluated, refusal, arguments, message):
    files = ("--results", "r.json", "--annotations", "a.json")
    assert message in refusal("evaluate", *files, *arguments, folder=evaluated)


def test_cli__brings_nothing_that_a_run_with_nothing_to_do_would_wait_for():
    heavy = ("torch", "prefect", "scipy", "pandas", "jinja2", "matplotlib", "kornia", "distributed", "duckdb")
    code = f"import sys, flows.cli; print(*sorted(sys.modules.keys() & {set(heavy)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
