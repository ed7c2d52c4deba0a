"""Stage `select`: pseudo-labels out of predictions on the pool. It never sees a label of the pool.

Of a pool row only the location, digest and size of its photo are read; a pool row that carries objects is refused, so
that no truth can slip in. Where predictions on val are given, they calibrate scores (to probabilities of being right)
and the counts first. Every photo gets a row "pseudo/<stem>" that says why it was taken or not:

    taken whole     the row refers to the pool's photo; attributes.mode = "image"
    taken in part   a photo of its own, doubtful places painted over with board and marked "ignore"; mode = "instance"
    not taken       status "rejected" and the reason; its objects are what was proposed, and teach nothing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from storage.boxes import area
from storage.catalog import categories_of
from storage.digest import JSON
from storage.images import Picture, encode_jpeg
from storage.manifest import Manifest, ManifestObject, ManifestRow
from storage.reviews import Subject, label_text, verdicts_of
from tasks.calibration import Calibration, fit_calibration
from tasks.context import StageContext
from tasks.evaluation_analysis import RIGHT, match
from tasks.evaluation_set import EvaluationSet, from_manifests, with_found
from tasks.guard_rails import expected_skus, guard_rails, plot_guard_rails
from tasks.look import is_board
from tasks.params import SelectParams
from tasks.repaint import LitBoard, closest_board, grown, paint_board, stray_boxes
from tasks.selection import Counts, Judged, as_ignored, boxes_of, consensus, judge, objection, put_right, stray_region
from tasks.stage import stage

PLOT_ROW = "plot/guard_rails"
_BOX_SLACK = 0.06
_TAKEN = {"views": "both views agree", "paper": "both views say the same number", "all": "taken without a choice"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPhoto:
    """All that selection may know of a pool photo itself."""

    item_id: str
    url: str
    digest: str
    bytes: int
    media_type: str
    width: int | None
    height: int | None

    @property
    def as_row(self) -> ManifestRow:
        """A row that reads this photo and nothing else."""
        return ManifestRow(item_id=self.item_id, path=self.url, url=self.url, digest=self.digest, bytes=self.bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A pool photo with what the model sees in it: detections, those in augmented views, the counting view's counts."""

    photo: PoolPhoto
    objects: tuple[ManifestObject, ...]
    other_views: tuple[tuple[ManifestObject, ...], ...]
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What becomes of one photo: its row, and the repainted picture where there is one."""

    row: ManifestRow
    painted: bytes | None = None


def unlabelled(row: ManifestRow) -> PoolPhoto:
    """The photo of a pool row.

    Raises:
        ValueError: the row carries objects, which only truth can have put there.
    """
    if row.objects:
        raise ValueError(
            f"select: expected a pool without labels, got {len(row.objects)} objects in {row.item_id}; "
            "selection must not see the truth: ingest the photos as pool"
        )
    return PoolPhoto(
        item_id=row.item_id,
        url=row.url,
        digest=row.digest,
        bytes=row.bytes,
        media_type=row.media_type,
        width=row.width,
        height=row.height,
    )


def predicted(photo: PoolPhoto, *, predictions: Manifest, other_views: Sequence[Manifest] = ()) -> Predicted:
    """A photo with its predictions: of the photo as it is, and of augmented views of it.

    Raises:
        ValueError: a prediction or the counting view's count is missing.
    """
    rows = [manifest.by_id.get(photo.item_id) for manifest in (predictions, *other_views)]
    found = [row for row in rows if row is not None]
    if len(found) < len(rows):
        raise ValueError(f"select: expected a prediction for every pool photo, got none for {photo.item_id}")
    count = found[0].attributes.get("count")
    if count is None:
        raise ValueError(f"select: expected the counting view's count of {photo.item_id}, got none; predict again")
    objects, *others = [tuple(item for item in row.objects if item.status == "ok") for row in found]
    counts = Counts(
        total=float(count),
        by_channel=tuple(float(one) for one in found[0].attributes.get("counts", ())),
        channel_of={int(category): channel for category, channel in predictions.content.get("channels", {}).items()},
    )
    return Predicted(photo=photo, objects=objects, other_views=tuple(others), counts=counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValCalibration:
    """What val taught about a checkpoint: how scores became right detections, what votes of all views are worth, by how
    much its counts are off, and what error is left then, over the square root of the number counted."""

    scores: Calibration = Calibration()
    votes: Calibration = Calibration()
    count_scale: float = 1.0
    count_error: float = 0.0


def calibration_on(
    val: Manifest | None,
    *,
    predictions: Manifest | None,
    params: SelectParams,
    other_views: Sequence[Manifest] = (),
) -> ValCalibration:
    """The calibration of a checkpoint by its predictions on val; without val, everything stays as it is.

    `other_views`: predictions on augmented views of val. Without them a mean of votes counts as a probability.

    Raises:
        ValueError: only one of the two is given, or they do not belong together.
    """
    if val is None or predictions is None:
        if val is not predictions:
            raise ValueError("select: expected val and val_predictions together, got one of them")
        return ValCalibration()
    evaluated = from_manifests(val, predictions=predictions, categories=categories_of(val), role="val")
    counts_P = np.array([float(predictions.row(photo).attributes.get("count") or 0.0) for photo in evaluated.photo_ids])
    scores = _fitted(evaluated)
    if not other_views or params.rule != "views":
        votes = Calibration()
    else:
        views = [
            [manifest.row(photo).objects for manifest in (predictions, *other_views)] for photo in evaluated.photo_ids
        ]
        elected = [consensus([_calibrated(one, scores) for one in seen], params=params) for seen in views]
        trusted = [tuple(item for item in items if not item.reason) for items in elected]
        votes = _fitted(with_found(evaluated, [ManifestRow(item_id="", objects=items) for items in trusted]))
    numbers_P = np.array([len(val.row(photo).objects) for photo in evaluated.photo_ids])
    count_scale, count_error = _counting(counts_P, numbers_P=numbers_P)
    return ValCalibration(scores=scores, votes=votes, count_scale=count_scale, count_error=count_error)


def _counting(counts_P: np.ndarray, *, numbers_P: np.ndarray) -> tuple[float, float]:
    """What counts of photos are multiplied with to have the right sum, and the root mean square of the error that is
    left, over the square root of the number: so much do counts of independent products err."""
    if counts_P.sum() <= 0:
        return 1.0, 0.0
    scale = float(numbers_P.sum() / counts_P.sum())
    errors_P = (scale * counts_P - numbers_P) / np.sqrt(np.maximum(numbers_P, 1))
    return scale, float(np.sqrt(np.mean(np.square(errors_P))))


def _fitted(evaluated: EvaluationSet) -> Calibration:
    return fit_calibration(evaluated.found.score_M, right_M=match(evaluated).kind_D == RIGHT)


def calibrated(seen: Predicted, *, calibration: ValCalibration) -> Predicted:
    """The same detections with probabilities of being right as scores, and the count that they should have had."""
    if calibration == ValCalibration():
        return seen
    views = [_calibrated(view, calibration.scores) for view in (seen.objects, *seen.other_views)]
    counts = replace(seen.counts.scaled(calibration.count_scale), error=calibration.count_error)
    return replace(seen, objects=views[0], other_views=tuple(views[1:]), counts=counts)


def _calibrated(objects: Sequence[ManifestObject], calibration: Calibration) -> tuple[ManifestObject, ...]:
    scores = calibration([item.score or 0.0 for item in objects]).tolist()
    return tuple(replace(item, score=score) for item, score in zip(objects, scores, strict=True))


def select_photo(
    photo_HW3: Picture,
    *,
    seen: Predicted,
    boards: Sequence[Picture],
    params: SelectParams,
    verdicts: Mapping[Subject, str] | None = None,
    votes: Calibration | None = None,
) -> Selected:
    """Decide on one photo (uint8 RGB) and make its row; see the module's docstring.

    `verdicts`: what people said; `votes`: from a mean of all views' scores to a probability.
    """
    judged = judge(seen.objects, params=params, other_views=seen.other_views)
    if votes is not None and params.rule == "views":
        judged = replace(judged, trusted=_calibrated(judged.trusted, votes))
    if not judged.trusted:
        return Selected(row=_row(seen, judged=judged, strays=0, status="rejected", reason="nothing trusted"))
    everything_N4 = grown(boxes_of([*judged.trusted, *judged.doubtful]), margin=_BOX_SLACK)
    lit = closest_board(photo_HW3, boards=list(boards), boxes_N4=everything_N4)
    strays_N4 = _strays(lit, judged=judged, params=params)
    against = objection(judged, counts=seen.counts, strays=len(strays_N4), params=params)
    row = partial(_row, seen, judged=judged, strays=len(strays_N4), weight=_weight(seen, judged=judged, params=params))
    verdict = (verdicts or {}).get(("pseudo", pseudo_id(seen.photo), label_text(judged.trusted)))
    if verdict == "bad":
        return Selected(row=row(status="rejected", reason="a person marked this list as bad"))
    if verdict == "good":
        return Selected(row=row(mode="image", objects=judged.trusted, reason="a person marked this list as good"))
    doubtful = tuple(map(as_ignored, judged.doubts(params=params)))
    if not against:
        return Selected(row=row(mode="image", objects=judged.trusted, reason=_TAKEN[params.rule]))
    if params.mode == "image":
        return Selected(row=row(status="rejected", reason=against))
    ignored = [*doubtful, *map(stray_region, strays_N4.tolist())]
    objects = (*judged.trusted, *ignored)
    if not ignored:
        return Selected(row=row(mode="instance", objects=objects, reason=against))
    if lit is None:
        return Selected(row=row(status="rejected", reason=f"{against}; too little board is bare to paint with"))
    painted_HW3, _ = paint_board(
        photo_HW3, lit=lit, doubtful_N4=boxes_of(ignored), kept_N4=boxes_of(judged.trusted), margin=params.margin
    )
    painted = encode_jpeg(painted_HW3, quality=params.quality)
    return Selected(row=row(mode="instance", objects=objects, reason=against), painted=painted)


def pseudo_id(photo: PoolPhoto) -> str:
    """The item_id of a pool photo's pseudo-label."""
    return f"pseudo/{photo.item_id.split('/', 1)[-1]}"


