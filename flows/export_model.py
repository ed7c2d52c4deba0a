"""`tally export`: a checkpoint to one ONNX or TorchScript file, checked against the checkpoint on real photos."""

from __future__ import annotations

from pathlib import Path

from flows.champion import load_champion
from flows.predict_photos import find_photos
from storage.files import replace_file
from storage.images import Picture, decode_rgb
from tasks.export import Format, Parity, Precision, export_file, open_exported, parity
from tasks.photo_lists import PhotoFile

_PHOTOS = 24


def export_model(folder: Path, *, file_format: Format, precision: Precision, photos: str, out: Path) -> Parity:
    """Write `out` and say how its answers differ from the checkpoint's on the first photos of `photos`.

    Raises:
        ValueError: the photos are not there, or the format lacks the precision.
        RuntimeError: a float32 file does not answer as the checkpoint does; nothing was written.
    """
    detector, files = load_champion(folder), find_photos(photos)
    # What an int8 file was calibrated on says little about it: where there are photos enough, others are compared.
    calibration = [_decoded(file) for file in files[_PHOTOS : 2 * _PHOTOS] or files] if precision == "int8" else []
    data = export_file(detector, file_format=file_format, precision=precision, calibration=calibration)
    pictures = [_decoded(file) for file in files[:_PHOTOS]]
    found = parity(detector, open_exported(data, file_format=file_format), photos=pictures)
    if precision == "float32" and not found.holds:
        raise RuntimeError(f"export: expected the checkpoint's answers, got {found}")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, data)
    return found


def _decoded(file: PhotoFile) -> Picture:
    try:
        return decode_rgb(file.path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
