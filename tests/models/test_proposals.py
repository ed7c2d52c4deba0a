import pytest
import torch
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from models.dpsnet import DPSNet, DPSNetConfig
from models.proposals import sampled

ANCHORS = [1200, 300, 75]
SHAPE = (100, 140)


def _proposals(*, kept, photos, seed, floor=0.0):
    """Region proposals of a network, random boxes (some outside of the photo, some of no size) and their logits."""
    torch.manual_seed(seed)
    part = DPSNet(DPSNetConfig(classes=2, width=8, head_width=16, proposals=kept), pretrained=False).proposals
    part.score_thresh = floor
    low = torch.rand(photos, sum(ANCHORS), 2) * 160 - 20
    boxes = torch.cat([low, low + torch.rand(photos, sum(ANCHORS), 2) * 50], dim=2)
    boxes[:, ::17, 2:] = boxes[:, ::17, :2]
    return part, boxes, torch.randn(photos * sum(ANCHORS), 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kept", "floor"), [(20, 0.0), (300, 0.0), (2000, 0.0), (300, 0.7), (300, 1.0)])
def test_filter_together__is_torchvisions_filter_proposals(kept, floor, training):
    part, boxes, logits = _proposals(kept=kept, photos=5, seed=kept, floor=floor)
    part.train(training)
    expected = RegionProposalNetwork.filter_proposals(part, boxes, logits, [SHAPE] * 5, ANCHORS)
    found = part.filter_together(boxes, logits=logits, image_shape=SHAPE, anchors=ANCHORS)
    assert (len(expected[0][0]) > 0) == (floor < 1)
    for index in range(5):
        assert torch.equal(found[0][index], expected[0][index])
        # The last bit of a sigmoid on a CPU depends on where in memory a number lies.
        torch.testing.assert_close(found[1][index], expected[1][index], rtol=1e-6, atol=0)


def test_filter_proposals__on_a_cpu_is_torchvisions_to_the_bit():
    part, boxes, logits = _proposals(kept=100, photos=2, seed=1)
    given = (boxes, logits, [SHAPE] * 2, ANCHORS)
    expected, found = RegionProposalNetwork.filter_proposals(part, *given), part.filter_proposals(*given)
    for ours, theirs in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("regions", [[60, 0, 200], [0, 0]])
@pytest.mark.parametrize("classes", [1, 14, 2000])
def test_postprocess_detections__is_torchvisions_to_the_bit(classes, regions):
    generator = torch.Generator().manual_seed(classes)
    config = DPSNetConfig(classes=classes, width=8, head_width=16, nms="product")
    heads = DPSNet(config, pretrained=False).roi_heads
    logits = 4 * torch.randn(sum(regions), classes + 1, generator=generator)
    moves = torch.randn(sum(regions), 4 * (classes + 1), generator=generator)
    low = torch.rand(sum(regions), 2, generator=generator) * 160 - 20
    boxes = torch.cat([low, low + torch.rand(sum(regions), 2, generator=generator) * 50], dim=1)
    given = (logits, moves, list(boxes.split(regions)), [SHAPE] * len(regions))
    expected, found = RoIHeads.postprocess_detections(heads, *given), heads.postprocess_detections(*given)
    assert (sum(map(len, expected[0])) > 0) == (sum(regions) > 0)
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_postprocess_detections__makes_no_box_of_what_is_below_the_floor(monkeypatch):
    heads = DPSNet(DPSNetConfig(classes=500, width=8, head_width=16), pretrained=False).roi_heads
    made = []
    decode = heads.box_coder.decode_single
    monkeypatch.setattr(heads.box_coder, "decode_single", lambda *given: made.append(len(given[0])) or decode(*given))
    logits = torch.zeros(40, 501)
    logits[:7, 3] = 20.0
    boxes = torch.tensor([[10.0, 10.0, 50.0, 50.0]]).expand(40, 4)
    heads.postprocess_detections(logits, torch.zeros(40, 4 * 501), [boxes], [SHAPE])
    assert made == [7]


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(5, 50, (4, 12)), (2, 50, (2, 14)), (0, 50, (0, 16)), (5, 3, (4, 3)), (5, 0, (4, 0)), (0, 0, (0, 0))],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_sampled__as_many_as_are_wanted_or_there(positives, negatives, expected, kind):
    labels = torch.tensor([3] * positives + [0] * negatives + [-1] * 7, dtype=kind)
    (positive,), (negative,) = sampled([labels], seeds=[4], count=16, most_positive=4)
    assert (int(positive.sum()), int(negative.sum())) == expected
    assert positive.dtype == negative.dtype == torch.uint8 and len(positive) == len(negative) == len(labels)
    assert (labels[positive.bool()] >= 1).all() and (labels[negative.bool()] == 0).all()


def test_sampled__a_photos_draw_depends_on_its_seed_alone():
    generator = torch.Generator().manual_seed(0)
    labels = [torch.randint(-1, 2, (length,), generator=generator) for length in (400, 90, 250)]
    together = sampled(labels, seeds=[1, 2, 3], count=32, most_positive=8)
    for index, one in enumerate(labels):
        alone = sampled([one], seeds=[index + 1], count=32, most_positive=8)
        other = sampled([one], seeds=[index + 9], count=32, most_positive=8)
        for ours, same, different in zip(together, alone, other, strict=True):
            assert torch.equal(ours[index], same[0]) and not torch.equal(ours[index], different[0])


def test_sampled__all_are_equally_likely():
    labels = torch.tensor([0, 1, 0, -1, 0] * 8)
    draws = 2000
    drawn = sampled([labels] * draws, seeds=range(draws), count=10, most_positive=4)
    shares = [
        torch.stack(masks).float().mean(dim=0)[labels == label] for masks, label in zip(drawn, (1, 0), strict=True)
    ]
    for share, expected in zip(shares, (4 / 8, 6 / 24), strict=True):
        # Five standard deviations.
        assert (share - expected).abs().max() < 5 * (expected * (1 - expected) / draws) ** 0.5
