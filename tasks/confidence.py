"""How sure a shopping list is: calibrated scores, and for each photo the probability that its whole list is right.

Both are fitted on val and are a handful of numbers that a checkpoint's JSON holds:
- a temperature (Guo et al., "On Calibration of Modern Neural Networks", 2017) makes scores probabilities;
- a logistic regression on three signs of doubt gives a photo's confidence: how far its detections are from the
  threshold, taken together and at the closest one, and how far the counting view is from the length of the list.

A shop sends photos below `ListConfidence.acceptable` to a person. Pure numpy.

Shapes: N photos, M detections, S = 3 signs. Scores are those that meet the threshold (after the counting view's say,
where it has one); counts are scaled (`tasks.fusion.count_scale`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from storage.digest import JSON
from tasks.evaluation_analysis import RIGHT, match
from tasks.evaluation_set import EvaluationSet
from tasks.metrics import counts_at

Floats = NDArray[np.float64]

WANTED_ACCURACY = 0.99
SIGNS = ("certainty", "closest", "agreement")
_EDGE = 1e-6
_TEMPERATURES = (0.1, 10.0)
# Beyond these a sign says no more: a margin of 4 is a probability of 0.98, and two items too many are a wrong list.
_LARGEST_MARGIN, _LARGEST_GAP = 4.0, 2.0
_RIDGE = 1.0


@dataclass(frozen=True, kw_only=True)
class ListConfidence:
    """What val says about how far lists can be trusted; JSON can hold it.

    `weights`, `means` and `scales` belong to the `SIGNS`, in their order. From the confidence `acceptable` on, lists on
    val were right in WANTED_ACCURACY of the photos; it is above 1 where no cut reaches that.
    """

    temperature: float
    weights: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    bias: float
    acceptable: float

    def of(self, scores_M: ArrayLike, *, count: float, threshold: float) -> float:
        """The probability, in [0, 1], that the list of one photo is right in every line.

        Args:
            scores_M: all detections of the photo, those below the threshold too, any order.
            count: the scaled count of the counting view.
            threshold: the score from which a detection is on the list.
        """
        signs_S = signs_of(scores_M, count=count, threshold=threshold, temperature=self.temperature)
        standard_S = (signs_S - np.array(self.means)) / np.array(self.scales)
        return float(expit(standard_S @ np.array(self.weights) + self.bias))

    def to_json(self) -> dict[str, JSON]:
        """The numbers by name."""
        return asdict(self)

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> ListConfidence:
        """What `to_json` gave, also after a way through JSON."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in body.items()
        }
        return ListConfidence(**known)


