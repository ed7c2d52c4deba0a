"""What Prefect's pages show, as Markdown: a stage's counts, qualities and pictures, what failed, ladder and decision.

Pictures are small and part of the text; they link to the item's page in the inspector. Pure functions: publishing is
`flows.stage_artifacts`'s.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np

from flows.links import stage_url
from flows.time_limit import TimeLimitError
from inspector.pictures import data_uri, on_checkers, thumbnail, with_boxes
from inspector.run_data import spread
from storage.digest import JSON
from storage.images import decode_grey, decode_rgb, decode_rgba
from storage.manifest import Manifest, ManifestRow
from storage.store import DamagedArtifactError, Store
from tasks.stage import StageFailedError

_SIDE, _SHOWN, _REASONS, _PRODUCTS = 112, 6, 8, 50


def artifact_key(name: str, *, of: str = "") -> str:
    """A key as Prefect wants it, of a stage's name such as train.source: letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", f"{of}{name}".lower()).strip("-")


def stage_markdown(name: str, *, run: str, manifest: Manifest, cached: bool, seconds: float, store: Store) -> str:
    """A stage's result: table of counts and qualities, figures, why rows were left out, sample pictures, links."""
    page = stage_url(run, stage=name)
    how = "taken from the store" if cached else f"computed in {seconds:.1f} s"
    parts = [f"**{name}**: {how}. [Every item in the inspector]({page})", counts_table(manifest)]
    metrics = manifest.metadata.get("metrics") or {}
    if metrics:
        parts.append(", ".join(f"{key} {_number(value)}" for key, value in sorted(metrics.items())))
    rails = manifest.metadata.get("guard_rails")
    parts += [guard_rails_markdown(rails)] if rails else []
    reasons = Counter(row.reason for row in manifest.rows if row.status not in ("ok", "artifact") and row.reason)
    if reasons:
        listed = [f"- {count} × {reason}" for reason, count in reasons.most_common(_REASONS)]
        parts.append("\n".join(["Left out because:", *listed]))
    pictures = sample_pictures(manifest, page=page, store=store)
    parts += [pictures] if pictures else []
    parts.append(f"`{manifest.url}`")
    return "\n\n".join(parts)


def guard_rails_markdown(rails: Mapping[str, JSON]) -> str:
    """A round's guard rails: what was taken, how right and how new it is, what is flagged, and products by number."""
    names = ("image", "instance", "rejected", "items", "ignored", "estimated_precision", "disagreement")
    flagged = "\n".join(f"- {flag}" for flag in rails.get("flags") or ["no product vanishes or floods"])
    taken, expected = rails["skus"], rails.get("expected") or {}
    share = sum(taken.values()) / max(sum(expected.values()), 1e-9)
    skus = sorted({*taken, *expected}, key=lambda sku: (-expected.get(sku, 0.0), sku))[:_PRODUCTS]
    lines = [[sku, taken.get(sku, 0), f"{share * expected.get(sku, 0.0):.1f}"] for sku in skus]
    tables = [
        table_of(names, rows=[[rails.get(name) for name in names]]),
        table_of(("product", "items that teach", "its share of what is expected"), rows=lines),
    ]
    return "\n\n".join([tables[0], flagged, tables[1]])


def counts_table(manifest: Manifest) -> str:
    """Rows by status with their sizes and qualities."""
    lines = []
    for status in sorted({row.status for row in manifest.rows}):
        rows = [row for row in manifest.rows if row.status == status]
        qualities = [row.quality for row in rows if row.quality is not None]
        spans = [f"{value:.2f}" for value in np.quantile(qualities, (0, 0.5, 1))] if qualities else ["", "", ""]
        size, products = sum(row.bytes for row in rows) / 1e6, len({row.sku for row in rows if row.sku})
        lines.append([status, len(rows), f"{size:.1f}", products or "", *spans])
    return table_of(["status", "items", "MB", "products", "quality: least", "median", "best"], rows=lines)


def table_of(columns: Sequence[str], *, rows: Sequence[Sequence[JSON]]) -> str:
    """A table in Markdown; fractions have three digits, and a catalog's text can't end its cell."""
    lines = [columns, ["---"] * len(columns), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: JSON) -> str:
    return "" if value is None else _number(value).replace("|", "\\|")


