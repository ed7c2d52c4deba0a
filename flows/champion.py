"""What `--model` names: a run, a folder or a file, or `champion`, the promoted model. The one place that decides it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from flows.runs import last_run

if TYPE_CHECKING:
    from tasks.detection import Detector

CHAMPION = "champion"
POINTER = "champion.json"
_FILES = ("model.safetensors", "model.json")


def resolve_model(model: str, *, runs: Path) -> Path:
    """The folder of a checkpoint, or the .onnx file, that `model` names.

    `champion` is what `runs/champion.json` ({"folder": …}, relative to `runs`) points to; where nothing was promoted,
    the champion of the run that ended last. Else a path, or the name of a run under `runs`.

    Raises:
        ValueError: there is no such model.
    """
    if model == CHAMPION:
        pointer = runs / POINTER
        if pointer.is_file():
            return _checked(runs / str(orjson.loads(pointer.read_bytes())["folder"]))
        return _checked(last_run(runs) / CHAMPION)
    named = runs / model / CHAMPION
    return _checked(named if named.is_dir() else Path(model).expanduser())


def resolve_checkpoint(model: str, *, runs: Path) -> Path:
    """The folder of a checkpoint that `model` names, as `resolve_model`.

    Raises:
        ValueError: there is no such model, or it is an exported file.
    """
    path = resolve_model(model, runs=runs)
    if path.suffix == ".onnx":
        raise ValueError(f"model: expected a checkpoint's folder, got {path}, which is exported already")
    return path


def _checked(path: Path) -> Path:
    if path.suffix == ".onnx" and path.is_file():
        return path
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise ValueError(
            f"model: expected an .onnx file, or {path}/ to hold model.safetensors and model.json, got no "
            f"{' and no '.join(missing)}; `tally run` writes a champion to runs/<name>/champion"
        )
    return path


def load_champion(folder: Path, *, device: str = "cpu") -> Detector:
    """The detector in a checkpoint's folder.

    Raises:
        ValueError: the files don't fit together.
    """
    # Torch, for those who only ask which model is meant, would be a long wait.
    from tasks.detection import load_detector

    weights, config = ((folder / name).read_bytes() for name in _FILES)
    return load_detector(weights, config, device=device)