# Before val has said anything no list is acceptable.
UNTRAINED = ListConfidence(
    temperature=1.0,
    weights=(0.0,) * len(SIGNS),
    means=(0.0,) * len(SIGNS),
    scales=(1.0,) * len(SIGNS),
    bias=0.0,
    acceptable=float(np.nextafter(1.0, 2.0)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What accepting every list of confidence >= `cut` means: the `share` of photos, and their list accuracy (NaN
    where none is accepted)."""

    cut: float
    share: float
    accuracy: float


def fit_temperature(scores_M: ArrayLike, *, right_M: ArrayLike) -> float:
    """The temperature T in [0.1, 10] for which sigmoid(logit(score) / T) fits best (least log loss) that a detection is
    right; 1 without detections."""
    logits_M, right_M = _logit(scores_M), np.asarray(right_M, bool)
    if not len(logits_M):
        return 1.0
    signed_M = np.where(right_M, logits_M, -logits_M)
    # Imported by who fits: a run with nothing to do should not wait for it.
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: -log_expit(signed_M * np.exp(-log_t)).mean(), bounds=np.log(_TEMPERATURES), method="bounded"
    )
    return float(np.exp(found.x))


def calibrated(scores_M: ArrayLike, *, temperature: float) -> Floats:
    """Scores in [0, 1] as probabilities of being right, float64 [M].

    >>> calibrated([0.5, 0.9], temperature=2.0).round(2).tolist()
    [0.5, 0.75]
    """
    return np.asarray(expit(_logit(scores_M) / temperature), np.float64)


def signs_of(scores_M: ArrayLike, *, count: float, threshold: float, temperature: float) -> Floats:
    """The signs of one photo, float64 [S], each larger the surer: the log probability that every detection is on its
    side of the threshold, the least calibrated margin of one, and minus the difference of count and list."""
    scores_M = np.asarray(scores_M, np.float64)
    margin_M = np.abs(_logit(scores_M) - _logit(threshold)) / temperature
    closest = float(np.min(margin_M, initial=_LARGEST_MARGIN))
    gap = abs(count - float((scores_M >= threshold).sum()))
    return np.array([log_expit(margin_M).sum(), closest, -min(gap, _LARGEST_GAP)])


def fit_confidence(evaluated: EvaluationSet, *, counts_N: Sequence[float], threshold: float) -> ListConfidence:
    """Temperature, weights and the acceptable confidence from labelled photos and what was found in them.

    Args:
        evaluated: val, with the scores that meet the threshold.
        counts_N: scaled counts, one a photo.
        threshold: the score from which a detection is on the list.
    """
    right_M = match(evaluated).kind_D == RIGHT
    temperature = fit_temperature(evaluated.found.score_M, right_M=right_M)
    signs_NS = np.array(
        [
            signs_of(scores_M, count=count, threshold=threshold, temperature=temperature)
            for scores_M, count in zip(scores_by_photo(evaluated), counts_N, strict=True)
        ]
    )
    means_S, scales_S = signs_NS.mean(axis=0), np.maximum(signs_NS.std(axis=0), _EDGE)
    right_N = lists_right(evaluated, threshold=threshold)
    weights_S, bias = _logistic((signs_NS - means_S) / scales_S, right_N=right_N)
    unrated = ListConfidence(
        temperature=temperature,
        weights=tuple(weights_S.tolist()),
        means=tuple(means_S.tolist()),
        scales=tuple(scales_S.tolist()),
        bias=bias,
        acceptable=np.inf,
    )
    confidence_N = confidences(unrated, evaluated=evaluated, counts_N=counts_N, threshold=threshold)
    return replace(unrated, acceptable=largest_acceptance(confidence_N, right_N=right_N).cut)


def _logistic(signs_NS: Floats, *, right_N: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Ridge logistic regression with weights >= 0: no sign of certainty may lower the confidence.

    Half a right and half a wrong photo without any sign keep the bias finite where all lists are right, or all wrong.
    """
    sides_N = np.where(right_N, 1.0, -1.0)

    def loss(values: Floats) -> float:
        fit = -log_expit(sides_N * (signs_NS @ values[:-1] + values[-1])).sum()
        prior = -0.5 * (log_expit(values[-1]) + log_expit(-values[-1])) + 0.5 * _RIDGE * (values[:-1] ** 2).sum()
        return float(fit + prior)

    from scipy.optimize import minimize

    size = signs_NS.shape[1]
    found = minimize(loss, np.zeros(size + 1), bounds=[(0.0, None)] * size + [(None, None)], method="L-BFGS-B")
    return np.asarray(found.x[:-1], np.float64), float(found.x[-1])


def scores_by_photo(evaluated: EvaluationSet) -> list[Floats]:
    """The scores of each photo's detections."""
    order = np.argsort(evaluated.found.photo_M, kind="stable")
    starts = np.searchsorted(evaluated.found.photo_M[order], np.arange(1, evaluated.photos))
    return np.split(evaluated.found.score_M[order], starts)


def lists_right(evaluated: EvaluationSet, *, threshold: float) -> NDArray[np.bool_]:
    """Whether each photo's list is right in every line, bool [N]."""
    found_NK, true_NK = counts_at(evaluated, threshold=threshold)
    return np.asarray((found_NK == true_NK).all(axis=1), np.bool_)


def confidences(
    confidence: ListConfidence, *, evaluated: EvaluationSet, counts_N: Sequence[float], threshold: float
) -> Floats:
    """The confidence of each photo's list, float64 [N]."""
    pairs = zip(scores_by_photo(evaluated), counts_N, strict=True)
    return np.array([confidence.of(scores_M, count=count, threshold=threshold) for scores_M, count in pairs])


def acceptance_at(confidence_N: ArrayLike, *, right_N: ArrayLike, cut: float) -> Acceptance:
    """What accepting lists from the confidence `cut` on means on labelled photos."""
    accepted_N = np.asarray(confidence_N, np.float64) >= cut
    accuracy = float(np.asarray(right_N, bool)[accepted_N].mean()) if accepted_N.any() else float("nan")
    return Acceptance(cut=cut, share=float(accepted_N.mean()) if len(accepted_N) else 0.0, accuracy=accuracy)


def largest_acceptance(confidence_N: ArrayLike, *, right_N: ArrayLike, accuracy: float = WANTED_ACCURACY) -> Acceptance:
    """The lowest cut from which on lists are right in a share `accuracy` of the photos; above 1 where there is none.

    >>> largest_acceptance([0.9, 0.8, 0.7, 0.6], right_N=[True, True, False, True], accuracy=0.9)
    Acceptance(cut=0.8, share=0.5, accuracy=1.0)
    """
    confidence_N = np.asarray(confidence_N, np.float64)
    for cut in np.unique(confidence_N).tolist():
        accepted = acceptance_at(confidence_N, right_N=right_N, cut=cut)
        if accepted.accuracy >= accuracy:
            return accepted
    return Acceptance(cut=float(np.nextafter(1.0, 2.0)), share=0.0, accuracy=float("nan"))


def acceptance_report(
    confidence: ListConfidence, *, evaluated: EvaluationSet, counts_N: Sequence[float], threshold: float
) -> dict[str, JSON]:
    """How many lists of photos that took no part in the fit can be accepted unseen, and how right those are.

    `frozen`: at the cut that val chose. `tuned`: at the best cut on these very photos, which no shop can know.
    """
    confidence_N = confidences(confidence, evaluated=evaluated, counts_N=counts_N, threshold=threshold)
    right_N = lists_right(evaluated, threshold=threshold)
    frozen = acceptance_at(confidence_N, right_N=right_N, cut=confidence.acceptable)
    return {
        "wanted_accuracy": WANTED_ACCURACY,
        "frozen": asdict(frozen),
        "tuned": asdict(largest_acceptance(confidence_N, right_N=right_N)),
        "mean_confidence": float(confidence_N.mean()),
        "right": float(right_N.mean()),
        "temperature": confidence.temperature,
    }


def _logit(scores: ArrayLike) -> Floats:
    inner = np.clip(np.asarray(scores, np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inner / (1 - inner)), np.float64)
