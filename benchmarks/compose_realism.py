"""How easily composed photos are told from the pool's, without training a detector: for `benchmarks.compose`.

Frozen ImageNet features of whole photos; a logistic regression told to tell composed from pool photos, judged on photos
held out; and the kernel inception distance. With all features everything synthetic is found out, so the same is
asked with the pool's own principal directions: is a photo odd in the ways in which pool photos differ?
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.backbones import build_backbone

Photo = NDArray[np.uint8]
Features = NDArray[np.float64]

DIRECTIONS = 16


def photo_features(photos: Sequence[Photo], *, side: int = 320) -> Features:
    """Frozen ImageNet features: means and standard deviations of EfficientNet-Lite0 maps at strides 4 to 32, [N, D]."""
    network = build_backbone("efficientnet_lite0", pretrained=True, out_strides=(4, 8, 16, 32)).eval()
    rows = []
    for photo_HW3 in photos:
        small_HW3 = cv2.resize(photo_HW3, (side, side), interpolation=cv2.INTER_AREA)
        batch_13HW = torch.from_numpy(small_HW3).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            maps = network((batch_13HW - 0.5) / 0.5)
        rows.append(torch.cat([value for one in maps for value in (one.mean((0, 2, 3)), one.std((0, 2, 3)))]).numpy())
    return np.asarray(rows, np.float64)


def realism(own_ND: Features, pool_MD: Features) -> dict[str, float]:
    """AUC with all features and in the pool's principal directions, and KID; 0.5, 0.5 and 0 for what can't be told."""
    own_NK, pool_MK = (in_directions(one, pool_MD) for one in (own_ND, pool_MD))
    return {
        "auc": separation(own_ND, pool_MD),
        f"auc_{DIRECTIONS}_directions": separation(own_NK, pool_MK),
        "kid": kernel_inception_distance(own_ND, pool_MD),
    }


def in_directions(features_ND: Features, pool_MD: Features) -> Features:
    """Standardised features along the pool's first principal directions, [N, DIRECTIONS]."""
    middle_D, spread_D = pool_MD.mean(0), pool_MD.std(0) + 1e-6
    _, _, directions_DD = np.linalg.svd((pool_MD - middle_D) / spread_D, full_matrices=False)
    return (features_ND - middle_D) / spread_D @ directions_DD[:DIRECTIONS].T


def separation(own_ND: Features, pool_MD: Features, *, folds: int = 5) -> float:
    """AUC on held-out photos of a logistic regression (L2, standardised features) told to tell the two sets apart."""
    features = np.concatenate([own_ND, pool_MD])
    labels = np.repeat([0.0, 1.0], [len(own_ND), len(pool_MD)])
    order = np.random.default_rng(0).permutation(len(labels))
    scores = np.zeros(len(labels))
    for fold in range(folds):
        held = np.isin(np.arange(len(labels)), order[fold::folds])
        middle, spread = features[~held].mean(0), features[~held].std(0) + 1e-6
        weights = _fit_logistic((features[~held] - middle) / spread, labels[~held])
        scores[held] = (features[held] - middle) / spread @ weights[:-1] + weights[-1]
    ranks = scores.argsort().argsort() + 1
    positive = labels == 1
    pairs = positive.sum() * (~positive).sum()
    return float((ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs)


def _fit_logistic(features_ND: Features, labels_N: Features, *, decay: float = 1.0) -> Features:
    signs_N = 2 * labels_N - 1
    inputs = np.column_stack([features_ND, np.ones(len(features_ND))])

    def loss(weights: Features) -> tuple[float, Features]:
        margins = signs_N * (inputs @ weights)
        penalised = np.append(weights[:-1], 0)
        gradient = -inputs.T @ (signs_N / (1 + np.exp(np.clip(margins, -50, 50)))) + decay * penalised
        return float(np.logaddexp(0, -margins).sum() + decay / 2 * penalised @ penalised), gradient

    found = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x, np.float64)


def kernel_inception_distance(own_ND: Features, pool_MD: Features) -> float:
    """Unbiased squared MMD with the cubic kernel (Binkowski et al., ICLR 2018), features standardised by the pool."""
    middle, spread = pool_MD.mean(0), pool_MD.std(0) + 1e-6
    own, pool = (own_ND - middle) / spread, (pool_MD - middle) / spread

    def kernel(left: Features, right: Features) -> Features:
        return (left @ right.T / left.shape[1] + 1) ** 3

    inside = [
        (kernel(one, one).sum() - np.trace(kernel(one, one))) / (len(one) * (len(one) - 1)) for one in (own, pool)
    ]
    return float(sum(inside) - 2 * kernel(own, pool).mean())
