"""`tally evaluate`: RPC's metrics of a file of detections against a file of annotations, and what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from storage.files import local_url, replace_file
from storage.images import Picture, decode_rgb
from storage.manifest import Manifest
from storage.store import Store
from tasks.evaluate import (
    Evaluated,
    Protocol,
    Report,
    encode_report,
    evaluate_sets,
    from_predictions,
    from_results,
    markdown_table,
)
from tasks.evaluation_outputs import analyse, confusion_sheet, encode_table

_MANIFEST = ".parquet"
_PAIRS = 8


def read_json(path: Path, *, what: str) -> Any:  # noqa: ANN401 - any JSON value
    """The content of a JSON file, with NaN and Infinity where the file has them.

    Raises:
        ValueError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{what}: expected a file, got {path}, which does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what}: expected JSON in {path}, got broken text ({error})") from error


@dataclass(frozen=True, kw_only=True)
class Files:
    """Detections and the labelled photos they belong to: COCO results with RPC annotations, or two manifests."""

    results: str
    annotations: str

    @property
    def are_manifests(self) -> bool:
        """Whether they are manifests (.parquet)."""
        return self.results.endswith(_MANIFEST)


def read_files(files: Files, *, val: Files | None) -> Evaluated:
    """What is evaluated, and where `val` is given on what the threshold is chosen.

    Raises:
        ValueError: a file is not there, not what it should be, or of another kind than the others.
    """
    ends = {one.endswith(_MANIFEST) for pair in (files, val) if pair for one in (pair.results, pair.annotations)}
    if len(ends) > 1:
        raise ValueError("results: expected JSON files only or manifests (.parquet) only, got both kinds")
    if files.are_manifests:
        photos, predictions = _manifests(files)
        pair = _manifests(val) if val else None
        return from_predictions(photos, predictions=predictions, val=pair)
    pairs = [
        (read_json(Path(one.results), what="results"), read_json(Path(one.annotations), what="annotations"))
        for one in (files, val)
        if one
    ]
    return from_results(*pairs[0], val=pairs[1] if val else None)


def _manifests(files: Files) -> tuple[Manifest, Manifest]:
    """(photos, predictions)."""
    return _manifest(files.annotations, what="annotations"), _manifest(files.results, what="results")


def _manifest(url: str, *, what: str) -> Manifest:
    url = url if "://" in url else local_url(Path(url).resolve())
    try:
        return Store.open(url.rsplit("/", 1)[0]).load(url)
    except FileNotFoundError as error:
        raise ValueError(f"{what}: expected a manifest, got {url}, which does not exist") from error


def report_of(evaluated: Evaluated, *, protocol: Protocol, threshold: float | None, target_protocol: str) -> Report:
    """The report; the intervals' resamplings are the same each time."""
    return evaluate_sets(
        evaluated,
        protocol=protocol,
        threshold=threshold,
        target_protocol=target_protocol,
        rng=np.random.default_rng(0),
    )


def write_analysis(
    evaluated: Evaluated, *, report: Report, out: Path, read: Callable[[str], Picture] | None
) -> dict[str, Any]:
    """Write `out`/report.json, tables/, plots/ and, where `read` gives photos by their ids, plots/confusions.png.

    Returns the report with the analysis's own figures.
    """
    found = analyse(evaluated.test, val=evaluated.val, threshold=report["threshold"])
    report = {**report, **found.figures}
    files = {f"tables/{name}.parquet": encode_table(table) for name, table in found.tables.items()}
    files |= {f"plots/{name}.svg": data for name, data in found.plots.items()}
    sheet = confusion_sheet(found, read=read, pairs=_PAIRS) if read else None
    files |= {"plots/confusions.png": sheet} if sheet else {}
    for name, data in {**files, "report.json": encode_report(report)}.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(out / name, data, sync=False)
    return report


def photo_reader(files: Files, *, photos: Path | None) -> Callable[[str], Picture] | None:
    """What reads a photo by its id: out of the manifest's store, or by its file name in the folder `photos`."""
    if files.are_manifests:
        manifest, _ = _manifests(files)
        store = Store.open(manifest.url.rsplit("/", 1)[0])
        return lambda photo: decode_rgb(store.read(manifest.row(photo)))
    if photos is None:
        return None
    if not photos.is_dir():
        raise ValueError(f"photos: expected the folder of the annotated photos, got {photos}")
    return lambda photo: decode_rgb((photos / photo).read_bytes())


def printed(report: Report, *, as_json: bool) -> str:
    """The tables, with the warnings on top, or one JSON object."""
    if as_json:
        return encode_report(report).decode()
    warnings = "".join(f"warning: {warning}\n" for warning in report["warnings"])
    return warnings + markdown_table(report)
