"""An evaluation among the artifacts of its flow run: figures, mistakes, plots. Imported only inside a Prefect flow."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow.parquet as pq
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from flows.stage_markdown import artifact_key, table_of
from inspector.pictures import data_uri
from storage.images import decode_rgb
from storage.manifest import Manifest
from storage.store import Store
from tasks.evaluate import markdown_table

_PAIRS, _SKUS = 10, 10
_COLUMNS = ("sku", "products", "found", "right", "precision", "recall", "count_error")


def publish_evaluation(name: str, manifest: Manifest, *, store: Store, page: str) -> None:
    """Make artifacts of the stage `name`, such as evaluate.source: one Markdown, and an image for each plot.

    `page` is the stage's page in the inspector.
    """
    key = artifact_key(name)
    report = orjson.loads(store.read(manifest.row("report")))
    tables = {
        table: pq.read_table(io.BytesIO(store.read(manifest.row(f"table/{table}")))).to_pylist()
        for table in ("confusions", "skus", "error_kinds")
    }
    markdown = f"[{name} in the inspector]({page})\n\n" + evaluation_markdown(report, tables=tables)
    create_markdown_artifact(markdown, key=key, description=f"{name}: figures on test")
    for row in manifest.rows:
        if row.item_id.startswith(("plot/", "picture/")):
            part = row.item_id.split("/")[1]
            address = _address(store.read(row), media_type=row.media_type)
            create_image_artifact(
                address, key=f"{key}-{part.replace('_', '-')}", description=f"{name}: {part.replace('_', ' ')}"
            )


def _address(data: bytes, *, media_type: str) -> str:
    """The picture itself as an address; photos as JPEG, which is a tenth of the size."""
    if media_type == "image/svg+xml":
        return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
    return data_uri(decode_rgb(data))


def evaluation_markdown(report: Mapping[str, Any], *, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The tables of both protocols, kinds of mistakes by level, most confused pairs and SKUs with most mistakes."""
    parts = [markdown_table(dict(report))]
    kinds = sorted({row["kind"] for row in tables["error_kinds"]})
    number = {(row["level"], row["kind"]): row["number"] for row in tables["error_kinds"]}
    levels = list(dict.fromkeys(row["level"] for row in tables["error_kinds"]))
    rows = [[level, *(number[level, kind] for kind in kinds)] for level in levels]
    parts += ["mistakes at the threshold:", table_of(["level", *kinds], rows=rows)]
    if tables["confusions"]:
        pairs = [[row["true_sku"], row["found_sku"], row["times"]] for row in tables["confusions"][:_PAIRS]]
        parts += ["most confused pairs:", table_of(["true SKU", "found SKU", "times"], rows=pairs)]
    worst = sorted(tables["skus"], key=lambda row: 2 * row["right"] - row["products"] - row["found"])[:_SKUS]
    parts += [
        "SKUs with most mistakes:",
        table_of(_COLUMNS, rows=[[row[column] for column in _COLUMNS] for row in worst]),
    ]
    return "\n\n".join(parts)
