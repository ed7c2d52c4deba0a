import pytest
import torch
from torch.nn import functional

from models.distillation import DistilledLosses, kept_boxes, kept_knowledge
from models.dpsnet import DPSNet, DPSNetConfig, DPSNetLosses

SETTINGS = {"width": 16, "head_width": 32, "proposals": 20, "samples": 16, "strides": (8, 16, 32)}


def network(classes, seed=0):
    torch.manual_seed(seed)
    return DPSNet(DPSNetConfig(classes=classes, **SETTINGS), pretrained=False)


def test_kept_knowledge__is_the_cross_entropy_where_both_know_the_same_products():
    student, teacher = torch.randn(5, 4), torch.randn(5, 4)
    ours = kept_knowledge(student, teacher, places=[0, 1, 2])
    assert torch.allclose(ours, functional.cross_entropy(student, teacher.softmax(dim=1), reduction="none"))


def test_kept_knowledge__does_not_mind_a_new_product_where_the_teacher_sees_background():
    teacher = torch.tensor([[9.0, 0, 0]])
    new = torch.tensor([[0.0, -9, -9, 9]])
    background = torch.tensor([[9.0, -9, -9, 0]])
    old = torch.tensor([[0.0, 9, -9, 0]])
    losses = [float(kept_knowledge(one, teacher, places=[0, 1])) for one in (new, background, old)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3) and losses[2] > losses[0] + 5


def test_kept_knowledge__a_product_that_left_counts_as_background():
    teacher = torch.tensor([[0.0, 9, 0]])
    background, other = torch.tensor([[9.0, 0]]), torch.tensor([[0.0, 9]])
    assert kept_knowledge(background, teacher, places=[None, 0]) < kept_knowledge(other, teacher, places=[None, 0])


def test_kept_boxes__compare_the_certain_product_in_both_orders():
    teacher_opinion = torch.tensor([[0.0, 9, 0], [0, 0, 0.1], [9, 0, 0]])
    teacher = torch.randn(3, 3, 4)
    student = torch.randn(3, 4, 4)
    student[0, 3] = teacher[0, 1]
    found = kept_boxes(student, teacher, teacher_opinion, places=[2, 0])
    assert found.tolist() == [0, 0, 0]
    student[0, 3, 0] += 2
    assert kept_boxes(student, teacher, teacher_opinion, places=[2, 0])[0] == pytest.approx(2 - 1 / 18)


def losses_of(student, teacher, targets, places, photos):
    student.train()
    inner = DPSNetLosses(student, size=128, density_weight=1.0, count_weight=1.0)
    return DistilledLosses(inner, teacher=teacher, places=places, weight=1.0, box_weight=1.0)(photos, targets)


def target(boxes, labels, seed):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.tensor(labels),
        "ignore": torch.zeros(0, 4),
        "seed": seed,
    }


TARGETS = [target([[8, 8, 56, 56]], [1], 1), target([[20, 70, 60, 120], [64, 16, 120, 60]], [2, 3], 2)]


@pytest.fixture
def photos():
    return torch.randint(0, 256, (2, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_distilled_losses__of_the_teacher_itself_have_no_gradient_for_the_class_head(photos):
    torch.set_num_threads(1)
    student = network(3)
    teacher = network(3)
    teacher.load_state_dict(student.state_dict())
    losses = losses_of(student, teacher, TARGETS, [0, 1, 2], photos)
    assert losses["kept_boxes"] == 0
    losses["kept_classes"].backward()
    # Cross entropy is least where both agree.
    assert student.roi_heads.box_predictor.cls_score.weight.grad.abs().max() < 1e-4
    assert all(value.grad is None for value in teacher.parameters())


def test_distilled_losses__are_means_over_photos(photos):
    torch.set_num_threads(1)
    student, teacher = network(3), network(2, seed=5)
    both = losses_of(student, teacher, TARGETS, [0, 1], photos)
    parts = [losses_of(student, teacher, TARGETS[i : i + 1], [0, 1], photos[i : i + 1]) for i in range(2)]
    for name in ("kept_classes", "kept_boxes"):
        mean = sum(float(part[name].detach()) for part in parts) / 2
        assert float(both[name].detach()) == pytest.approx(mean, rel=1e-3)


def test_distilled_losses__leave_out_regions_that_show_a_new_product(photos):
    torch.set_num_threads(1)
    student, teacher = network(3), network(2, seed=5)
    everywhere = target([[0, 0, 128, 128]], [3], 1)
    alone = losses_of(student, teacher, [everywhere], [0, 1], photos[:1])
    module = DistilledLosses(
        DPSNetLosses(student, size=128, density_weight=1.0, count_weight=1.0),
        teacher=teacher,
        places=[0, 1],
        weight=1.0,
        box_weight=1.0,
    )
    share = module._share(torch.tensor([[0.0, 0, 128, 128], [0, 0, 10, 10]]), everywhere)
    assert share.tolist() == [0, 1]
    assert torch.isfinite(alone["kept_classes"])
    assert not [name for name, _ in module.named_parameters() if "teacher" in name]
