import pytest
import torch
from torchvision.ops import nms

from models.group_nms import kept


def _boxes(*shape, seed, side=40.0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator) * 100
    return torch.cat([low, low + 1 + torch.rand(*shape, 2, generator=generator) * side], dim=-1)


def _torchvisions(boxes_N4, *, valid_N, iou):
    (at,) = torch.where(valid_N)
    ranks = torch.arange(len(boxes_N4), 0, -1).float()
    keep_N = torch.zeros(len(boxes_N4), dtype=torch.bool)
    keep_N[at[nms(boxes_N4[at], ranks[at], iou)]] = True
    return keep_N


@pytest.mark.parametrize("iou", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(3))
def test_kept__is_torchvisions_nms_group_by_group(seed, iou):
    boxes = _boxes(5, 300, seed=seed)
    valid = torch.rand(5, 300, generator=torch.Generator().manual_seed(seed)) < 0.9
    expected = [_torchvisions(one, valid_N=some, iou=iou) for one, some in zip(boxes, valid, strict=True)]
    found = kept(boxes, valid_GN=valid, iou=iou)
    assert torch.equal(found, torch.stack(expected))
    assert 0 < found.sum() < valid.sum()


def test_kept__a_chain_as_long_as_there_are_boxes():
    # Each overlaps its neighbours alone: every other one stays, and the last is known only after all before it.
    low = torch.arange(101.0)[:, None] * 6
    boxes = torch.cat([low, torch.zeros(101, 1), low + 10, torch.full((101, 1), 10.0)], dim=1)
    found = kept(boxes[None], valid_GN=torch.ones(1, 101, dtype=torch.bool), iou=0.2)
    assert found[0].tolist() == [index % 2 == 0 for index in range(101)]


def test_kept__an_overlap_of_exactly_the_limit_suppresses_nothing():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert kept(boxes[None], valid_GN=valid, iou=0.5).tolist() == [[True, True]]
    assert kept(boxes[None], valid_GN=valid, iou=0.49).tolist() == [[True, False]]


def test_kept__padding_is_not_kept_and_suppresses_nothing():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 0, 0]]]).repeat(2, 1, 1)
    valid = torch.tensor([[False, True, False], [False, False, False]])
    assert kept(boxes, valid_GN=valid, iou=0.5).tolist() == valid.tolist()


def test_kept__groups_without_boxes():
    assert kept(torch.zeros(2, 0, 4), valid_GN=torch.zeros(2, 0, dtype=torch.bool), iou=0.5).shape == (2, 0)
