"""`tally evaluate`: RPC's metrics of a file of detections against a file of annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.evaluate import Protocol, encode_report, evaluate_results, markdown_table


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


def evaluate_files(
    results: Path,
    *,
    annotations: Path,
    protocol: Protocol,
    threshold: float | None,
    target_protocol: str,
    as_json: bool,
) -> str:
    """The tables (or one JSON object) of the figures, with the warnings on top."""
    report = evaluate_results(
        read_json(results, what="results"),
        read_json(annotations, what="annotations"),
        protocol=protocol,
        threshold=threshold,
        target_protocol=target_protocol,
    )
    if as_json:
        return encode_report(report).decode()
    warnings = "".join(f"warning: {warning}\n" for warning in report["warnings"])
    return warnings + markdown_table(report)
