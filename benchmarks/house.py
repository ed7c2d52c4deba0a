"""The code in figures: lengths of functions and files, annotations, docstrings, shapes, and who imports whom.

    python -m benchmarks.house [--graph] [--json]

`--graph` prints the import graph of the folders as a Mermaid drawing, as `CONTRIBUTING.md` shows it; tests hold both.
Lengths are lines from `def` to the end, docstring included. Functions of arrays say their shapes in the names of their
arguments (`mask_hw`, `boxes_N4`), in the docstring (`[B, 3, H, W]`, xyxy, pixels), or in the legend of their module.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.endings import end_with_code

FOLDERS = ("benchmarks", "flows", "inspector", "tasks", "models", "storage")
_ROOT = Path(__file__).parents[1]
# Of named tensors, such as a network's state, each has a shape of its own.
_ARRAYS = re.compile(r"(?<!str, )\b(Tensor|NDArray|Photo|Mask|Plane|Floats)\b")
_SHAPED_NAME = re.compile(r"_([A-Z]+\d*|hw\d?|\d+)+[a-z]{0,2}\d?(_lab)?$")
_SHAPES = re.compile(
    r"\[[^\]]*\b[\w+ /()]+(, [^\]]*)?\]|\b\d?[A-Z]x[A-Z\d]|[A-Z]×[A-Z]|xyxy|pixel|height|grid|\beach\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function or method: where it stands, how long it is, and what it says of itself.

    `public`: callable from elsewhere by its name, no part of another function. `shaped`: whether it says the shapes of
    the arrays it takes or gives; None where it has none.
    """

    place: str
    name: str
    lines: int
    public: bool
    annotated: bool
    documented: bool
    shaped: bool | None


def source_files(root: Path = _ROOT) -> list[Path]:
    """The Python files of the product and its benchmarks."""
    return sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))


def functions_of(path: Path) -> list[Function]:
    """All functions and methods of a file."""
    tree = ast.parse(path.read_text())
    legend = _SHAPES.search(ast.get_docstring(tree) or "") is not None
    return [_function(node, place=str(path), public=public, legend=legend) for node, public in _definitions(tree)]


def _definitions(
    node: ast.AST, *, public: bool = True
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    """Every function under a node, and whether it is public there."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child, public and not child.name.startswith("_")
            yield from _definitions(child, public=False)
        else:
            private = isinstance(child, ast.ClassDef) and child.name.startswith("_")
            yield from _definitions(child, public=public and not private)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, *, place: str, public: bool, legend: bool) -> Function:
    listed = node.args
    named = [*listed.posonlyargs, *listed.args, *listed.kwonlyargs, *filter(None, (listed.vararg, listed.kwarg))]
    taken = [one for one in named if one.arg not in ("self", "cls")]
    notes = [ast.unparse(one.annotation) for one in taken if one.annotation is not None]
    given = "" if node.returns is None else ast.unparse(node.returns)
    shapes = legend or _SHAPES.search(ast.get_docstring(node) or "") is not None
    shapes = shapes or any(_SHAPED_NAME.search(one.arg) for one in taken)
    return Function(
        place=f"{place}:{node.lineno}",
        name=node.name,
        lines=(node.end_lineno or node.lineno) - node.lineno + 1,
        public=public,
        annotated=len(notes) == len(taken) and bool(given),
        documented=ast.get_docstring(node) is not None,
        shaped=shapes if any(_ARRAYS.search(note) for note in (*notes, given)) else None,
    )


def undocumented(path: Path) -> list[str]:
    """Names of what is public in a file and has no docstring; the file itself is one of them."""
    tree = ast.parse(path.read_text())
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef) and not one.name.startswith("_")]
    lacking = [one.name for one in functions_of(path) if one.public and not one.documented]
    lacking += [one.name for one in classes if ast.get_docstring(one) is None]
    return [f"{path}: {name}" for name in ([] if ast.get_docstring(tree) else ["the module"]) + lacking]


def imports_of(path: Path) -> Counter[str]:
    """How often a file imports from each of the project's folders."""
    tree = ast.parse(path.read_text())
    names = [one.module or "" for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
    names += [alias.name for one in ast.walk(tree) if isinstance(one, ast.Import) for alias in one.names]
    return Counter(folder for name in names if (folder := name.split(".")[0]) in FOLDERS)


def import_graph(root: Path = _ROOT) -> dict[str, list[str]]:
    """The folders that each folder imports from, itself left out."""
    graph: dict[str, set[str]] = {folder: set() for folder in FOLDERS}
    for path in source_files(root):
        folder = path.relative_to(root).parts[0]
        graph[folder] |= set(imports_of(path)) - {folder}
    return {folder: sorted(found, key=FOLDERS.index) for folder, found in graph.items()}


def drawn_graph(graph: dict[str, list[str]]) -> str:
    """The import graph as Mermaid draws it."""
    arrows = [f"    {folder} --> {other}" for folder, others in graph.items() for other in others]
    return "\n".join(["graph TD", *arrows])


def measured(root: Path = _ROOT) -> dict[str, float | int]:
    """Every figure that has a budget in `tests/test_budgets.py`."""
    files = source_files(root)
    functions = [one for path in files for one in functions_of(path)]
    lengths = sorted(one.lines for one in functions)
    public = [one for one in functions if one.public]
    shaped = [one.shaped for one in public if one.shaped is not None]
    lines = [len(path.read_text().splitlines()) for path in files]
    return {
        "files": len(files),
        "lines": sum(lines),
        "longest file": max(lines),
        "functions": len(functions),
        "median function": statistics.median(lengths),
        "90th percentile": statistics.quantiles(lengths, n=10)[-1],
        "longest function": lengths[-1],
        "annotated": sum(one.annotated for one in functions) / len(functions),
        "without docstring": sum(len(undocumented(path)) for path in files),
        "of arrays": len(shaped),
        "of those with shapes": sum(shaped) / len(shaped),
    }


def main() -> None:
    """Print the figures, or the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", action="store_true", help="the import graph of the folders, for Mermaid")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of a table")
    options = parser.parse_args()
    if options.graph:
        print(drawn_graph(import_graph()))
    elif options.json:
        print(json.dumps(measured()))
    else:
        for name, value in measured().items():
            print(f"{name:<22}{value:.3f}" if isinstance(value, float) else f"{name:<22}{value}")


if __name__ == "__main__":
    end_with_code(main)