def _strays(lit: LitBoard | None, *, judged: Judged, params: SelectParams) -> np.ndarray:
    if lit is None or params.rule != "views":
        return np.empty((0, 4), np.float32)
    item = float(np.median(area(boxes_of(judged.trusted))))
    return stray_boxes(lit, contrast=params.stray_contrast, least_area=params.stray_area * item)


def _row(
    seen: Predicted,
    *,
    judged: Judged,
    strays: int,
    reason: str,
    weight: float = 1.0,
    mode: str | None = None,
    objects: tuple[ManifestObject, ...] = (),
    status: str = "ok",
) -> ManifestRow:
    """The row of a photo; it refers to the pool's file unless the photo was rejected. Then `objects` is all that was
    proposed."""
    photo = seen.photo
    if status != "ok":
        objects = (*judged.trusted, *map(as_ignored, judged.doubtful))
    attributes: dict[str, JSON] = {
        "count": seen.counts.total,
        "trusted": len(judged.trusted),
        "doubtful": len(judged.doubtful),
        "strays": strays,
        **({"weight": weight} if weight != 1 else {}),
        **({"mode": mode} if mode else {}),
    }
    row = ManifestRow(
        item_id=pseudo_id(photo),
        width=photo.width,
        height=photo.height,
        split="pseudo",
        parents=(photo.item_id,),
        objects=objects,
        quality=_quality(objects),
        status=status,
        reason=reason,
        attributes=attributes,
    )
    if status != "ok":
        return row
    return replace(row, path=photo.url, digest=photo.digest, bytes=photo.bytes, media_type=photo.media_type)


