"""Side by side with rpctool 0.1.6: equal figures on random and on odd inputs, and the times at RPC's size.

    python -m benchmarks.evaluate [--photos 24000] [--json]

rpctool runs in an environment of its own, made on the first run with the ordinary pip under the user's cache folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.endings import end_with_code
from tasks.coco_map import coco_map
from tasks.evaluate import figure_text
from tasks.evaluation_set import by_level, from_coco
from tasks.rpctool_protocol import compat_metrics

PINNED = ("rpctool==0.1.6", "pandas==2.3.3", "numpy==2.4.6", "pycocotools==2.0.11")
RUNNER = Path(__file__).with_name("rpctool_runner.py")
FIGURES = ("cAcc", "ACD", "mCCD", "mCIoU")
LEVELS = ("easy", "medium", "hard")
Case = dict[str, Any]


def rpctool_python() -> Path:
    """The interpreter of the environment that holds rpctool; made if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "tally" / "benchmarks" / "-".join(PINNED).replace("==", "-")
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        print(f"installing {', '.join(PINNED)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINNED], check=True)
        done.touch()
    return python


def made_case(
    rng: np.random.Generator,
    *,
    photos: int,
    classes: int,
    items: tuple[int, int] = (3, 20),
    extra: float = 0.1,
    levels: tuple[str, ...] = LEVELS,
) -> Case:
    """RPC-like truth and detections: some missed, some of a wrong class, `extra` a product more of low score."""
    counts_N = rng.integers(items[0], items[1] + 1, size=photos)
    photo_T = np.repeat(np.arange(1, photos + 1), counts_N)
    class_T = rng.integers(1, classes + 1, size=len(photo_T))
    boxes_T4 = np.concatenate(
        [rng.uniform(0, 1500, (len(photo_T), 2)), rng.uniform(60, 300, (len(photo_T), 2))], axis=1
    )
    found_T = rng.random(len(photo_T)) < 0.985
    class_D = np.where(rng.random(len(photo_T)) < 0.02, rng.integers(1, classes + 1, size=len(photo_T)), class_T)
    score_D, boxes_D4 = rng.beta(9, 1, size=len(photo_T)), boxes_T4 + rng.normal(0, 6, boxes_T4.shape)
    stray_D = rng.random(len(photo_T)) < extra
    detections = [
        *_records(photo_T[found_T], class_D[found_T], boxes_D4[found_T], score_D=score_D[found_T]),
        *_records(photo_T[stray_D], class_T[stray_D], boxes_D4[stray_D] + 150, score_D=rng.beta(1, 4, stray_D.sum())),
    ]
    truth = [
        {"id": place, "iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3], **one}
        for place, one in enumerate(_records(photo_T, class_T, boxes_T4, score_D=None), start=1)
    ]
    images = [
        {"id": index, "file_name": f"{index}.jpg", "width": 1850, "height": 1850, "level": levels[index % len(levels)]}
        for index in range(1, photos + 1)
    ]
    categories = [{"id": index, "name": str(index)} for index in range(1, classes + 1)]
    annotations = {"images": images, "annotations": truth, "categories": categories}
    return {"results": detections, "annotations": annotations, "timed": False}


def _records(
    photo_M: np.ndarray, class_M: np.ndarray, boxes_M4: np.ndarray, *, score_D: np.ndarray | None
) -> list[dict[str, Any]]:
    columns = zip(photo_M.tolist(), class_M.tolist(), boxes_M4.tolist(), strict=True)
    records = [{"image_id": photo, "category_id": index, "bbox": box} for photo, index, box in columns]
    if score_D is None:
        return records
    return [{**record, "score": score} for record, score in zip(records, score_D.tolist(), strict=True)]


def odd_cases(rng: np.random.Generator) -> dict[str, Case]:
    """Inputs on which evaluations differ."""
    grid = np.linspace(0.01, 0.99, 10)
    edits: dict[str, Callable[[Case], None]] = {
        "photos without detections": lambda case: _drop(case["results"], lambda one: one["image_id"] % 4 == 0),
        "photos without products": lambda case: _drop(
            case["annotations"]["annotations"], lambda one: one["image_id"] % 5 == 0
        ),
        "photos with neither": lambda case: (
            _drop(case["results"], lambda one: one["image_id"] % 5 == 0),
            _drop(case["annotations"]["annotations"], lambda one: one["image_id"] % 5 == 0),
        ),
        "absent class": lambda case: (
            _drop(case["results"], lambda one: one["category_id"] == 2),
            _drop(case["annotations"]["annotations"], lambda one: one["category_id"] == 2),
        ),
        "absent class that is found": lambda case: _drop(
            case["annotations"]["annotations"], lambda one: one["category_id"] == 2
        ),
        "no score of 0.99": lambda case: _rescore(case, lambda score: 0.98 * score),
        "no score of 0.02": lambda case: _rescore(case, lambda score: 0.02 * score),
        "scores on the points that rpctool tries": lambda case: _rescore(case, lambda score: float(rng.choice(grid))),
        "all scores equal": lambda case: _rescore(case, lambda score: 1.0),
        "photos not in the annotations": lambda case: case["results"].extend(
            {**one, "image_id": 10_000} for one in case["results"][:9]
        ),
        "in another order, many scores equal": lambda case: (
            _rescore(case, lambda score: round(score, 1)),
            rng.shuffle(case["results"]),
            *(rng.shuffle(records) for records in case["annotations"].values()),
        ),
        "every detection twice": lambda case: case["results"].extend([dict(one) for one in case["results"]]),
    }
    cases = {name: made_case(rng, photos=45, classes=6, items=(1, 6)) for name in edits}
    for name, edit in edits.items():
        edit(cases[name])
    cases["a level with one photo"] = made_case(rng, photos=30, classes=5, levels=("easy",) * 29 + ("hard",))
    cases["one class"] = made_case(rng, photos=30, classes=1)
    return cases


def _drop(records: list[Any], unwanted: Callable[[Any], bool]) -> None:
    records[:] = [one for one in records if not unwanted(one)]


def _rescore(case: Case, change: Callable[[float], float]) -> None:
    for one in case["results"]:
        one["score"] = change(one["score"])


def ask_rpctool(cases: list[Case]) -> list[dict[str, Any]]:
    """rpctool's answers to the cases, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "cases.json", Path(folder) / "answers.json"
        asked.write_text(json.dumps(cases))
        environment = {**os.environ, "MPLBACKEND": "Agg"}
        command = [rpctool_python(), RUNNER, asked, answered]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        return json.loads(answered.read_text())


def ours(case: Case, *, maps: bool) -> dict[str, dict[str, float]]:
    """Our compat figures by level."""
    parts = by_level(from_coco(case["results"], annotations=case["annotations"])[0])
    return {level: {**compat_metrics(part), **(coco_map(part) if maps else {})} for level, part in parts.items()}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One case: largest difference over `figures` figures, levels where rpctool stops, and whether the texts agree."""

    largest_difference: float
    figures: int
    rpctool_stops: int
    same_text: bool


def compared(mine: dict[str, dict[str, float]], answer: dict[str, Any]) -> Comparison:
    """Our figures of one case beside rpctool's answer, on every level on which it does not stop with an error."""
    differences, stopped, texts = [], 0, []
    for level, theirs in answer["levels"].items():
        stopped += "error" in theirs
        pairs = [(mine[level][name], theirs[name]) for name in FIGURES if name in theirs]
        pairs += [(mine[level][name], value) for name, value in theirs.get("map", {}).items() if name != "error"]
        differences += [_difference(own, other) for own, other in pairs]
        printed = {name: str(value) for name, value in theirs.get("printed", {}).items() if name in FIGURES}
        texts += [figure_text(name, value=mine[level][name]) == text for name, text in printed.items()]
    return Comparison(
        largest_difference=max(differences, default=0.0),
        figures=len(differences),
        rpctool_stops=stopped,
        same_text=all(texts),
    )


def _difference(own: float, other: float) -> float:
    """Absolute difference; where rpctool gives no number (NaN, infinity), 0 if ours is the same and 1 if not."""
    if math.isfinite(other):
        return abs(own - other) if math.isfinite(own) else 1.0
    return 0.0 if own == other or (math.isnan(own) and math.isnan(other)) else 1.0


def compare_figures() -> dict[str, Comparison]:
    """Differences from rpctool (and from pycocotools, for mAP) over random and odd cases."""
    rng = np.random.default_rng(0)
    random = [made_case(rng, photos=int(rng.integers(8, 60)), classes=int(rng.integers(2, 12))) for _ in range(20)]
    cases = {f"random {place}": case for place, case in enumerate(random)} | odd_cases(rng)
    answers = ask_rpctool(list(cases.values()))
    return {
        name: compared(ours(case, maps=True), answer)
        for (name, case), answer in zip(cases.items(), answers, strict=True)
    }


def compare_times(photos: int) -> dict[str, Any]:
    """Seconds of both at RPC's size, from parsed JSON to all figures but mAP, and whether the figures are the same.

    How many times faster is told by processor seconds, which a busy machine changes less.
    """
    case = {**made_case(np.random.default_rng(1), photos=photos, classes=200, items=(5, 20)), "timed": True}
    answer = ask_rpctool([case])[0]
    runs = [_timed(lambda: ours(case, maps=False)) for _ in range(3)]
    comparison = compared(runs[0][1], answer)
    seconds = {kind: min(run[0][kind] for run in runs) for kind in ("wall", "processor")}
    with_map, _ = _timed(lambda: ours(case, maps=True))
    return {
        "photos": photos,
        "detections": len(case["results"]),
        "classes": 200,
        **{f"rpctool, {kind} seconds": value for kind, value in answer["seconds"].items()},
        **{f"tally, {kind} seconds": value for kind, value in seconds.items()},
        **{f"tally with mAP, {kind} seconds": value for kind, value in with_map.items()},
        "times faster": answer["seconds"]["processor"] / seconds["processor"],
        "largest difference": comparison.largest_difference,
        "same text": comparison.same_text,
    }


def _timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}, result


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=24_000, help="photos in the timed comparison (RPC: 24000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    figures, times = compare_figures(), compare_times(options.photos)
    if options.json:
        print(json.dumps({"figures": {name: asdict(row) for name, row in figures.items()}, "times": times}))
        return
    print(f"{'input':42s} {'largest difference':>18s} {'figures':>8s} {'rpctool stops':>14s} {'same text':>10s}")
    for name, row in figures.items():
        numbers = f"{row.largest_difference:18.1e} {row.figures:8d} {row.rpctool_stops:14d}"
        print(f"{name:42s} {numbers} {'yes' if row.same_text else 'no':>10s}")
    for name, value in times.items():
        print(f"{name:42s} {value:18.6g}" if isinstance(value, float) else f"{name:42s} {value!s:>18s}")


if __name__ == "__main__":
    end_with_code(main)
