"""Which detections of an unlabelled photo are trusted: pure decisions on detections and counts, no pixels, no labels.

Image level: a photo is taken whole when the detection view and the counting view agree on the number of products and
nothing about it is doubtful but what all views together hardly see. Instance level: of the other photos, the trusted
items are taken and the doubtful ones are erased (DPSNet, IEEE TMM 2021, section III; there the agreement is tuned with
the truth of the test photos). The paper's own rule and no rule at all are there to compare with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from storage.boxes import Boxes, iou_matrix
from storage.manifest import ManifestObject
from tasks.params import SelectParams

_SAME_PLACE = 0.5
# A SKU rivals another one in its place from this share of its votes: less is what look-alikes always get.
_RIVAL = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The detections of one photo: those that are trusted, and those that are not, each with its reason."""

    trusted: tuple[ManifestObject, ...]
    doubtful: tuple[ManifestObject, ...]

    @property
    def precision(self) -> float:
        """The expected share of right items among the trusted ones, of which there are some."""
        return sum(_score(item) for item in self.trusted) / len(self.trusted)

    def doubts(self, *, params: SelectParams) -> list[ManifestObject]:
        """The doubtful items where a product may well be.

        What all views together hardly see is left out: one view takes it for a product, mostly a part of one or two
        neighbours, and the others know better.
        """
        return [item for item in self.doubtful if _score(item) >= params.doubtful_score]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the counting view says: the number of products, and where it counts in several channels (of
    super-categories or products) the number in each, with the channel of every category.

    `error`: the standard error of a count, over the square root of the number counted; 0 where nobody knows.
    """

    total: float
    by_channel: tuple[float, ...] = ()
    channel_of: Mapping[int, int] = field(default_factory=dict)
    error: float = 0.0

    def scaled(self, factor: float) -> Counts:
        """All numbers times a factor."""
        return replace(self, total=factor * self.total, by_channel=tuple(factor * one for one in self.by_channel))

    def agrees(self, count: float, *, found: int, params: SelectParams) -> bool:
        """Whether a count is as near to the number found as counts of so many products are to the truth."""
        usual = params.count_errors * self.error * math.sqrt(found)
        return abs(found - count) <= max(params.tolerance, usual)


def boxes_of(objects: Iterable[ManifestObject]) -> Boxes:
    """Boxes of objects, xyxy float32 [N, 4]."""
    return np.asarray([item.box for item in objects], np.float32).reshape(-1, 4)


def judge(
    objects: Sequence[ManifestObject], *, params: SelectParams, other_views: Sequence[Sequence[ManifestObject]] = ()
) -> Judged:
    """Sort what is seen in a photo into trusted and doubtful items; what is hardly seen anywhere is neither.

    `other_views` are the detections in augmented views of the same photo, mapped back into its frame. All views vote on
    each place (`consensus`): so a mistake that one view makes is put right by the others, whichever view it is. Rules
    other than "views" know no vote and no doubt: what does not reach `confident_score` is not there.
    """
    if params.rule != "views":
        winners = [claims[0] for claims in _claims(objects, params=params)]
        return Judged(trusted=tuple(item for item in winners if _score(item) >= params.confident_score), doubtful=())
    items = consensus([objects, *other_views], params=params)
    return Judged(
        trusted=tuple(item for item in items if not item.reason),
        doubtful=tuple(item for item in items if item.reason),
    )


def consensus(views: Sequence[Sequence[ManifestObject]], *, params: SelectParams) -> list[ManifestObject]:
    """What all views together say of a photo, an item a place; one that can't be trusted bears the reason.

    Places are clusters of boxes around the best detection, at most one of a view (after weighted boxes fusion, Solovyev
    et al. 2021, which is for one class at a time), with every SKU that a view sees there. The SKU is the one with the
    largest sum of scores; the score its mean over all views, where one that doesn't show it counts as 0; the box the
    mean of its boxes weighted by score.
    """
    votes = [(view, claims) for view, seen in enumerate(views) for claims in _claims(seen, params=params)]
    votes.sort(key=lambda vote: (_rank(vote[1][0]), vote[0]))
    boxes_N4 = boxes_of(claims[0] for _, claims in votes)
    iou_NN = iou_matrix(boxes_N4, boxes_N4)
    free_N = np.ones(len(votes), np.bool_)
    items = []
    for place in range(len(votes)):
        if free_N[place]:
            near = [index for index in np.argsort(-iou_NN[place], kind="stable") if iou_NN[place, index] >= _SAME_PLACE]
            # The nearest box of each view: later ones do not replace earlier ones.
            nearest = {votes[index][0]: index for index in reversed(near) if free_N[index]}
            free_N[list(nearest.values())] = False
            claims = [claim for index in nearest.values() for claim in votes[index][1]]
            items.append(_elected(claims, views=len(views), params=params))
    return [item for item in items if item is not None]


def _elected(claims: Sequence[ManifestObject], *, views: int, params: SelectParams) -> ManifestObject | None:
    """The item that the detections of one place amount to, at most one of a SKU a view; None where it is too weak to be
    even doubtful."""
    ranked = sorted(claims, key=_rank)
    sums = dict.fromkeys((claim.category for claim in ranked), 0.0)
    for claim in ranked:
        sums[claim.category] += _score(claim)
    (category, total), *others = sorted(sums.items(), key=lambda one: -one[1])
    same = [claim for claim in ranked if claim.category == category]
    box_4 = np.average(boxes_of(same).astype(np.float64), axis=0, weights=[_score(claim) for claim in same])
    x0, y0, x1, y1 = box_4.tolist()
    item = replace(same[0], box=(x0, y0, x1, y1), score=total / views)
    if total / views < params.doubtful_score and _score(same[0]) < params.confident_score:
        return None
    if others and others[0][1] >= _RIVAL * total:
        rival = next(claim.sku for claim in ranked if claim.category == others[0][0])
        return replace(item, reason=f"also looks like {rival}")
    if len(same) < params.agreement * views:
        return replace(item, reason=f"found in {len(same)} of {views} views")
    if total / views < params.confident_score:
        return replace(item, reason=f"score {total / views:.2f} below {params.confident_score:g}")
    return item


def _claims(objects: Sequence[ManifestObject], *, params: SelectParams) -> list[tuple[ManifestObject, ...]]:
    """Detections by place, the best of each SKU that claims it, best first: non-maximum suppression over all SKUs."""
    ranked = sorted((item for item in objects if _score(item) >= params.doubtful_score), key=_rank)
    boxes_N4 = boxes_of(ranked)
    iou_NN = iou_matrix(boxes_N4, boxes_N4)
    free_N = np.ones(len(ranked), np.bool_)
    places = []
    for place in range(len(ranked)):
        if free_N[place]:
            covered_N = free_N & (iou_NN[place] > params.nms)
            covered_N[place] = True
            free_N &= ~covered_N
            best = {ranked[index].category: ranked[index] for index in reversed(np.flatnonzero(covered_N))}
            places.append(tuple(sorted(best.values(), key=_rank)))
    return places


def _score(item: ManifestObject) -> float:
    assert item.score is not None, "a detection without a score"
    return item.score


def _rank(item: ManifestObject) -> tuple[float, tuple[float, ...], int]:
    return -_score(item), item.box, item.category


def objection(judged: Judged, *, counts: Counts, strays: int, params: SelectParams) -> str:
    """Why a photo is not taken whole; "" where nothing speaks against it."""
    trusted = len(judged.trusted)
    if not trusted:
        return "nothing trusted"
    if params.rule == "all":
        return ""
    if params.rule == "paper":
        return "" if trusted == round(counts.total) else _miscounted(trusted, counts.total)
    doubts = judged.doubts(params=params)
    if doubts:
        return f"{len(doubts)} doubtful: {doubts[0].reason}"
    if strays:
        return f"{strays} unexplained on the board"
    if judged.precision < params.precision:
        return f"expected precision {judged.precision:.2f} below {params.precision:g}"
    if not counts.agrees(counts.total, found=trusted, params=params):
        return _miscounted(trusted, counts.total)
    return _channel_objection(judged.trusted, counts=counts, params=params)


def _miscounted(trusted: int, count: float) -> str:
    return f"{trusted} trusted, counting view says {count:.2f}"


def _channel_objection(trusted: Sequence[ManifestObject], *, counts: Counts, params: SelectParams) -> str:
    """The first channel of the counting view that disagrees: right totals may hide two errors."""
    found = Counter(counts.channel_of.get(item.category) for item in trusted)
    for channel, count in enumerate(counts.by_channel):
        if not counts.agrees(count, found=found[channel], params=params):
            skus = sorted({item.sku for item in trusted if counts.channel_of.get(item.category) == channel})
            return f"{_miscounted(found[channel], count)} in channel {channel} ({', '.join(skus) or 'nothing found'})"
    return ""


def put_right(judged: Judged, *, plain: Sequence[ManifestObject], params: SelectParams) -> int:
    """How many mistakes of the plain view the votes of all views put right.

    Those are trusted items that it does not show with a score that is trusted, or shows as another SKU; and what it is
    sure of where all views together see nothing, or another SKU.
    """
    sure = [item for item in plain if _score(item) >= params.confident_score]
    missed = [item for item in judged.trusted if not _shown(item, by=sure)]
    places = [*judged.trusted, *(replace(item, category=0) for item in judged.doubts(params=params))]
    return len(missed) + sum(not _shown(item, by=places) for item in sure)


def _shown(item: ManifestObject, *, by: Sequence[ManifestObject]) -> bool:
    """Whether one of others lies in an item's place and is of its SKU, or of category 0, which may be any."""
    (iou_M,) = iou_matrix(boxes_of([item]), boxes_of(by))
    return any(iou >= _SAME_PLACE and one.category in (0, item.category) for iou, one in zip(iou_M, by, strict=True))


def as_ignored(item: ManifestObject) -> ManifestObject:
    """The place of a doubtful detection as a region that must teach nothing."""
    return replace(item, status="ignore")


def stray_region(box_4: Sequence[float]) -> ManifestObject:
    """Something on the board that no detection explains, as a region that must teach nothing; category 0 is no SKU."""
    x0, y0, x1, y1 = (float(value) for value in box_4)
    return ManifestObject(category=0, sku="", box=(x0, y0, x1, y1), status="ignore", reason="unexplained on the board")


def sku_histogram(objects: Iterable[ManifestObject]) -> dict[str, int]:
    """How often each SKU is among the objects that teach, most frequent first."""
    counted = Counter(item.sku for item in objects if item.status == "ok")
    return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0])))
