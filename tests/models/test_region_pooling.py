"""RoIAlign over a pyramid, against torchvision's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import MultiScaleRoIAlign, roi_align

from models.region_pooling import RegionPooling, pooled


def _regions(generator, *, count, side):
    """Boxes [N, 4] of all sizes, some of them partly or wholly outside of a photo, some without an area."""
    corner = torch.rand(count, 2, generator=generator) * 1.4 * side - 0.2 * side
    size = torch.rand(count, 2, generator=generator) ** 3 * side
    return torch.cat([corner, corner + size], dim=1)


@given(seed=st.integers(0, 10_000), points=st.integers(1, 3), side=st.integers(1, 8))
def test_pooled__is_torchvisions_forwards_and_backwards(seed, points, side):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 5, 17, 23, generator=generator).requires_grad_()
    boxes = _regions(generator, count=20, side=23)
    photo = torch.randint(3, (20,), generator=generator)
    found = pooled(maps, boxes_R4=boxes, photo_R=photo, side=side, points=points)
    expected = roi_align(maps, torch.cat([photo[:, None].float(), boxes], dim=1), side, 1.0, points)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    weight = torch.randn(expected.shape, generator=generator)
    torch.testing.assert_close(
        torch.autograd.grad(found, maps, weight), torch.autograd.grad(expected, maps, weight), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("counts", [(40, 0, 25), (0, 0, 0)])
def test_region_pooling__takes_each_region_from_torchvisions_level(counts):
    generator = torch.Generator().manual_seed(0)
    maps = {str(index): torch.randn(3, 4, side, side, generator=generator) for index, side in enumerate((64, 32, 16))}
    boxes = [_regions(generator, count=count, side=512) for count in counts]
    sizes = [(512, 512)] * 3
    names = list(maps)
    found = RegionPooling(featmap_names=names, output_size=7, sampling_ratio=2)(maps, boxes, sizes)
    expected = MultiScaleRoIAlign(featmap_names=names, output_size=7, sampling_ratio=2)(maps, boxes, sizes)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_region_pooling__gives_equal_bytes_again():
    generator = torch.Generator().manual_seed(0)
    maps = {"0": torch.randn(2, 16, 48, 48, generator=generator).requires_grad_()}
    boxes = [_regions(generator, count=128, side=384) for _ in range(2)]
    pool = RegionPooling(featmap_names=["0"], output_size=7, sampling_ratio=2)
    first, again = (torch.autograd.grad(pool(maps, boxes, [(384, 384)] * 2).square().sum(), maps["0"])[0] for _ in "ab")
    assert torch.equal(first, again)


def test_region_pooling__in_evaluation_is_torchvisions_operator_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    maps = {"0": torch.randn(1, 4, 48, 48, generator=generator)}
    boxes = [_regions(generator, count=9, side=384)]
    found, expected = (
        kind(featmap_names=["0"], output_size=7, sampling_ratio=2).eval()(maps, boxes, [(384, 384)])
        for kind in (RegionPooling, MultiScaleRoIAlign)
    )
    assert torch.equal(found, expected)


def test_region_pooling__of_half_precision_maps_is_whole():
    maps = {"0": torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(0)).bfloat16()}
    boxes = [torch.tensor([[10.0, 10.0, 90.0, 90.0]])]
    pool = RegionPooling(featmap_names=["0"], output_size=7, sampling_ratio=2)
    found = pool(maps, boxes, [(384, 384)])
    torch.testing.assert_close(found, pool({"0": maps["0"].float()}, boxes, [(384, 384)]), rtol=0, atol=0)
