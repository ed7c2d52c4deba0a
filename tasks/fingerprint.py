"""Fingerprint of the code that a stage's result comes from; `python -m tasks.fingerprint` keeps the golden files.

The syntax tree, without comments and docstrings, of everything a stage function reaches in this project: its own module
and, through local imports, the functions, classes and constants that are used, and no others. So a change elsewhere in
a shared file changes no fingerprint. What carries stages (`FRAMEWORK`) has one fingerprint of its own.

A fingerprint is recorded in manifests and is no part of a key: only a raised `version` makes a stage run again. As a
program this writes the golden files that the tests compare with; see `--help`.

Boundary: reads source, imports no stage.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from storage.digest import digest_json
from tasks import params as stage_params
from tasks.params import StageParams

ROOTS = ("storage", "models", "tasks")
FRAMEWORK = frozenset({"tasks.stage", "tasks.context", "tasks.process", "tasks.mapping", "storage.store"})
_PROJECT = Path(__file__).parents[1]
GOLDEN = _PROJECT / "tests" / "tasks" / "fingerprints"
Node = tuple[str, str]
_UNCHANGED = "--outputs-unchanged"


def canonical_tree(node: ast.AST) -> list[object]:
    """A syntax tree as nested lists: no positions, docstrings or empty fields, so it is the same for all Pythons."""
    fields: list[object] = []
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            body = _without_docstring(node, value) if name == "body" else value
            value = [canonical_tree(one) if isinstance(one, ast.AST) else one for one in body]
        elif isinstance(value, ast.AST):
            value = canonical_tree(value)
        elif isinstance(node, ast.Constant) and name == "value":
            value = repr(value)
        if value not in (None, []):
            fields.append([name, value])
    return [type(node).__name__, *fields]


def _without_docstring(node: ast.AST, body: list[Any]) -> list[Any]:
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return body
    return body if ast.get_docstring(node, clean=False) is None else body[1:]


@cache
def _module_tree(module: str) -> ast.Module:
    tree = ast.parse(_file_of(module).read_text())
    tree.body = _without_docstring(tree, tree.body)
    return tree


def _file_of(module: str) -> Path:
    path = _PROJECT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _is_local(module: str) -> bool:
    # By files, not by import: a name inside a module is no module, and importing a stage costs seconds.
    return module.split(".", maxsplit=1)[0] in ROOTS and _file_of(module).is_file()


@cache
def _definitions(module: str) -> dict[str, list[ast.stmt]]:
    """The top-level statements of a module by the names that they bind; those that bind none under ""."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in _module_tree(module).body:
        for name in _bound_names(statement) or [""]:
            found.setdefault(name, []).append(statement)
    return found


def _bound_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in statement.names]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [node.id for one in targets if one is not None for node in ast.walk(one) if isinstance(node, ast.Name)]


def _is_type_checking(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)


def _imported(statement: ast.stmt, *, name: str | None = None) -> Iterator[Node]:
    """The local (module, name) pairs that an import makes known, as `name` if given; "*" stands for a whole module."""
    if isinstance(statement, ast.Import):
        yield from ((alias.name, "*") for alias in statement.names if _is_local(alias.name))
    elif isinstance(statement, ast.ImportFrom) and statement.module and statement.module.split(".")[0] in ROOTS:
        for alias in statement.names:
            if name in (None, alias.asname or alias.name):
                inner = f"{statement.module}.{alias.name}"
                yield (inner, "*") if _is_local(inner) else (statement.module, alias.name)


def _references(module: str, name: str, statement: ast.stmt) -> Iterator[Node]:
    """What the statement that binds `name` uses: names of its own module, and what it imports."""
    if _is_type_checking(statement):
        return
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from _imported(statement, name=name)
        return
    known = _definitions(module)
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and node.id in known:
            yield module, node.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _imported(node)


