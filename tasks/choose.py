"""Stage `choose`: of several renderers' photos those that taught a detector best, judged on val.

Files stay where they are: rows refer to them. The row "renderers" holds the table that the choice was made from.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np
import orjson
import pyarrow.parquet as pq

from storage.digest import JSON
from storage.manifest import Manifest, ManifestRow, referenced
from tasks.context import StageContext
from tasks.evaluation_set import Ints
from tasks.metrics import clearly_more
from tasks.params import ChooseParams
from tasks.stage import stage

TABLE_ROW = "renderers"


def compared(
    renderers: Sequence[str],
    *,
    rendered: Sequence[Manifest],
    wrong_RN: Sequence[Ints],
    maps_R: Sequence[float],
) -> list[dict[str, JSON]]:
    """A line a renderer: figures on val at the threshold that val chose, photos made and rejected; one is `chosen`.

    `wrong_RN`: how many items of each val photo the renderer's detectors got wrong, one detector's photos after
    another's; `maps_R`: their mean mAP50. Of the renderers whose cAcc is not clearly below the highest (McNemar) the
    lowest ACD wins, of equals the highest cAcc, then the one named first: val has few photos, and cAcc learns one bit
    only from each of them.
    """
    lines: list[dict[str, JSON]] = [
        {
            "renderer": name,
            "cAcc": float((wrong_N == 0).mean()),
            "ACD": float(wrong_N.mean()),
            "mAP50": mean_precision,
            "photos": len(manifest.ok),
            "rejected": sum(row.status == "rejected" for row in manifest.rows),
        }
        for name, manifest, wrong_N, mean_precision in zip(renderers, rendered, wrong_RN, maps_R, strict=True)
    ]
    most_N = max(wrong_RN, key=lambda wrong_N: float((wrong_N == 0).mean())) == 0
    close = [not clearly_more(most_N, than_N=wrong_N == 0) for wrong_N in wrong_RN]
    candidates = [line for line, near in zip(lines, close, strict=True) if near]
    best = min(candidates, key=lambda line: (line["ACD"], -line["cAcc"]))
    return [{**line, "close": near, "chosen": line is best} for line, near in zip(lines, close, strict=True)]


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
    of_R = [reports[first : first + trials] for first in range(0, len(reports), trials)]
    table = compared(
        params.renderers,
        rendered=rendered,
        wrong_RN=[np.concatenate([_wrong_items(context, evaluation=one) for one in of]) for of in of_R],
        maps_R=[mean(_mean_precision(context, evaluation=one) for one in of) for of in of_R],
    )
    chosen = next(index for index, line in enumerate(table) if line["chosen"])
    for row in rendered[chosen].rows:
        context.add(referenced(row))
    name = params.renderers[chosen]
    context.add(ManifestRow(item_id=TABLE_ROW, status="artifact", attributes={"table": table, "chosen": name}))
    for line in table:
        context.log(f"{line['renderer']}: val cAcc {line['cAcc']:.3f}, ACD {line['ACD']:.2f}{_remark(line)}")


def _wrong_items(context: StageContext, *, evaluation: Manifest) -> Ints:
    """How many items of each photo were wrong, in the order of the evaluation's table of photos."""
    table = pq.read_table(io.BytesIO(context.store.read(evaluation.row("table/photos"))))
    return np.asarray(table.column("wrong").to_pylist(), np.int64)


def _mean_precision(context: StageContext, *, evaluation: Manifest) -> float:
    return float(orjson.loads(context.store.read(evaluation.row("report")))["val"]["averaged"]["mAP50"])


def _remark(line: Mapping[str, JSON]) -> str:
    return ", chosen" if line["chosen"] else "" if line["close"] else ", clearly fewer right lists"
