import json

import pytest

from flows.cli import EXIT_USAGE, app
from tests.flows.conftest import tally

COMMANDS = {"catalog", "gc", "run", "predict", "export", "serve", "evaluate", "status", "inspect"}


def test_app__has_these_commands_and_each_has_help():
    names = {name for name in app if not name.startswith("-")}
    assert names == COMMANDS
    assert all(app[name].help for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--dataset", "nowhere"), "does not exist"),
        (("run", "--dataset", ".", "--preset", "huge"), "huge"),
        (("predict", "nothing-here"), "expected a run under"),
        (("status",), "expected a run under"),
        (("evaluate", "--results", "r.json", "--annotations", "a.json"), "does not exist"),
    ],
)
def test_main__says_what_is_wrong_and_ends_with_2(arguments, message, tmp_path):
    done = tally(*arguments, folder=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


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