def reached_code(start: Node) -> dict[Node, list[ast.stmt]]:
    """The definitions that `start`, a (module, name), needs, by (module, name); framework modules are left out."""
    found: dict[Node, list[ast.stmt]] = {}
    waiting = [start]
    while waiting:
        module, name = waiting.pop()
        if (module, name) in found or module in FRAMEWORK or not _is_local(module):
            continue
        known = _definitions(module)
        if name == "*":
            found[module, name] = []
            waiting.extend((module, one) for one in known)
            continue
        found[module, name] = statements = known.get(name, [])
        # What binds no name, such as a call at import, may matter to everything in its module.
        waiting.extend(
            [(module, ""), *(one for statement in statements for one in _references(module, name, statement))]
        )
    return found


@cache
def stage_fingerprint(stage: str) -> str:
    """Fingerprint of a stage by its name: 16 hexadecimal digits; the stage function is `tasks.<stage>.<stage>`."""
    return _fingerprint(reached_code((f"tasks.{stage}", stage)))


@cache
def framework_fingerprint() -> str:
    """Fingerprint of the modules that carry every stage: 16 hexadecimal digits."""
    trees = {(module, "*"): [*_module_tree(module).body] for module in FRAMEWORK if _is_local(module)}
    return _fingerprint(trees)


def _fingerprint(code: dict[Node, list[ast.stmt]]) -> str:
    # Imports only say where names come from; what they reach is in the code itself.
    lines = [
        [module, name, canonical_tree(statement)]
        for (module, name), statements in sorted(code.items(), key=lambda one: one[0])
        for statement in statements
        if not isinstance(statement, (ast.Import, ast.ImportFrom)) and not _is_type_checking(statement)
    ]
    return digest_json(lines)[:16]


def params_classes() -> dict[str, type[StageParams]]:
    """The parameters of every stage by the stage's name."""
    classes = [value for value in vars(stage_params).values() if isinstance(value, type)]
    stages = [one for one in classes if issubclass(one, StageParams) and one is not StageParams]
    return {one.stage: one for one in sorted(stages, key=lambda one: one.stage)}


def golden(stage: str) -> dict[str, object]:
    """What the golden file of a stage says: its version and its fingerprint; empty where there is none."""
    path = GOLDEN / f"{stage}.json"
    return dict(orjson.loads(path.read_bytes())) if path.is_file() else {}


def complaint(stage: str, *, version: int) -> str:
    """What is wrong with a stage's golden file, with what to do about it; empty when nothing is."""
    known, fingerprint = golden(stage), stage_fingerprint(stage)
    if known == {"version": version, "fingerprint": fingerprint}:
        return ""
    if known.get("version") == version:
        return (
            f"stage {stage}: its code changed (expected fingerprint {known['fingerprint']}, got {fingerprint}) but not "
            f"its version {version}. If its outputs can change, raise `version` in tasks/params.py; if they can't, run "
            f"`python -m tasks.fingerprint {_UNCHANGED} {stage}`"
        )
    return (
        f"stage {stage}: expected version {known.get('version')}, got {version}; run `python -m tasks.fingerprint` "
        "to write its golden file"
    )


def update(*, unchanged: frozenset[str]) -> list[str]:
    """Write the golden files of stages with a new version and of those declared `unchanged`; returns the complaints."""
    complaints = []
    for stage, params in params_classes().items():
        wrong = complaint(stage, version=params.version)
        if wrong and golden(stage).get("version") == params.version and stage not in unchanged:
            complaints.append(wrong)
        elif wrong:
            body = {"version": params.version, "fingerprint": stage_fingerprint(stage)}
            (GOLDEN / f"{stage}.json").write_bytes(orjson.dumps(body) + b"\n")
    return complaints


def main() -> None:
    """Write the golden files; ends with 1 where code changed and nobody said what that means."""
    parser = argparse.ArgumentParser(description="Write the golden fingerprints of stages whose version was raised.")
    parser.add_argument(
        _UNCHANGED,
        dest="unchanged",
        nargs="*",
        metavar="STAGE",
        help="also of these (all, if none is named): their code changed, what they put out did not",
    )
    named = parser.parse_args().unchanged
    unchanged = frozenset(params_classes() if named == [] else named or ())
    complaints = update(unchanged=unchanged)
    print("\n".join(complaints) or "golden fingerprints are up to date")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
