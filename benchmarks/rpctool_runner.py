"""Runs rpctool on evaluation cases, in rpctool's own environment: imports nothing of this project.

`python rpctool_runner.py CASES.json ANSWERS.json`: CASES is a list of {results, annotations, timed}; the answer to
each has, for every level, the unrounded figures, or the error with which rpctool stops.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import rpctool
from rpctool.evaluate_v1 import evaluateByBbox
from rpctool.evaluate_v1.evaluateMap import evalMap

LEVELS = ("easy", "medium", "hard", "averaged")
POINTS = 10
Record = dict[str, Any]


def recorded_figures(results: list[Record], annotations: Record) -> Record:
    """The figures of the row rpctool picks, before it rounds them: those of its last ten tries with the best cAcc."""
    tries = []
    original = evaluateByBbox.evaluate

    def recorder(*arguments: Any, **options: Any) -> Record:  # noqa: ANN401 - passed on as they come
        figures = original(*arguments, **options)
        tries.append({name: float(value) for name, value in figures.items()})
        return figures

    evaluateByBbox.evaluate = recorder
    try:
        printed = evaluateByBbox.evaluateByJson(results, annotations)
    except (IndexError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        evaluateByBbox.evaluate = original
    last = tries[-POINTS:]
    best = max(range(POINTS), key=lambda place: (last[place]["cAcc"], -place))
    return {
        **last[best],
        "printed": {name: value if isinstance(value, str) else float(value) for name, value in printed.items()},
    }


def of_level(annotations: Record, level: str) -> Record:
    """The annotation file with the photos of one level only."""
    if level == "averaged":
        return annotations
    images = [image for image in annotations["images"] if image["level"] == level]
    known = {image["id"] for image in images}
    kept = [one for one in annotations["annotations"] if one["image_id"] in known]
    return {**annotations, "images": images, "annotations": kept}


def map_figures(results: list[Record], annotations: Record) -> Record:
    """mAP50 and mmAP by pycocotools as rpctool calls it, or the error with which it stops."""
    try:
        found = evalMap(copy.deepcopy(annotations), copy.deepcopy(results))
    except (IndexError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {name: float(value) for name, value in found.items()}


def answer(case: Record) -> Record:
    """Figures of one case by level; with "timed", out of one call of rpctool's public function, with its seconds."""
    evaluateByBbox.getMmap = False
    if case["timed"]:
        return timed_answer(case["results"], case["annotations"])
    levels = {}
    for level in LEVELS:
        part = of_level(case["annotations"], level)
        if part["images"]:
            levels[level] = recorded_figures(case["results"], part)
            levels[level]["map"] = map_figures(case["results"], part)
    return {"levels": levels}


def timed_answer(results: list[Record], annotations: Record) -> Record:
    """The figures, rounded and not, of rpctool's public function, and the seconds it took."""
    levels = {}
    original = evaluateByBbox.evaluateByJson

    def recorder(results: list[Record], annotations: Record) -> Record:
        found = {image["level"] for image in annotations["images"]}
        level = found.pop() if len(found) == 1 else "averaged"
        evaluateByBbox.evaluateByJson = original
        levels[level] = recorded_figures(results, annotations)
        evaluateByBbox.evaluateByJson = recorder
        return levels[level]["printed"]

    evaluateByBbox.evaluateByJson = recorder
    started = time.perf_counter(), time.process_time()
    rpctool.evaluate(results, annotations, method="tally", log=False)
    seconds = {"wall": time.perf_counter() - started[0], "processor": time.process_time() - started[1]}
    return {"levels": levels, "seconds": seconds}


def main() -> None:
    """Answer the cases of the file named first into the file named second."""
    cases = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([answer(case) for case in cases]))


if __name__ == "__main__":
    main()
