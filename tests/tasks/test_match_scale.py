import cv2
import numpy as np
import pytest

from tasks.match_scale import Features, features_of, matched_scale, sprite_features


def printed_sprite(seed):
    generator = np.random.default_rng(seed)
    rgba = np.full((160, 220, 4), 255, np.uint8)
    rgba[..., :3] = generator.integers(60, 220, 3)
    for _ in range(60):
        x, y = generator.integers(8, 200), generator.integers(8, 150)
        colour = tuple(int(value) for value in generator.integers(0, 255, 3))
        cv2.circle(rgba, (int(x), int(y)), int(generator.integers(2, 9)), (*colour, 255), -1)
    return rgba


def photo_of(sprites, *, scale, seed):
    generator = np.random.default_rng(seed)
    photo = np.full((500, 700), 150, np.uint8)
    for position, rgba in enumerate(sprites):
        matrix = cv2.getRotationMatrix2D((110, 80), generator.uniform(0, 360), scale)
        matrix[:, 2] += (80 + 330 * position, 150)
        grey, solid = cv2.cvtColor(rgba, cv2.COLOR_RGBA2GRAY), rgba[..., 3]
        drawn = cv2.warpAffine(grey, matrix, (700, 500), flags=cv2.INTER_AREA)
        photo = np.where(cv2.warpAffine(solid, matrix, (700, 500)) > 127, drawn, photo)
    return photo


def test_matched_scale__finds_the_size_of_turned_sprites():
    sprites = [printed_sprite(seed) for seed in (1, 2)]
    photos = [features_of(photo_of(sprites, scale=0.8, seed=seed)) for seed in range(5)]
    found = matched_scale([sprite_features(one) for one in sprites], factors=[1.0, 1.0], photos=photos)
    assert found == pytest.approx(0.8, rel=0.02)
    # Comparable pixels are twice the sprite's own, so the scale from them is half as large.
    halved = matched_scale([sprite_features(one) for one in sprites], factors=[2.0, 2.0], photos=photos)
    assert halved == pytest.approx(0.4, rel=0.02)


def test_matched_scale__too_few_finds_are_not_trusted():
    plain = Features(points_N2=np.zeros((0, 2), np.float32), descriptors_ND=np.zeros((0, 128), np.float32))
    assert matched_scale([plain], factors=[1.0], photos=[plain] * 20) is None
    sprite = sprite_features(printed_sprite(3))
    assert matched_scale([sprite], factors=[1.0], photos=[features_of(np.full((300, 300), 90, np.uint8))] * 20) is None


def test_features_of__points_are_in_the_pictures_own_pixels():
    grey = np.zeros((1600, 1600), np.uint8)
    cv2.circle(grey, (1200, 400), 40, 255, -1)
    points = features_of(grey).points_N2
    assert len(points) and np.abs(points - [1200, 400]).max() < 120