def sample_pictures(manifest: Manifest, *, page: str, store: Store) -> str:
    """Some of the stage's pictures in one line, each a link to its item; nothing where there are none."""
    shown = [row for row in manifest.ok if row.url and row.media_type in ("image/jpeg", "image/png")]
    found = []
    for row in spread(shown, count=_SHOWN):
        try:
            found.append(
                f"[![{row.item_id}]({_picture(store.read(row), row)})]({page}/item?item={quote(row.item_id, safe='')})"
            )
        except (DamagedArtifactError, ValueError):
            # A picture that can't be shown is the inspector's business; the stage is done.
            continue
    return " ".join(found)


def _picture(data: bytes, row: ManifestRow) -> str:
    if row.media_type == "image/png":
        try:
            rgba_HW4 = thumbnail(decode_rgba(data), side=_SIDE)
        except ValueError:
            # Grey: a mask or a map.
            return data_uri(np.repeat(thumbnail(decode_grey(data), side=_SIDE)[..., None], 3, axis=2))
        return data_uri(on_checkers(np.ascontiguousarray(rgba_HW4[..., :3]), alpha_HW=rgba_HW4[..., 3]))
    return data_uri(with_boxes(decode_rgb(data), objects=row.objects, side=_SIDE))


def failure_markdown(name: str, *, run: str, error: BaseException) -> str:
    """What failed and what to do about it."""
    advice, page = "\n".join(f"- {line}" for line in what_to_do(error)), stage_url(run, stage=name)
    return "\n\n".join(
        [
            f"**{name} failed**: {type(error).__name__}",
            f"```\n{error}\n```",
            f"What to do:\n\n{advice}",
            f"What was finished is kept: the next run goes on from there. [In the inspector]({page})",
        ]
    )


def what_to_do(error: BaseException) -> list[str]:
    """Advice on a failure, a line each."""
    text = str(error)
    if isinstance(error, TimeLimitError):
        return ["Start the run again: it goes on from its last checkpoint.", "Raise `time_limit` if it is too short."]
    if isinstance(error, DamagedArtifactError):
        return ["Start the run again: the stage whose file is damaged is computed again.", "Check the disk or bucket."]
    if "No space left" in text or "disk full" in text.lower():
        return ["Make room: `tally gc` shows what can go, `tally gc --delete` removes it.", "Start the run again."]
    if "out of memory" in text.lower() or "signal 9" in text:
        return [
            "Memory was too short: use a smaller preset, or fewer `workers`.",
            "Start the run again: it goes on from its last checkpoint.",
        ]
    if isinstance(error, StageFailedError):
        return ["Read the end of the log above; the whole log is at the path it names.", "Start the run again."]
    if isinstance(error, ValueError):
        return [
            "The message names the key or the file, what was expected and what was found: correct it.",
            "Start again.",
        ]
    if isinstance(error, OSError):
        return ["A file or a service did not answer: check paths, network and credentials.", "Start the run again."]
    return ["This looks like a mistake of the program: keep the message and the log of the flow run.", "Start again."]


def ladder_markdown(ladder: Mapping[str, Mapping[str, Mapping[str, float]]], *, champion: str, protocol: str) -> str:
    """The ladder: honest figures on test by rung, averaged and by level."""
    levels = list(next(iter(ladder.values()), {}))
    ordered = [level for level in ("averaged", "easy", "medium", "hard") if level in levels]
    heads = ["rung", *(f"cAcc {level}" for level in ordered), "ACD", "mCIoU", "mAP50"]
    lines = []
    for name, figures in ladder.items():
        averaged = figures["averaged"]
        cells = [figures[level]["cAcc"] for level in ordered] + [averaged[key] for key in ("ACD", "mCIoU", "mAP50")]
        mark = f"**{name}**" if name == champion else name
        lines.append([mark, *cells])
    table = table_of(heads, rows=lines)
    return f"Test, threshold from val, {protocol}. Best on val: {champion}.\n\n{table}"


def decision_markdown(decision: Mapping[str, JSON]) -> str:
    """What was decided about a challenger, and why."""
    reasons = "\n".join(f"- {reason}" for reason in decision["reasons"])
    return f"**{decision['action']}** (champion is number {decision['champion']})\n\n{reasons}"


def _number(value: JSON) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
