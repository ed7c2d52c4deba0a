"""Stage `choose`: of several renderers' photos those that taught a detector best, judged on val.

Files stay where they are: rows refer to them. The row "renderers" holds the table that the choice was made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from storage.digest import JSON
from storage.manifest import Manifest, ManifestRow, referenced
from tasks.context import StageContext
from tasks.params import ChooseParams
from tasks.stage import stage

TABLE_ROW = "renderers"
_FIGURES = ("cAcc", "ACD", "mAP50")


def compared(
    renderers: Sequence[str], *, rendered: Sequence[Manifest], reports: Sequence[Mapping[str, Any]]
) -> list[dict[str, JSON]]:
    """A line a renderer: figures on val at the threshold that val chose, photos made and rejected; one is `chosen`.

    The highest averaged cAcc wins, of equals the lowest ACD, then the one named first.
    """
    lines: list[dict[str, JSON]] = [
        {
            "renderer": name,
            **{figure: float(report["val"]["averaged"][figure]) for figure in _FIGURES},
            "photos": len(manifest.ok),
            "rejected": sum(row.status == "rejected" for row in manifest.rows),
        }
        for name, manifest, report in zip(renderers, rendered, reports, strict=True)
    ]
    best = max(lines, key=lambda line: (line["cAcc"], -line["ACD"]))
    return [{**line, "chosen": line is best} for line in lines]


@stage(ChooseParams)
def choose(
    context: StageContext, *, params: ChooseParams, rendered: Sequence[Manifest], reports: Sequence[Manifest]
) -> None:
    """Every row of the chosen renderer's manifest, and the row "renderers" with the table.

    `rendered` and `reports`: what each of `params.renderers` made, and the evaluation of the detector it taught.
    """
    figures = [orjson.loads(context.store.read(one.row("report"))) for one in reports]
    table = compared(params.renderers, rendered=rendered, reports=figures)
    chosen = next(index for index, line in enumerate(table) if line["chosen"])
    for row in rendered[chosen].rows:
        context.add(referenced(row))
    name = params.renderers[chosen]
    context.add(ManifestRow(item_id=TABLE_ROW, status="artifact", attributes={"table": table, "chosen": name}))
    for line in table:
        context.log(f"{line['renderer']}: val cAcc {line['cAcc']:.3f}{', chosen' if line['chosen'] else ''}")
