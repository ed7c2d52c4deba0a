import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, box_iou

from models.dpsnet import DPSNet, DPSNetConfig, padded_size
from models.proposals import SeededSampler, covered_by

SIZE = 128
BOXES = torch.tensor([[8.0, 8, 56, 56], [64, 16, 120, 60], [20, 70, 60, 120]])


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _network(**changes):
    torch.manual_seed(0)
    settings = {"classes": 3, "width": 16, "head_width": 32, "proposals": 20, "samples": 16, "strides": (8, 16, 32)}
    return DPSNet(DPSNetConfig(**{**settings, **changes}), pretrained=False)


def _target(boxes=BOXES, labels=(1, 2, 3), ignore=()):
    return {
        "boxes": boxes,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignore": torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4),
    }


@pytest.fixture(scope="module")
def photos():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def _losses(network, photos, targets, seed=0):
    network.train()
    return network(photos, [{**target, "seed": seed + index} for index, target in enumerate(targets)])


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8, 16, 32)])
def test_forward__losses_reach_every_part_that_learns(photos, strides):
    network = _network(strides=strides)
    sum(_losses(network, photos, [_target(), _target()]).values()).backward()
    without = [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]
    assert without == []


def test_forward__detections_and_density_have_the_promised_shapes(photos):
    network = _network(count_channels=(0, 1, 2)).eval()
    with torch.no_grad():
        detections, density = network(photos)
    assert density.shape == (2, 3, SIZE // 8, SIZE // 8) and density.min() >= 0
    for found in detections:
        assert found["boxes"].shape == (len(found["scores"]), 4)
        assert set(found["labels"].tolist()) <= {1, 2, 3}
        assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)


def test_forward__the_same_generator_gives_the_same_losses(photos):
    network = _network()
    targets = [_target(), _target()]
    first, again, other = (_losses(network, photos, targets, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["loss_classifier"], other["loss_classifier"])


def test_forward__a_photo_that_is_all_ignored_teaches_nothing(photos):
    network = _network()
    nothing = _target(boxes=torch.zeros(0, 4), labels=(), ignore=[(-SIZE, -SIZE, 2 * SIZE, 2 * SIZE)])
    losses = _losses(network, photos[:1], [nothing])
    sum(losses.values()).backward()
    assert not any(value.grad is not None and value.grad.any() for value in network.parameters())


def test_assign_targets__background_in_ignore_regions_is_left_out():
    network = _network()
    anchors = torch.tensor([[0.0, 0, 40, 40], [80, 80, 120, 120], [64, 80, 104, 120]])
    target = _target(boxes=torch.tensor([[0.0, 0, 40, 40]]), labels=(1,), ignore=[(80, 80, 128, 128)])
    (labels,), _ = network.proposals.assign_targets_to_anchors([anchors], [target])
    assert labels.tolist() == [1.0, -1.0, -1.0]


def test_covered_by__agrees_with_counting_pixels():
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 30, (40, 2, 2), generator=generator).sort(dim=1).values.float()
    boxes = corners.flatten(1) + torch.tensor([0.0, 0, 3, 3])
    regions = torch.tensor([[5.0, 5, 20, 18], [22, 0, 33, 33]])
    grid_y, grid_x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(40) + 0.5, indexing="ij")

    def inside(box):
        return (grid_x > box[0]) & (grid_x < box[2]) & (grid_y > box[1]) & (grid_y < box[3])

    expected = [
        any(2 * (inside(box) & inside(region)).sum() > inside(box).sum() for region in regions) for box in boxes
    ]
    assert covered_by(boxes, regions_M4=regions).tolist() == expected
    assert covered_by(boxes, regions_M4=torch.zeros(0, 4)).tolist() == [False] * 40


def test_postprocess__nms_across_products_is_torchvisions_nms_without_labels():
    networks = {name: _network(nms=name).eval() for name in ("agnostic", "product")}
    generator = torch.Generator().manual_seed(3)
    start = torch.rand(20, 2, generator=generator) * 60
    proposals = torch.cat([start, start + 40], dim=1)
    logits, deltas = torch.randn(20, 4, generator=generator) * 2, torch.zeros(20, 16)
    boxes, scores, labels = (
        one[0]
        for one in networks["product"].roi_heads.postprocess_detections(logits, deltas, [proposals], [(SIZE, SIZE)])
    )
    kept = batched_nms(boxes, scores, torch.zeros_like(labels), 0.5)
    found = networks["agnostic"].roi_heads.postprocess_detections(logits, deltas, [proposals], [(SIZE, SIZE)])
    for expected, got in zip((boxes, scores, labels), found, strict=True):
        torch.testing.assert_close(got[0], expected[kept])
    overlap = box_iou(found[0][0], found[0][0]).fill_diagonal_(0)
    assert overlap.max() <= 0.5 < box_iou(boxes, boxes).fill_diagonal_(0).max()


def test_seeded_sampler__draws_as_many_as_torchvisions():
    sampler = SeededSampler(batch_size_per_image=8, positive_fraction=0.25)
    sampler.start([0])
    labels = torch.tensor([1, 2, 3, 0, 0, 0, 0, 0, 0, 0, -1, -1])
    (positive,), (negative,) = sampler([labels])
    assert positive.sum() == 2 and negative.sum() == 6
    assert (labels[positive.bool()] > 0).all() and (labels[negative.bool()] == 0).all()


def test_forward__losses_are_means_over_photos(photos):
    network = _network()
    targets = [_target(), _target(boxes=BOXES[:1], labels=(1,), ignore=[(64, 0, 128, 128)])]
    together = _losses(network, photos, targets)
    network.train()
    alone = [network(photos[index : index + 1], [{**targets[index], "seed": index}]) for index in (0, 1)]
    for name, value in together.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-4, atol=1e-6)


def test_forward__counts_in_the_channels_of_the_products(photos):
    network = _network(count_channels=(0, 1, 0)).eval()
    with torch.no_grad():
        _, density = network(photos)
    assert density.shape[1] == 2


def test_region_proposals__anchors_as_the_config_says():
    network = _network(anchor_sizes=(20.0, 40.0, 60.0, 80.0), anchor_ratios=(0.5, 2.0))
    sides = [cell[:, 2:] - cell[:, :2] for cell in network.proposals.anchor_generator.cell_anchors]
    for side, expected in zip(sides, (20, 40, 60, 80), strict=True):
        # torchvision rounds anchors to whole pixels.
        torch.testing.assert_close(side.prod(dim=1).sqrt(), torch.full((2,), float(expected)), rtol=0.05, atol=0)
        torch.testing.assert_close(side[:, 1] / side[:, 0], torch.tensor([0.5, 2.0]), rtol=0.1, atol=0)


@pytest.mark.parametrize(("size", "padded"), [(64, 64), (65, 128), (320, 320), (800, 832)])
def test_padded_size__next_multiple_of_64(size, padded):
    assert padded_size(size) == padded


def test_forward__half_precision_keeps_boxes_and_density_whole(photos):
    network = _network().eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        maps = network.pyramid_maps(photos)
        anchors = network.proposals.anchor_generator(ImageList(photos, [(SIZE, SIZE)] * 2), list(maps.values()))
        detections, density = network(photos)
    with torch.no_grad():
        exact = network.proposals.anchor_generator(
            ImageList(photos, [(SIZE, SIZE)] * 2), list(network.pyramid_maps(photos).values())
        )
    assert maps["0"].dtype == torch.bfloat16
    torch.testing.assert_close(anchors, exact, rtol=0, atol=0)
    assert density.dtype == torch.float32 and {one["boxes"].dtype for one in detections} == {torch.float32}
