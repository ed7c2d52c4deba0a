"""Which detections of an unlabelled photo are trusted: pure decisions on detections and counts, no pixels, no labels.

Image level: a photo is taken whole when the detection view and the counting view agree on the number of products and
nothing about it is doubtful. Instance level: of the other photos, the trusted items are taken and the doubtful ones
are erased (DPSNet, IEEE TMM 2021, section III; there the agreement is tuned with the truth of the test photos). The
paper's own rule and no rule at all are there to compare with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from storage.boxes import Boxes, iou_matrix
from storage.manifest import ManifestObject
from tasks.params import SelectParams

_SAME_PLACE = 0.5
# A SKU rivals another one in its place from this share of its score: less is what look-alikes always get.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the counting view says: the number of products, and where it counts in several channels (of
    super-categories or products) the number in each, with the channel of every category."""

    total: float
    by_channel: tuple[float, ...] = ()
    channel_of: Mapping[int, int] = field(default_factory=dict)

    def scaled(self, factor: float) -> Counts:
        """All numbers times a factor."""
        return replace(self, total=factor * self.total, by_channel=tuple(factor * one for one in self.by_channel))


def boxes_of(objects: Iterable[ManifestObject]) -> Boxes:
    """Boxes of objects, xyxy float32 [N, 4]."""
    return np.asarray([item.box for item in objects], np.float32).reshape(-1, 4)


def judge(
    objects: Sequence[ManifestObject], *, params: SelectParams, other_views: Sequence[Sequence[ManifestObject]] = ()
) -> Judged:
    """Sort a photo's detections into trusted and doubtful ones; what scores below `doubtful_score` is neither.

    `other_views` are the detections in augmented views of the same photo, mapped back into its frame: an item that
    too few of them show is doubtful, and so is an item that only another view trusts. Rules other than "views" know no
    doubt: what does not reach `confident_score` is not there.
    """
    winners = _winners(objects, params=params)
    if params.rule != "views":
        confident = [item for item in winners if _score(item) >= params.confident_score]
        return Judged(trusted=tuple(replace(item, reason="") for item in confident), doubtful=())
    views = [_winners(view, params=params) for view in other_views]
    judged = [_judged(item, params=params, views=views) for item in winners]
    unseen = [item for view in views for item in _only_there(view, known=winners, params=params)]
    return Judged(
        trusted=tuple(item for item in judged if not item.reason),
        doubtful=tuple(item for item in [*judged, *unseen] if item.reason),
    )


def _winners(objects: Sequence[ManifestObject], *, params: SelectParams) -> list[ManifestObject]:
    """Best detection of each place (non-maximum suppression over all SKUs); it bears a reason if another SKU claims the
    place nearly as strongly."""
    ranked = sorted((item for item in objects if _score(item) >= params.doubtful_score), key=_rank)
    boxes_N4 = boxes_of(ranked)
    iou_NN = iou_matrix(boxes_N4, boxes_N4)
    taken = np.zeros(len(ranked), np.bool_)
    winners = []
    for place, item in enumerate(ranked):
        if taken[place]:
            continue
        covered = np.flatnonzero((iou_NN[place] > params.nms) & ~taken)
        taken[covered] = True
        rivals = [ranked[other] for other in covered if _rivals(ranked[other], item)]
        winners.append(replace(item, reason=f"also looks like {rivals[0].sku}" if rivals else ""))
    return winners


def _rivals(other: ManifestObject, item: ManifestObject) -> bool:
    return other.category != item.category and _score(other) >= _RIVAL * _score(item)


def _score(item: ManifestObject) -> float:
    assert item.score is not None, "a detection without a score"
    return item.score


def _rank(item: ManifestObject) -> tuple[float, tuple[float, ...], int]:
    return -_score(item), item.box, item.category


def _judged(item: ManifestObject, *, params: SelectParams, views: Sequence[Sequence[ManifestObject]]) -> ManifestObject:
    if _score(item) < params.confident_score:
        return replace(item, reason=f"score {_score(item):.2f} below {params.confident_score:g}")
    shown = sum(_is_in(item, others=view) for view in views)
    if not item.reason and shown < params.agreement * len(views):
        return replace(item, reason=f"found in {shown} of {len(views)} other views")
    return item


def _is_in(item: ManifestObject, *, others: Sequence[ManifestObject]) -> bool:
    same = [other for other in others if other.category == item.category]
    return bool((iou_matrix(boxes_of([item]), boxes_of(same)) >= _SAME_PLACE).any())


def _only_there(
    view: Sequence[ManifestObject], *, known: Sequence[ManifestObject], params: SelectParams
) -> list[ManifestObject]:
    confident = [item for item in view if _score(item) >= params.confident_score]
    overlap_NM = iou_matrix(boxes_of(confident), boxes_of(known))
    return [
        replace(item, reason="found in another view only")
        for item, overlap_M in zip(confident, overlap_NM, strict=True)
        if not (overlap_M >= _SAME_PLACE).any()
    ]


def objection(judged: Judged, *, counts: Counts, strays: int, params: SelectParams) -> str:
    """Why a photo is not taken whole; "" where nothing speaks against it."""
    trusted = len(judged.trusted)
    if not trusted:
        return "nothing trusted"
    if params.rule == "all":
        return ""
    if params.rule == "paper":
        return "" if trusted == round(counts.total) else _miscounted(trusted, counts.total)
    if judged.doubtful:
        return f"{len(judged.doubtful)} doubtful: {judged.doubtful[0].reason}"
    if strays:
        return f"{strays} unexplained on the board"
    if judged.precision < params.precision:
        return f"expected precision {judged.precision:.2f} below {params.precision:g}"
    if abs(trusted - counts.total) > params.tolerance:
        return _miscounted(trusted, counts.total)
    return _channel_objection(judged.trusted, counts=counts, tolerance=params.tolerance)


def _miscounted(trusted: int, count: float) -> str:
    return f"{trusted} trusted, counting view says {count:.2f}"


def _channel_objection(trusted: Sequence[ManifestObject], *, counts: Counts, tolerance: float) -> str:
    """The first channel of the counting view that disagrees: right totals may hide two errors."""
    found = Counter(counts.channel_of.get(item.category) for item in trusted)
    for channel, count in enumerate(counts.by_channel):
        if abs(found[channel] - count) > tolerance:
            skus = sorted({item.sku for item in trusted if counts.channel_of.get(item.category) == channel})
            return f"{_miscounted(found[channel], count)} in channel {channel} ({', '.join(skus) or 'nothing found'})"
    return ""


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
