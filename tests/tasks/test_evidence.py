"""Evidence on made distances by hand and by brute force; embeddings against turned pictures."""

import cv2
import numpy as np
import pytest

from models.embedding import CutoutEmbedding
from tasks.cutouts import neutral_patch, turned
from tasks.evidence import PoolCrop, best_apart, channel_scale, claims, distances, embed, evidence, vectors
from tests.tasks.test_cutouts import product_photo


def shown(distance_NM, skus_N, *, owners_M=None):
    """Evidence of all views, product after product."""
    distance_NM, skus_N = np.asarray(distance_NM, np.float32), np.asarray(skus_N)
    blocks = [distance_NM[skus_N == sku] for sku in range(skus_N.max() + 1)]
    owners_M = np.full(distance_NM.shape[1], -1) if owners_M is None else np.asarray(owners_M)
    best_KM = np.stack([block.min(axis=0) for block in blocks])
    claim_KM = claims(best_KM, owners_M=owners_M, sharpness=30, distrust=20)
    pairs = zip(blocks, claim_KM, strict=True)
    return np.concatenate([evidence(block, claim_M, sharpness=30) for block, claim_M in pairs])


def test_evidence__goes_to_the_view_that_is_seen():
    # Two products of two views; three crops look like the first view of product 0, one like the second of product 1.
    made = shown([[0.1, 0.1, 0.1, 0.5], [0.3, 0.3, 0.3, 0.5], [0.4, 0.4, 0.4, 0.3], [0.4, 0.4, 0.4, 0.1]], [0, 0, 1, 1])
    assert made[0] == pytest.approx(3, abs=0.05)
    assert made[3] == pytest.approx(1, abs=0.05)
    assert made[1] < 0.1 and made[2] < 0.1


def test_claims__look_alikes_share():
    assert shown([[0.1], [0.1]], [0, 1]) == pytest.approx([0.5, 0.5])


def test_claims__a_named_crop_goes_to_its_product():
    assert shown([[0.1], [0.1]], [0, 1], owners_M=[1]) == pytest.approx([0.0, 1.0])


def test_claims__never_more_than_the_crop():
    rng = np.random.default_rng(0)
    made = claims(rng.random((5, 40), np.float32), owners_M=np.full(40, -1), sharpness=30, distrust=20)
    assert (made >= 0).all() and (made.sum(axis=0) <= 1 + 1e-5).all()


def test_claims__strange_crops_say_little():
    with_strange = shown([[0.1, 0.1, 0.4], [0.2, 0.2, 0.41]], [0, 1])
    assert with_strange == pytest.approx(shown([[0.1, 0.1], [0.2, 0.2]], [0, 1]), abs=0.01)


def test_distances__as_brute_force():
    rng = np.random.default_rng(0)
    views, turns = rng.random((5, 7), np.float32), rng.random((70, 3, 7)).astype(np.float16)
    expected = [[np.linalg.norm(view - crop.astype(np.float64), axis=1).min() for crop in turns] for view in views]
    assert np.allclose(distances(views, turns), expected, atol=1e-3)


def test_channel_scale__as_numpy():
    rng = np.random.default_rng(0)
    maps = rng.normal(3, 2, (6, 4, 5, 2, 2)).astype(np.float16)
    crops = [PoolCrop("pool/1", (0, 0, 1, 1), one) for one in maps]
    assert np.allclose(channel_scale(crops), maps.astype(np.float64).std(axis=(0, 1, 3, 4)), rtol=1e-3)


def test_vectors__length_is_the_square_root():
    maps = np.full((1, 4, 2, 2), 3.0)
    # Scaled to 1.5 everywhere: length 6 over 16 numbers.
    made = vectors(maps, scale_C=np.full(4, 2.0, np.float32))
    assert np.linalg.norm(made) == pytest.approx(np.sqrt(6))


def test_best_apart__keeps_the_better_of_two_that_overlap():
    boxes = [(0, 0, 10, 10), (1, 0, 11, 10), (50, 50, 60, 60), (0, 0, 10, 10)]
    photos = ["pool/1", "pool/1", "pool/1", "pool/2"]
    none = np.zeros((1, 1, 1, 1), np.float16)
    crops = [PoolCrop(photo, box, none) for photo, box in zip(photos, boxes, strict=True)]
    assert best_apart(np.array([0.3, 0.2, 0.9, 0.8], np.float32), crops) == [1, 2, 3]


@pytest.fixture(scope="module")
def embedding():
    return CutoutEmbedding(backbone="efficientnet_lite0")


def embedded(embedding, photo, mask, *, rotations):
    return np.stack(list(embed(embedding, turned(neutral_patch(photo, mask), rotations=rotations))))


@pytest.mark.parametrize("turn", [15.0, 90.0, 200.0])
def test_distances__find_the_turned_product(embedding, turn):
    photo, mask = product_photo(1, 0)
    matrix = cv2.getRotationMatrix2D((60, 60), turn, 1.3)
    turned_photo = cv2.warpAffine(photo, matrix, (120, 120), borderValue=(190, 190, 190))
    turned_mask = cv2.warpAffine(mask.astype(np.uint8), matrix, (120, 120)) > 0
    views = np.concatenate([embedded(embedding, *product_photo(one, 0), rotations=1) for one in (1, 2)])
    crop = PoolCrop("pool/1", (0, 0, 1, 1), embedded(embedding, turned_photo, turned_mask, rotations=12))
    scale = channel_scale([crop])
    turns = vectors(crop.maps_RCGG, scale_C=scale).astype(np.float16)[None]
    same, different = distances(vectors(views, scale_C=scale), turns)[:, 0]
    assert same < 0.75 * different


def test_embed__batches_change_little(embedding):
    patches = [neutral_patch(*product_photo(1, turn)) for turn in range(0, 70, 2)]
    together = np.stack(list(embed(embedding, patches)))
    alone = np.stack([next(embed(embedding, [patch])) for patch in patches])
    assert together.shape == (35, 112, 6, 6)
    assert np.abs(together - alone).max() < 0.05
