import cv2
import numpy as np
import pytest

from tasks.look import TONE_LEVELS
from tasks.sprites import (
    Cutout,
    _described,
    blur_of_detail,
    cumulated_shares,
    fit_tone,
    look_alikes,
    noise_of_file,
    outline_of,
    percentiles_of,
    scale_cutouts,
    sprite_pixels,
    tone_table,
    toned,
)
from tests.tasks.composing_cases import board_row, cutouts, kit_of, look, params_of


@pytest.mark.parametrize("degrees", [0, 20, 75, 110, 160])
def test_outline_of__direction_and_sides_of_a_turned_rectangle(degrees):
    alpha = np.zeros((200, 200), np.uint8)
    corners = cv2.boxPoints(((100, 100), (90, 40), degrees))
    cv2.fillPoly(alpha, [np.rint(corners).astype(np.int32)], 255)
    axis, sides = outline_of(alpha)
    assert sides == pytest.approx((91, 41), abs=2.5)
    assert abs(np.cos(axis - np.deg2rad(degrees))) > 0.999


def test_scale_cutouts__sizes_and_heights():
    sprites = scale_cutouts(cutouts(), scale=2.0)
    blue = [one for one in sprites if one.sku == "blue"]
    assert blue[0].sides == pytest.approx((76, 20), abs=3)
    assert all(0 < one.height <= max(other.sides[0] for other in blue) for one in blue)


def test_fit_tone__recovers_gain_and_exponent():
    generator = np.random.default_rng(0)
    source = generator.uniform(5, 250, (5000, 3))
    target = 255 * np.exp(-0.2) * (source / 255) ** 1.2
    found = fit_tone(percentiles_of(source), percentiles_of(target))
    assert found == pytest.approx(np.asarray([[-0.2, 1.2]] * 3), abs=0.02)
    assert len(TONE_LEVELS) == percentiles_of(source).shape[1]


def test_toned__moves_colours_and_keeps_alpha():
    sprite = scale_cutouts(cutouts(), scale=1.0)[0]
    darker_hw4 = toned(sprite.rgba_hw4, table_L3=tone_table(np.asarray([[np.log(0.5), 1.0]] * 3, np.float32)))
    assert np.abs(darker_hw4[..., :3] - 0.5 * sprite.rgba_hw4[..., :3]).max() <= 0.51
    assert np.array_equal(darker_hw4[..., 3], sprite.rgba_hw4[..., 3])


def test_sprite_pixels__every_product_counts_the_same():
    pixels = sprite_pixels(scale_cutouts(cutouts(), scale=1.0), most=9000)
    colours = {
        sku: (np.abs(pixels.astype(int) - colour).max(1) < 3).mean()
        for sku, colour in {"red": (190, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 190)}.items()
    }
    assert colours["red"] > colours["green"] > 0.1


def printed(sku, seed, colour, *, size=(40, 60)):
    """Products of the same seed share their print but not their colour."""
    print_ = np.random.default_rng(seed).uniform(0.3, 1.0, (4, 6))
    grey = cv2.resize(print_, size[::-1], interpolation=cv2.INTER_NEAREST)
    rgba = np.full((*size, 4), 255, np.uint8)
    rgba[..., :3] = grey[..., None] * colour
    return Cutout(item_id=f"pose/{sku}", sku=sku, category=1, picture=lambda: rgba, weight=1.0, factor=1.0)


def test_look_alikes__same_print_in_another_colour():
    made = [
        printed("apple", 1, (120, 200, 120)),
        printed("orange", 1, (240, 160, 60)),
        printed("tea", 2, (120, 200, 120)),
        printed("giant", 1, (240, 160, 60), size=(120, 180)),
    ]
    mates = look_alikes(scale_cutouts(made, scale=1.0))
    assert mates["apple"] == "orange" and mates["orange"] == "apple"
    assert "tea" not in mates and "giant" not in mates