def _weight(seen: Predicted, *, judged: Judged, params: SelectParams) -> float:
    """How often a student sees the photo, relative to one that teaches nothing that its teacher's plain view did not
    know: there is most to learn where the other views know better."""
    if params.rule != "views":
        return 1.0
    return 1.0 + params.emphasis * put_right(judged, plain=seen.objects, params=params) / len(judged.trusted)


def _quality(objects: Sequence[ManifestObject]) -> float | None:
    """Estimated probability that every item that teaches is right; None where none does."""
    scores = [item.score for item in objects if item.status == "ok" and item.score is not None]
    return float(np.prod(scores)) if scores else None


def at_most(decided: Iterable[Selected], *, most: int | None) -> Iterator[Selected]:
    """The same decisions; photos taken after the first `most` (None: no limit) are rejected."""
    taken = 0
    for one in decided:
        surplus = most is not None and taken >= most and one.row.status == "ok"
        yield Selected(row=_not_drawn(one.row, most=most)) if surplus else one
        taken += one.row.status == "ok"


def _not_drawn(row: ManifestRow, *, most: int | None) -> ManifestRow:
    bare = replace(row, path="", url="", digest="", bytes=0, media_type="", quality=None, status="rejected")
    return replace(bare, reason=f"not drawn: at most {most} photos are taken ({row.reason})")


