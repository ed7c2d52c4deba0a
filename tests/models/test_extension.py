import pytest
import torch

from models.dpsnet import DPSNet, DPSNetConfig
from models.extension import Embeddings, box_rows, channel_rows, class_rows, region_features, with_products

SETTINGS = {"width": 16, "head_width": 32, "proposals": 20, "samples": 16, "strides": (8, 16, 32)}


NOTHING = Embeddings(features_NH=torch.zeros(0, 32), product_N=torch.zeros(0, dtype=torch.int64))


def network(classes=3, **changes):
    torch.manual_seed(0)
    return DPSNet(DPSNetConfig(classes=classes, **{**SETTINGS, **changes}), pretrained=False).eval()


def embeddings(products, *, seed=0, spread=0.1, width=32):
    """Ten regions a product around a random mean; the means."""
    generator = torch.Generator().manual_seed(seed)
    means = {product: torch.randn(width, generator=generator) for product in products}
    features = [means[product] + spread * torch.randn(10, width, generator=generator) for product in products]
    return Embeddings(
        features_NH=torch.cat(features), product_N=torch.tensor([one for one in products for _ in range(10)])
    ), means


@pytest.fixture
def photos():
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))


def test_with_products__old_products_are_found_as_before(photos):
    before = network()
    seen, _ = embeddings([0, 1, 2])
    # New order: product 2, a new one, product 0; product 1 left.
    after = with_products(before, before=[2, None, 0], count_channels=(), seen=seen).eval()
    assert after.config.classes == 3
    features = torch.randn(5, 32)
    old, new = before.roi_heads.box_predictor, after.roi_heads.box_predictor
    assert torch.equal(new(features)[0][:, [0, 1, 3]], old(features)[0][:, [0, 3, 1]])
    boxes_before, boxes_after = (one(features)[1].reshape(5, -1, 4) for one in (old, new))
    assert torch.equal(boxes_after[:, [0, 1, 3]], boxes_before[:, [0, 3, 1]])
    with torch.no_grad():
        assert torch.equal(before(photos)[1], after(photos)[1])


def test_class_rows__a_new_row_tells_its_product_from_the_others():
    # A head that already tells the old products apart: rows along their means.
    seen, means = embeddings([0, 1, 2])
    weight = torch.stack([torch.zeros(32), means[0], means[1]])
    rows, offsets = class_rows(weight, torch.zeros(3), before=[0, 1, None], seen=seen)
    logits = seen.features_NH @ rows.T + offsets
    assert logits.argmax(dim=1).tolist() == [product + 1 for product in seen.product_N.tolist()]
    own = logits[seen.product_N == 2][:, 3].mean()
    old = torch.stack([logits[seen.product_N == product][:, product + 1].mean() for product in (0, 1)])
    assert own == pytest.approx(float(old.mean()), rel=1e-4)


@pytest.mark.parametrize("seen", [[], [0, 1], [2]])
def test_class_rows__without_embeddings_to_compare_the_new_row_is_the_mean(seen):
    made = embeddings(seen)[0] if seen else NOTHING
    weight, bias = torch.randn(3, 32), torch.randn(3)
    rows, offsets = class_rows(weight, bias, before=[0, 1, None], seen=made)
    assert torch.allclose(rows[3], weight[1:].mean(dim=0)) and torch.allclose(offsets[3], bias[1:].mean())


def test_box_rows__a_new_products_are_the_mean_of_the_products():
    rows = torch.arange(12.0)[:, None]
    made = box_rows(rows, before=[1, None])
    assert made[:, 0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 6, 7, 8, 9]


def test_channel_rows__follow_the_products_that_had_them():
    rows = torch.tensor([[1.0], [5.0]])
    assert channel_rows(rows, (0, 1), before=[1, None, 0], channels=(0, 1, 2))[:, 0].tolist() == [5, 3, 1]
    assert channel_rows(rows[:1], (), before=[0, None], channels=())[:, 0].tolist() == [1]
    assert channel_rows(rows[:1], (), before=[0, None], channels=(0, 1))[:, 0].tolist() == [1, 1]


def test_region_features__has_a_row_for_each_box(photos):
    boxes = [torch.tensor([[0.0, 0, 60, 60], [40, 40, 100, 90]]), torch.tensor([[10.0, 10, 80, 120]])]
    made = region_features(network(), photos, boxes)
    assert made.shape == (3, 32)
    alone = region_features(network(), photos[1:], boxes[1:])
    assert torch.allclose(made[2:], alone, atol=1e-5)