def test_look_alikes__many_products_as_by_brute_force():
    """More products than are compared at once, of different numbers of views: mates are those of the definition."""
    generator = np.random.default_rng(3)
    sprites = scale_cutouts(
        [
            printed(f"{sku}", sku % 9, generator.uniform(90, 250, 3), size=tuple(generator.integers(30, 60, 2)))
            for sku in range(40)
            for _ in range(1 + sku % 3)
        ],
        scale=1.0,
    )
    by_sku = {}
    for sprite in sprites:
        by_sku.setdefault(sprite.sku, []).append(sprite)
    views = {sku: _described(own) for sku, own in by_sku.items()}

    def likeness(sku, other):
        (prints, sizes), (their_prints, their_sizes) = views[sku], views[other]
        best = [
            max(one @ two - 2 * np.abs(size - side).sum() for two, side in zip(their_prints, their_sizes, strict=True))
            for one, size in zip(prints, sizes, strict=True)
        ]
        return np.mean(best)

    expected = {}
    for sku in views:
        mate = max((other for other in views if other != sku), key=lambda other: likeness(sku, other))
        if likeness(sku, mate) >= 0.3:
            expected[sku] = mate
    assert 5 < len(expected) < 40 and look_alikes(sprites) == expected


def test_blur_of_detail__less_detail_asks_for_more_blur():
    sprites = scale_cutouts([printed("a", seed, (200, 200, 200), size=(80, 120)) for seed in range(3)], scale=1.0)
    blurs = blur_of_detail(sprites, details=[9.0, 0.05, 0.0])
    assert blurs[0] == 0 and blurs[0] <= blurs[1] <= blurs[2] and blurs[2] > 1


@pytest.mark.parametrize("sigma", [2.5, 4.0])
def test_noise_of_file__undoes_what_compression_takes_away(sigma):
    from storage.images import decode_rgb, encode_jpeg
    from tasks.blend import add_noise, noise_lines
    from tasks.look import noise_level

    generator = np.random.default_rng(1)
    board = np.full((200, 200, 3), 140, np.uint8)
    lines = noise_lines(200, generator=generator)
    noisy = board.copy()
    add_noise(noisy, lines_LW3=lines, sigma=sigma, generator=generator)
    level = noise_level(decode_rgb(encode_jpeg(noisy, quality=85)), bare_HW=np.ones((200, 200), bool))
    assert noise_of_file(level, board_HW3=board, quality=85, lines_LW3=lines) == pytest.approx(sigma, rel=0.15)
    assert noise_of_file(0.0, board_HW3=board, quality=50, lines_LW3=lines) < 3


def test_cumulated_shares__weights_or_equal():
    sprites = scale_cutouts(cutouts(), scale=1.0)[:2]
    assert cumulated_shares(sprites, equal=False) == pytest.approx([1 / 3, 1.0])
    assert cumulated_shares(sprites, equal=True) == pytest.approx([1 / 2, 1.0])


def test_light_board__lights_board_and_items_alike():
    bright = kit_of(params_of(), rows=[board_row(looks=[look(light_C6=[[0.2, 0.1, 0, 0, 0, 0]] * 3)])]).boards[0]
    plain = kit_of(params_of()).boards[0]
    ratio = bright.canvas_HW3.astype(float) / plain.canvas_HW3
    assert ratio[:, -1].mean() == pytest.approx(np.exp(0.3), rel=0.01)
    assert ratio[:, 0].mean() == pytest.approx(np.exp(0.1), rel=0.01)
    assert (bright.shade_hw3[:, -1] / plain.shade_hw3[:, -1]).mean() == pytest.approx(np.exp(0.3), rel=0.02)


def test_fit_tone__a_levels_weight_is_its_light():
    source = np.linspace(20, 220, 19, dtype=np.float32)
    target = 0.9 * source + 12 * np.sin(source / 20).astype(np.float32)
    x, y = np.log(source / 255), np.log(target / 255)
    design = np.stack([np.ones_like(x), x], axis=1) * np.sqrt(target)[:, None]
    expected = np.linalg.lstsq(design, y * np.sqrt(target), rcond=None)[0]
    np.testing.assert_allclose(fit_tone(np.stack([source] * 3), np.stack([target] * 3)), [expected] * 3, atol=1e-4)
