import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.density import counting_losses, density_targets, valid_cells

SIDE, STRIDE = 128, 8
centres = st.floats(0.0, float(SIDE))
sides = st.floats(2.0, 200.0)


def _targets(boxes, *, photos=None, channels=1, batch=1):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    photos = torch.zeros(len(boxes), dtype=torch.int64) if photos is None else torch.tensor(photos)
    channel_N = torch.arange(len(boxes)) % channels
    shape = (batch, channels, SIDE // STRIDE, SIDE // STRIDE)
    return density_targets(boxes, photo_N=photos, channel_N=channel_N, shape=shape, stride=STRIDE)


@given(st.lists(st.tuples(centres, centres, sides, sides), max_size=12), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_density_targets__integral_is_the_count_for_any_boxes(items, batch):
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in items]
    photos = [index % batch for index in range(len(boxes))]
    density = _targets(boxes, photos=photos, channels=2, batch=batch)
    assert density.min() >= 0
    counted = density.sum(dim=(1, 2, 3))
    expected = torch.tensor([photos.count(photo) for photo in range(batch)], dtype=torch.float32)
    torch.testing.assert_close(counted, expected, atol=1e-3, rtol=0)


def test_density_targets__is_the_gaussian_of_the_items_size():
    (density,) = _targets([(32, 16, 96, 80)])[0]
    sigma = 64 * 0.125 / STRIDE
    by_hand = torch.tensor(
        [
            [
                math.exp(-((x + 0.5 - 8) ** 2 + (y + 0.5 - 6) ** 2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
                for x in range(16)
            ]
            for y in range(16)
        ]
    )
    torch.testing.assert_close(density, by_hand, atol=1e-4, rtol=1e-3)


def test_density_targets__each_item_in_its_photo_and_channel():
    density = _targets([(0, 0, 32, 32), (64, 64, 96, 96), (64, 64, 96, 96)], photos=[0, 1, 1], channels=2, batch=2)
    torch.testing.assert_close(density.sum(dim=(2, 3)), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))


def test_counting_losses__zero_for_the_target_itself_and_count_error_relative():
    target = _targets([(16, 16, 48, 48), (64, 64, 112, 96)])
    valid = torch.ones(1, 1, 16, 16)
    perfect = counting_losses(target, target_BChw=target, valid_B1hw=valid)
    assert {name: float(value) for name, value in perfect.items()} == {"density": 0.0, "count": 0.0}
    doubled = counting_losses(2 * target, target_BChw=target, valid_B1hw=valid)
    # Twice the map: squared error = mean square of the target; two items too many of 1 + 2.
    torch.testing.assert_close(doubled["density"], torch.tensor(1.0))
    torch.testing.assert_close(doubled["count"], torch.tensor(2 / 3))


def test_valid_cells__ignore_regions_take_part_in_no_loss():
    target = _targets([(16, 16, 48, 48)])
    predicted = torch.rand(1, 1, 16, 16, requires_grad=True)
    valid = valid_cells([torch.tensor([[64.0, 0.0, 128.0, 64.0]])], height=16, width=16, stride=STRIDE, device="cpu")
    sum(counting_losses(predicted, target_BChw=target, valid_B1hw=valid).values()).backward()
    assert not predicted.grad[0, 0, :8, 8:].any()
    assert predicted.grad[0, 0, 8:].all() and predicted.grad[0, 0, :8, :8].all()
