import ast

import pytest

from tasks import fingerprint
from tasks.fingerprint import canonical_tree, complaint, params_classes, reached_code, stage_fingerprint, update

pytestmark = pytest.mark.long


@pytest.mark.parametrize("stage", sorted(params_classes()))
def test_golden__a_changed_stage_has_a_new_version_or_is_declared_unchanged(stage):
    wrong = complaint(stage, version=params_classes()[stage].version)
    assert not wrong, wrong


SOURCE = '"""Text."""\n\ndef f(a):\n    """Doc."""\n    return a + 1  # why\n'


def tree(source):
    return canonical_tree(ast.parse(source))


def test_canonical_tree__ignores_comments_docstrings_and_layout():
    assert tree(SOURCE) == tree("def f(a):\n\n    return (a +\n 1)\n")


@pytest.mark.parametrize("changed", ["a + 2", "a - 1", "b + 1", "a + 1.0", "a + '1'"])
def test_canonical_tree__sees_every_change_of_meaning(changed):
    assert tree(SOURCE) != tree(SOURCE.replace("a + 1", changed))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one stage that uses one helper of a file with two."""
    files = {
        "tasks/paint.py": "from storage.tools import mix\ndef paint():\n    from models import net\n    return mix()",
        "storage/tools.py": "SHARE = 2\n\ndef mix():\n    return SHARE\n\ndef other():\n    return 1\n",
        "models/net.py": "DEPTH = 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(fingerprint, "_PROJECT", tmp_path)
    monkeypatch.setattr(fingerprint, "GOLDEN", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget():
    for cached in (fingerprint._module_tree, fingerprint._definitions, stage_fingerprint):
        cached.cache_clear()


def change(path, old, new):
    before = stage_fingerprint("paint")
    path.write_text(path.read_text().replace(old, new))
    forget()
    return stage_fingerprint("paint") != before


@pytest.mark.parametrize(
    ("name", "old", "new", "matters"),
    [
        ("storage/tools.py", "SHARE = 2", "SHARE = 3", True),
        ("storage/tools.py", "SHARE = 2", "# twice\nSHARE = 2", False),
        ("storage/tools.py", "SHARE = 2", '"""Tools."""\n\nSHARE = 2', False),
        ("storage/tools.py", "return 1", "return 2", False),
        ("models/net.py", "3", "4", True),
        ("tasks/paint.py", "return mix()", "return -mix()", True),
    ],
)
def test_stage_fingerprint__follows_what_is_used_over_local_imports(project, name, old, new, matters):
    assert change(project / name, old, new) == matters


def test_reached_code__stops_at_what_carries_stages():
    modules = {module for module, _ in reached_code(("tasks.segment", "segment"))}
    assert {"tasks.segment", "models.saliency", "storage.images"} <= modules
    assert not modules & fingerprint.FRAMEWORK


def test_update__refuses_a_changed_stage_until_its_version_is_raised_or_it_is_declared_unchanged(project, monkeypatch):
    paint = type("Paint", (), {"version": 1})
    monkeypatch.setattr(fingerprint, "params_classes", lambda: {"paint": paint})
    assert update(unchanged=frozenset()) == [] and complaint("paint", version=1) == ""
    assert change(project / "storage/tools.py", "SHARE = 2", "SHARE = 3")
    [refused] = update(unchanged=frozenset())
    assert "--outputs-unchanged paint" in refused and "raise `version`" in refused
    assert update(unchanged=frozenset({"paint"})) == [] and complaint("paint", version=1) == ""
    paint.version = 2
    assert "expected version 1, got 2" in complaint("paint", version=2)
    assert update(unchanged=frozenset()) == [] and complaint("paint", version=2) == ""
