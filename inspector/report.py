"""The report of a finished run: one static page with its pictures inside, made from `run.json` and the manifests.

Boundary: reads the run's record and, through the store, its manifests and their files; computes no stage.
"""

from __future__ import annotations

from pathlib import Path

from inspector.ladder_chart import Chart, ladder_chart
from inspector.rendering import flat, templates
from inspector.run_data import LEVELS, METRICS, RunData, rung_name
from inspector.sections import sections_of
from storage.digest import JSON
from storage.files import replace_file
from storage.manifest import ManifestRow
from storage.store import Store

_QUARANTINE_SHOWN = 50
_SHARES = ("cAcc", "mCIoU", "mAP50", "mmAP")


def write_report(run: dict[str, JSON], *, store: Store, out: Path) -> None:
    """Write the page of the run whose `run.json` holds `run` to the file `out`, its pictures embedded.

    Manifests that are gone, and files that are damaged, leave out what they would have shown.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, render_report(RunData(run=run, store=store)).encode(), sync=False)


def render_report(data: RunData) -> str:
    """The page as HTML."""
    return (
        templates()
        .get_template("report.html")
        .render(
            run=data.run,
            stages=data.stages,
            total_seconds=sum(float(stage["seconds"]) for stage in data.stages),
            ladder=data.ladder,
            chart=_chart(data),
            headline=headline(data),
            rung_names={rung: rung_name(rung) for rung in data.ladder},
            levels=LEVELS,
            metrics=METRICS,
            shares=_SHARES,
            threshold=data.report.get("threshold"),
            sections=sections_of(data),
            quarantined=quarantined_rows(data)[:_QUARANTINE_SHOWN],
            quarantined_count=len(quarantined_rows(data)),
            parameters=list(flat(data.run.get("parameters") or {})),
        )
    )


def headline(data: RunData) -> float | None:
    """The champion's averaged cAcc on test."""
    figures = data.ladder.get(data.champion or "", {}).get("averaged")
    return None if figures is None else figures.get("cAcc")


def quarantined_rows(data: RunData) -> list[tuple[str, ManifestRow]]:
    """Every input that `ingest` could not use, with the name of its stage."""
    ingested = ((name, manifest) for name, manifest in data.manifests.items() if name.startswith("ingest."))
    return [(name, row) for name, manifest in ingested for row in manifest.rows if row.status == "quarantined"]


def _chart(data: RunData) -> Chart | None:
    values = {
        rung_name(rung): {level: figures[level]["cAcc"] for level in LEVELS if figures.get(level)}
        for rung, figures in data.ladder.items()
    }
    if not values:
        return None
    title = f"cAcc on test by rung and level ({data.run.get('target_protocol')})"
    return ladder_chart(values, levels=LEVELS, title=title)
