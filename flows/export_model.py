"""`tally export`: a checkpoint to one ONNX or TorchScript file, checked against the checkpoint on real photos."""

from __future__ import annotations

from pathlib import Path

from flows.champion import load_champion
from flows.predict_photos import find_photos
from storage.images import decode_rgb
from storage.store import replace_file
from tasks.export import Format, Parity, Precision, export_file, open_exported, parity

_PHOTOS = 24


def export_model(folder: Path, *, file_format: Format, precision: Precision, photos: str, out: Path) -> Parity:
    """Write `out` and say how its answers differ from the checkpoint's on the first photos of `photos`.

    Raises:
        ValueError: the model or the photos are not there, or the format lacks the precision.
        RuntimeError: a float32 file does not answer as the checkpoint does; nothing was written.
    """
    detector = load_champion(folder)
    pictures = [decode_rgb(file.path.read_bytes()) for file in find_photos(photos)[:_PHOTOS]]
    data = export_file(detector, file_format=file_format, precision=precision, calibration=pictures)
    found = parity(detector, open_exported(data, file_format=file_format), photos=pictures)
    if precision == "float32" and not found.holds:
        raise RuntimeError(f"export: expected the checkpoint's answers, got {found}")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, data)
    return found
