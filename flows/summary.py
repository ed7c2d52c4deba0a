"""What a run says in the end: where things are, how good the model is, what to try next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flows.runs import RunRecord
from storage.digest import JSON


def summary_lines(record: RunRecord, *, folder: Path) -> list[str]:
    """The last lines of `tally run`: where things are, how good the model is, what to try next."""
    if record.champion is None:
        return [f"{record.name}: {record.state}"]
    figures = record.ladder
    ladder = " → ".join(f"{name} {values['averaged']['cAcc']:.3f}" for name, values in figures.items())
    computed = [one for one in record.results.values() if not one.cached]
    took = f"{len(computed)} stages computed, {len(record.results) - len(computed)} cached"
    quarantined = sum(one.quarantined for one in record.results.values())
    best = figures[record.champion]["averaged"]["cAcc"]
    model = _model(record, folder=folder)
    return [
        "",
        f"[bold]test cAcc {best:.3f}[/bold] (champion {record.champion}, threshold from val, {record.target_protocol})",
        f"ladder    {ladder}",
        *([f"decision  {_decision(record.decision)}"] if record.decision else []),
        f"stages    {took}, {quarantined} inputs quarantined",
        f"report    {folder}/report.html",
        f"metrics   {folder}/metrics.json",
        f"champion  {folder}/champion/",
        f"lists     {folder}/shopping_lists.csv, .json, .parquet, and annotated photos in {folder}/photos/",
        "",
        "Try next:",
        f"  tally predict PHOTOS --model {model} --out lists   shopping lists for your own photos",
        f"  tally status --run {folder.name}                             every stage, its key and its manifest",
        "  tally inspect                                           look at every artifact in a browser",
        f"  tally run --dataset {_short(record.dataset)} --preset cpu    the same, trained for longer",
    ]


def _decision(decision: Mapping[str, JSON]) -> str:
    return f"{decision['action']}; champion is number {decision['champion']} ({'; '.join(decision['reasons'])})"


def _model(record: RunRecord, *, folder: Path) -> str:
    """The run's own model, unless it was judged and is not the better one."""
    rejected = record.decision is not None and record.decision["action"] == "rejected"
    return "champion" if rejected else f"{folder}/champion"


def _short(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
