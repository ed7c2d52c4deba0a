import io

import cv2
import numpy as np
import pytest
from PIL import Image

from storage.images import encode_png
from tasks.look import (
    detail_share,
    jpeg_quality_of,
    noise_level,
    places_of,
    product_mask,
    product_score,
    shadow_profile,
    shadow_reach,
    single_blobs,
    tone_levels,
)


@pytest.mark.parametrize("sigma", [1.0, 4.0])
def test_noise_level__is_blind_to_gradients_and_masked_products(sigma):
    generator = np.random.default_rng(0)
    ramp = np.linspace(80, 160, 200)[:, None, None] * np.ones((1, 200, 3))
    noise = generator.normal(0, sigma, (200, 200, 1))
    photo = np.clip(np.rint(ramp + noise), 0, 255)
    photo[50:80, 50:80] = 0
    bare = np.ones((200, 200), bool)
    bare[45:85, 45:85] = False
    assert noise_level(photo.astype(np.uint8), bare_HW=bare) == pytest.approx(sigma, rel=0.1)
    assert noise_level(photo.astype(np.uint8), bare_HW=np.zeros_like(bare)) == 0


def test_detail_share__falls_with_blur_and_ignores_contrast():
    grey = np.random.default_rng(0).uniform(0, 255, (80, 80)).astype(np.float32)
    inside = np.ones((80, 80), bool)
    sharp, soft = (detail_share(cv2.GaussianBlur(grey, (0, 0), sigma), mask_HW=inside) for sigma in (0.6, 1.2))
    assert sharp > 2 * soft
    assert detail_share(0.5 * grey, mask_HW=inside) == pytest.approx(detail_share(grey, mask_HW=inside), rel=1e-4)


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5])
def test_shadow_profile__finds_the_direction(angle):
    products = np.zeros((120, 120), bool)
    products[40:70, 50:80] = True
    shift = np.asarray([[1, 0, 5 * np.cos(angle)], [0, 1, 5 * np.sin(angle)]])
    shadow = cv2.warpAffine(products.astype(np.float32), shift, (120, 120)) * 0.4
    departure = np.log1p(-shadow)[..., None].repeat(3, axis=-1)
    ambient, directed, found = shadow_profile(departure, products_hw=products)
    assert np.cos(found - angle) > 0.95
    assert 0.02 < directed < 0.4 and ambient > 0.02
    assert shadow_profile(departure, products_hw=np.zeros_like(products)) == (0, 0, 0)


def test_shadow_reach__longer_shadows_reach_farther():
    reaches = []
    for length in (4, 10):
        departure, products = np.zeros((80, 80, 3), np.float32), np.zeros((80, 80), bool)
        products[30:50, 20:40] = True
        departure[30:50, 40 : 40 + length] = -0.4
        reaches.append(shadow_reach(departure, products_hw=products, angle=0.0))
        assert shadow_reach(departure, products_hw=products, angle=np.pi) == 0
    # The one pixel right beside the product is not looked at.
    assert reaches == pytest.approx([2, 5], abs=0.6)


def test_product_score__shadows_are_no_products():
    departure = np.zeros((30, 30, 3), np.float32)
    departure[5:12, 5:12] = (0.4, -0.5, -0.6)
    departure[18:25, 18:25] = -0.3
    mask = product_mask(product_score(departure, saliency_hw=None))
    assert mask[8, 8] and not mask[21, 21]
    saliency = np.zeros((30, 30), np.float32)
    saliency[18:25, 18:25] = 0.9
    assert product_mask(product_score(departure, saliency_hw=saliency))[21, 21]


def test_single_blobs__measures_compact_blobs_away_from_the_border():
    score = np.zeros((160, 160), np.float32)
    score[20:40, 30:80] = 1
    score[100:112, 0:40] = 1
    score[90:100, 90:140] = score[60:100, 130:140] = 1
    sides = single_blobs(score, height=480, width=480)
    assert sides.shape == (1, 2)
    assert sides[0] == pytest.approx([150, 60], abs=3)


@pytest.mark.parametrize("quality", [30, 50, 75, 80, 95])
def test_jpeg_quality_of__reads_the_encoders_quality(quality):
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    assert abs(jpeg_quality_of(data) - quality) <= 1
    assert jpeg_quality_of(encode_png(picture)) is None


def test_jpeg_quality_of__not_that_of_a_thumbnail_in_the_exif():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    whole, thumbnail = io.BytesIO(), io.BytesIO()
    picture.save(thumbnail, "JPEG", quality=20)
    picture.save(whole, "JPEG", quality=92, exif=b"Exif\0\0" + thumbnail.getvalue())
    assert abs(jpeg_quality_of(whole.getvalue()) - 92) <= 1
    # Filling bytes may stand before a marker.
    tables = whole.getvalue().index(b"\xff\xdb", len(thumbnail.getvalue()))
    padded = whole.getvalue()[:tables] + b"\xff\xff" + whole.getvalue()[tables:]
    assert abs(jpeg_quality_of(padded) - 92) <= 1
    assert jpeg_quality_of(whole.getvalue()[:tables]) is None and jpeg_quality_of(b"\xff\xd8\xff") is None


def test_places_of__sums_to_one_and_follows_the_products():
    mask = np.zeros((160, 160), bool)
    mask[:40] = True
    places = places_of([mask])
    assert places.sum() == pytest.approx(1) and places[:4].sum() > 0.9
    assert places_of([]).sum() == pytest.approx(1)


def test_tone_levels__are_percentiles_per_channel():
    pixels = np.stack([np.arange(101), np.full(101, 7), np.arange(101)[::-1] * 2], axis=1).astype(np.float32)
    levels = tone_levels(pixels)
    assert levels[0][:2] == [5, 10] and set(levels[1]) == {7} and levels[2][-1] == 190