def _keep(context: StageContext, selected: Selected) -> ManifestRow:
    if selected.painted is None:
        return context.add(selected.row)
    row = replace(selected.row, digest="", bytes=0, media_type="image/jpeg")
    return context.put(selected.painted, path=f"photos/{row.item_id.split('/', 1)[1]}.jpg", row=row)


@stage(SelectParams)
def select(
    context: StageContext,
    *,
    params: SelectParams,
    pool: Manifest,
    predictions: Manifest,
    boards: Manifest,
    other_views: Sequence[Manifest] = (),
    val: Manifest | None = None,
    val_predictions: Manifest | None = None,
    val_other_views: Sequence[Manifest] = (),
    reviews: Manifest | None = None,
    former: Manifest | None = None,
) -> None:
    """One row "pseudo/<stem>" for each readable pool photo; see the module's docstring.

    `other_views` are predictions on augmented views of the pool, boxes mapped back into the photos' frames.
    `val` and `val_predictions`, of the same checkpoint, calibrate the scores; `val_other_views`, in the same views of
    val as `other_views` of the pool, what the views' votes are worth. `reviews` are people's decisions: they
    hold for a photo while the trusted detections amount to the list that was judged. `former`: what the teacher of the
    round before selected; it changes no decision, only what is told of the disagreement of both.
    """
    if val_other_views and len(val_other_views) != len(other_views):
        raise ValueError(f"val_other_views: expected the {len(other_views)} of the pool, got {len(val_other_views)}")
    calibration = calibration_on(val, predictions=val_predictions, other_views=val_other_views, params=params)
    pictures = [context.read_rgb(row) for row in boards.ok if is_board(row)]
    if not pictures:
        raise ValueError("select: expected at least one board to paint with, got none; run `board` on the pool first")

    verdicts = verdicts_of(reviews)

    def decide(seen: Predicted) -> Selected:
        photo_HW3 = context.read_rgb(seen.photo.as_row)
        return select_photo(
            photo_HW3, seen=seen, boards=pictures, params=params, verdicts=verdicts, votes=calibration.votes
        )

    photos = [predicted(unlabelled(row), predictions=predictions, other_views=other_views) for row in pool.ok]
    if params.most is not None:
        context.generator("order").shuffle(photos)
    seen_photos = [calibrated(seen, calibration=calibration) for seen in photos]
    decided = context.map(decide, seen_photos, what="photos judged")
    rows = [_keep(context, one) for one in at_most(decided, most=params.most)]
    expected = expected_skus(seen.objects for seen in seen_photos)
    figures = guard_rails(rows, expected=expected, former=former)
    context.metadata["guard_rails"] = figures
    plot = ManifestRow(item_id=PLOT_ROW, media_type="image/svg+xml", status="artifact")
    context.put(plot_guard_rails(figures), path="guard_rails.svg", row=plot)
    for flag in figures["flags"]:
        context.log(flag)
    context.metadata["calibration"] = {
        **asdict(calibration.scores),
        "votes": asdict(calibration.votes),
        "count_scale": calibration.count_scale,
        "count_error": calibration.count_error,
    }
    context.report(**{name: value for name, value in figures.items() if isinstance(value, (int, float))})
    if not figures["image"] and not figures["instance"]:
        context.log(f"no pool photo was taken: no detection reaches {params.confident_score:g} in {len(rows)} photos")
