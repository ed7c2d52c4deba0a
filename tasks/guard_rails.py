"""What to look at after each round of selection, so that a student does not learn its teacher's mistakes unseen.

Figures, flags and a plot out of the rows of `select` and of what was detected on the pool; no pixels, no labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from storage.boxes import iou_matrix
from storage.digest import JSON
from storage.manifest import Manifest, ManifestObject, ManifestRow
from tasks.evaluation_plots import STYLE, svg
from tasks.selection import boxes_of, sku_histogram

# A SKU vanishes below this share of what is expected of it, and floods above that one; of few items neither is said.
VANISHING, FLOODING = 1 / 3, 3.0
_LEAST_EXPECTED = 3.0
_SAME_PLACE = 0.5


def guard_rails(
    rows: Sequence[ManifestRow], *, expected: Mapping[str, float], former: Manifest | None = None
) -> dict[str, JSON]:
    """Figures of a round.

    Args:
        rows: what `select` made of the photos.
        expected: by SKU, the probabilities of all its detections on the pool, added up.
        former: what a teacher one generation older selected; how far the two disagree is then one of the figures.

    Returns:
        photos by outcome, items that teach and how many of them are estimated to be right, places ignored, `skus` (how
        often each teaches), `expected` (how often it is on the pool), `flags` (in words) and `disagreement` (see
        `disagreement`; None without a former round).
    """
    objects = [item for row in rows if row.status == "ok" for item in row.objects]
    scores = [item.score for item in objects if item.status == "ok" and item.score is not None]
    outcomes = Counter(str(row.attributes.get("mode", row.status)) for row in rows)
    histogram = sku_histogram(objects)
    return {
        "photos": len(rows),
        **{name: outcomes[name] for name in ("image", "instance", "rejected")},
        "items": sum(item.status == "ok" for item in objects),
        "estimated_precision": float(np.mean(scores)) if scores else None,
        "ignored": sum(item.status == "ignore" for item in objects),
        "skus": histogram,
        "expected": {sku: round(float(count), 2) for sku, count in sorted(expected.items())},
        "flags": flags(histogram, expected=expected),
        "disagreement": None if former is None else disagreement(rows, former=former.rows),
    }


def expected_skus(photos: Iterable[Sequence[ManifestObject]]) -> dict[str, float]:
    """How often each SKU is to be expected: the scores (probabilities) of its detections in all photos, added up."""
    total: dict[str, float] = {}
    for item in (item for objects in photos for item in objects):
        total[item.sku] = total.get(item.sku, 0.0) + (item.score or 0.0)
    return total


def flags(histogram: Mapping[str, int], *, expected: Mapping[str, float]) -> list[str]:
    """SKUs that vanish from the pseudo-labels or flood them, compared with their share of what is expected."""
    taken, wanted = sum(histogram.values()), sum(expected.values())
    if not taken or not wanted:
        return []
    said = []
    for sku in sorted(set(histogram) | set(expected)):
        due, found = taken * expected.get(sku, 0.0) / wanted, histogram.get(sku, 0)
        if due >= _LEAST_EXPECTED and found < VANISHING * due:
            said.append(f"{sku} vanishes: {found} items teach, {due:.0f} would be its share")
        elif found >= _LEAST_EXPECTED and found > FLOODING * due:
            said.append(f"{sku} floods: {found} items teach, {due:.0f} would be its share")
    return said


def disagreement(rows: Sequence[ManifestRow], *, former: Sequence[ManifestRow]) -> float | None:
    """The share, in [0, 1], of what two teachers trust that the other does not see as the same SKU in the same place.

    It is one minus the Dice coefficient of the trusted items of the photos that both judged. A student that only
    repeats its teacher is near 0 while val stands still: it confirms itself. None where neither trusts anything.
    """
    known = {row.item_id: row for row in former}
    pairs = [(_trusted(row), _trusted(known[row.item_id])) for row in rows if row.item_id in known]
    total = sum(len(new) + len(old) for new, old in pairs)
    return 1 - 2 * sum(_shared(new, old) for new, old in pairs) / total if total else None


def _trusted(row: ManifestRow) -> list[ManifestObject]:
    """The trusted items of a photo, also of one that was not taken: doubtful ones bear a reason."""
    return [item for item in row.objects if not item.reason]


def _shared(new: Sequence[ManifestObject], old: Sequence[ManifestObject]) -> int:
    """How many items are in both, each counted once. After NMS no two trusted items share a place."""
    same_NM = np.array([[one.category == other.category for other in old] for one in new], bool)
    near_NM = iou_matrix(boxes_of(new), boxes_of(old)) >= _SAME_PLACE
    both_NM = same_NM.reshape(near_NM.shape) & near_NM
    return int(min(both_NM.any(axis=0).sum(), both_NM.any(axis=1).sum()))


def plot_guard_rails(figures: Mapping[str, Any]) -> bytes:
    """SVG of how often each SKU teaches, beside its share of what is expected."""
    histogram, expected = figures["skus"], figures["expected"]
    skus = sorted(set(histogram) | set(expected), key=lambda sku: (-expected.get(sku, 0.0), sku))
    share = sum(histogram.values()) / max(sum(expected.values()), 1e-9)
    places = np.arange(len(skus))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 1.2 + 0.16 * max(4, len(skus))))
        axes = figure.subplots()
        axes.barh(places, [histogram.get(sku, 0) for sku in skus], color="tab:blue", label="teach")
        due = [share * expected.get(sku, 0.0) for sku in skus]
        axes.scatter(due, places, color="black", s=12, zorder=3, label="share expected")
        axes.set(yticks=places, yticklabels=skus, xlabel="items", title="pseudo-labels by product")
        axes.invert_yaxis()
        axes.legend(frameon=False)
        return svg(figure)
