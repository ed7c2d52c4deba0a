"""Stage `choose`: of several renderers' photos those that taught detectors best, judged on val.

Files stay where they are: rows refer to them. The row "renderers" holds the table that the choice was made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
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
    renderers: Sequence[str], *, rendered: Sequence[Manifest], reports: Sequence[Sequence[Mapping[str, Any]]]
) -> list[dict[str, JSON]]:
    """A line a renderer: figures on val at the threshold that val chose, means over the detectors it taught, and photos
    made and rejected; one is `chosen`.

    The highest averaged cAcc wins, of equals the lowest ACD, then the one named first. `reports`: a renderer's each.
    """
    lines: list[dict[str, JSON]] = [
        {
            "renderer": name,
            **{figure: mean(float(one["val"]["averaged"][figure]) for one in taught) for figure in _FIGURES},
            "photos": len(manifest.ok),
            "rejected": sum(row.status == "rejected" for row in manifest.rows),
        }
        for name, manifest, taught in zip(renderers, rendered, reports, strict=True)
    ]
    best = max(lines, key=lambda line: (line["cAcc"], -line["ACD"]))
    return [{**line, "chosen": line is best} for line in lines]


@stage(ChooseParams)
def choose(
    context: StageContext, *, params: ChooseParams, rendered: Sequence[Manifest], reports: Sequence[Manifest]
) -> None:
    """Every row of the chosen renderer's manifest, and the row "renderers" with the table.

    `rendered`: what each of `params.renderers` made. `reports`: the evaluation on val of the detectors it taught, as
    many a renderer, in the renderers' order.
    """
    trials = len(reports) // len(params.renderers)
    assert trials * len(params.renderers) == len(reports), "the flow asks for as many trials of every renderer"
    figures = [orjson.loads(context.store.read(one.row("report"))) for one in reports]
    of_R = [figures[first : first + trials] for first in range(0, len(figures), trials)]
    table = compared(params.renderers, rendered=rendered, reports=of_R)
    chosen = next(index for index, line in enumerate(table) if line["chosen"])
    for row in rendered[chosen].rows:
        context.add(referenced(row))
    name = params.renderers[chosen]
    context.add(ManifestRow(item_id=TABLE_ROW, status="artifact", attributes={"table": table, "chosen": name}))
    for line in table:
        context.log(f"{line['renderer']}: val cAcc {line['cAcc']:.3f}{', chosen' if line['chosen'] else ''}")
