"""Runs rpctool on evaluation cases, in rpctool's own environment: imports nothing of this project.

`python rpctool_runner.py CASES.json ANSWERS.json`: CASES is a list of {results, annotations, map, timed}; the answer to
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
    return {**last[best], "printed": {name: str(value) for name, value in printed.items()}}


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
    """Figures of one case by level; with "timed", also the seconds and the table of rpctool's public function."""
    results, annotations = case["results"], case["annotations"]
    reply: Record = {"levels": {}}
    evaluateByBbox.getMmap = False
    for level in LEVELS:
        part = of_level(annotations, level)
        if part["images"]:
            reply["levels"][level] = recorded_figures(results, part)
            if case["map"]:
                reply["levels"][level]["map"] = map_figures(results, part)
    if case["timed"]:
        started = time.perf_counter()
        reply["table"] = str(rpctool.evaluate(results, annotations, method="tally", log=False))
        reply["seconds"] = time.perf_counter() - started
    return reply


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([answer(case) for case in cases]))


if __name__ == "__main__":
    main()
