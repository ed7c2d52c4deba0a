"""Stage `compare`: champion and challenger on the same photos, and whether the challenger is promoted, with reasons.

Val alone decides; the figures on test stand beside, for people. A challenger has to gain a margin in averaged cAcc, and
may lose neither on a level nor on the products that the champion knew. Where products left the catalog the champion
can't stay, so the challenger is promoted unless it is worse.

Products come in groups: all, old (those the champion knows) and new. A group's figures count its products alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import orjson

from storage.catalog import Category, categories_of
from storage.digest import JSON
from storage.manifest import Manifest, ManifestRow
from tasks.context import StageContext
from tasks.evaluate import from_predictions
from tasks.evaluation_set import AVERAGED, EvaluationSet, by_level
from tasks.metrics import best_threshold, checkout_metrics, counts_at
from tasks.params import CompareParams
from tasks.stage import stage

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
_UNTUNED_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the challenger is promoted, and why, in sentences."""

    promoted: bool
    reasons: tuple[str, ...]


def decide(champion: Figures, challenger: Figures, *, params: CompareParams) -> Decision:
    """The decision from figures on val: by group of products ("all", "old") and level ("averaged", "easy", …)."""
    gain = challenger["all"][AVERAGED]["cAcc"] - champion["all"][AVERAGED]["cAcc"]
    losses = [
        f"{_where(group, level)}: cAcc falls from {before:.3f} to {after:.3f}"
        for group, level, before, after in _compared(champion, challenger)
        if after < before - params.tolerance - 1e-9
    ]
    told = f"averaged cAcc on val {champion['all'][AVERAGED]['cAcc']:.3f} → {challenger['all'][AVERAGED]['cAcc']:.3f}"
    if losses:
        return Decision(promoted=False, reasons=(told, *losses))
    if params.required:
        return Decision(promoted=True, reasons=(told, "products left the catalog, and nothing got worse"))
    if gain < params.margin - 1e-9:
        return Decision(promoted=False, reasons=(told, f"a gain of {params.margin:g} is asked for"))
    return Decision(promoted=True, reasons=(told, "better by the margin, not worse on any level or on old products"))


def _compared(champion: Figures, challenger: Figures) -> list[tuple[str, str, float, float]]:
    pairs = [("all", level) for level in champion["all"]] + [("old", AVERAGED)]
    return [
        (group, level, champion[group][level]["cAcc"], challenger[group][level]["cAcc"])
        for group, level in pairs
        if group in champion and level in challenger[group]
    ]


def _where(group: str, level: str) -> str:
    return "old products" if group == "old" else "averaged" if level == AVERAGED else f"level {level}"


def group_figures(evaluated: EvaluationSet, *, threshold: float, groups: Mapping[str, Sequence[str]]) -> Figures:
    """cAcc, ACD, mCCD, mCIoU, recall and precision by group of products and level; empty groups are left out."""
    places = {name: [evaluated.skus.index(sku) for sku in skus] for name, skus in groups.items() if skus}
    return {
        name: {
            level: _figures(part, threshold=threshold, classes=classes) for level, part in by_level(evaluated).items()
        }
        for name, classes in places.items()
    }


def _figures(evaluated: EvaluationSet, *, threshold: float, classes: Sequence[int]) -> dict[str, float]:
    found_NK, true_NK = (counts[:, classes] for counts in counts_at(evaluated, threshold=threshold))
    right, found, true = (int(counts.sum()) for counts in (np.minimum(found_NK, true_NK), found_NK, true_NK))
    return {
        **checkout_metrics(found_NK, true_NK=true_NK),
        "recall": right / true if true else float("nan"),
        "precision": right / found if found else float("nan"),
    }


def within(predictions: Manifest, *, categories: Sequence[Category]) -> Manifest:
    """Predictions without objects of products that are not in the catalog."""
    known = {category.id for category in categories}
    rows = (
        replace(row, objects=tuple(item for item in row.objects if item.category in known)) for row in predictions.rows
    )
    return replace(predictions, rows=tuple(rows))


def judged(
    val: Manifest, test: Manifest, *, predictions: tuple[Manifest, Manifest], params: CompareParams
) -> tuple[EvaluationSet, EvaluationSet, float]:
    """Val and test with a model's predictions (on val, on test), and the threshold that val chooses for it."""
    categories = categories_of(val)
    on_val, on_test = (within(one, categories=categories) for one in predictions)
    evaluated = from_predictions(test, predictions=on_test, val=(val, on_val), decision=params.decision)
    assert evaluated.val is not None
    found = len(evaluated.val.found) > 0
    return evaluated.val, evaluated.test, best_threshold(evaluated.val) if found else _UNTUNED_THRESHOLD


@stage(CompareParams)
def compare(
    context: StageContext,
    *,
    params: CompareParams,
    val: Manifest,
    test: Manifest,
    champion: Manifest,
    champion_predictions: Sequence[Manifest],
    challenger_predictions: Sequence[Manifest],
) -> None:
    """One row "decision": JSON with the decision, its reasons and all figures on val and test.

    `champion` is its checkpoint: what it knows are the old products. Predictions are those on val and on test.
    """
    known = {one["sku"] for one in orjson.loads(context.read(champion.row("config")))["categories"]}
    skus = [category.sku for category in categories_of(val)]
    groups = {
        "all": skus,
        "old": [sku for sku in skus if sku in known],
        "new": [sku for sku in skus if sku not in known],
    }
    figures: dict[str, dict[str, JSON]] = {"val": {}, "test": {}, "threshold": {}}
    for name, (on_val, on_test) in (("champion", champion_predictions), ("challenger", challenger_predictions)):
        val_set, test_set, threshold = judged(val, test, predictions=(on_val, on_test), params=params)
        figures["val"][name] = group_figures(val_set, threshold=threshold, groups=groups)
        figures["test"][name] = group_figures(test_set, threshold=threshold, groups=groups)
        figures["threshold"][name] = threshold
    decision = decide(figures["val"]["champion"], figures["val"]["challenger"], params=params)
    body = {"promoted": decision.promoted, "reasons": decision.reasons, "new": groups["new"], "figures": figures}
    # NaN, where a group is in none of a level's photos, is null in JSON.
    data = orjson.dumps(body, option=orjson.OPT_INDENT_2)
    context.put(data, path="decision.json", row=ManifestRow(item_id="decision", media_type="application/json"))
    context.content["promoted"] = decision.promoted
    for reason in decision.reasons:
        context.log(reason)
