"""Two processes under torch elastic against one: the same steps on the same global batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.backbones import build_backbone
from models.dpsnet import DPSNet, DPSNetConfig
from models.training.world import ALONE, World, world_of_environment

pytestmark = pytest.mark.long

# Ten steps of a small DPSNet on noise; the leading process writes the weights.
TRAINING = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from models.dpsnet import DPSNet, DPSNetConfig, DPSNetLosses
from models.training.batches import pieces
from models.training.optimisation import Optimisation
from models.training.trainer import Phase, Trainer
from models.training.world import joined, world_of_environment

torch.set_num_threads(1)
world, device = world_of_environment(), torch.device("cpu")
torch.manual_seed(world.rank)
config = DPSNetConfig(classes=3, strides=(8, 16, 32), width=8, head_width=16, proposals=20, samples=16)
how = Optimisation(steps=10, learning_rate=1e-3, warmup=2, clip=1.0, average=0.9, kind="sgd")
with joined(world, device=device):
    network = DPSNet(config, pretrained=False)
    network.load_state_dict(torch.load(sys.argv[1], weights_only=True))
    losses = DPSNetLosses(network, size=64, density_weight=0.5, count_weight=0.5)
    phase = Phase(name="dpsnet", module=losses, learns=[network], optimisation=how)
    trainer = Trainer(network=network, phases=[phase], device=device, world=world)
    if "short" in sys.argv and not world.leads:
        whole = losses.forward
        def short(photos, targets):
            if len(photos) > 1:
                raise torch.OutOfMemoryError
            return whole(photos, targets)
        losses.forward = short
    for step in range(10):
        generator = torch.Generator().manual_seed(step)
        photos = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=generator)
        start = torch.rand(4, 3, 2, generator=generator) * 30
        targets = [
            {"boxes": torch.cat([one, one + 24], dim=1), "labels": torch.tensor([1, 2, 3]),
             "ignore": torch.zeros(0, 4), "seed": 10 * step + index}
            for index, one in enumerate(start)
        ]
        share = list(pieces((photos, targets), count=world.size))[world.rank]
        trainer.take_step(share)
    assert trainer.parts == (2 if "short" in sys.argv else 1)
    if world.leads:
        save_file({name: value.contiguous() for name, value in trainer.state().items()}, sys.argv[2])
"""


def _run(launcher, script, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    made = subprocess.run([*launcher, script, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert made.returncode == 0, made.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder with the training as a program, the weights it starts from, and those that one process ends with."""
    folder = tmp_path_factory.mktemp("alone")
    torch.manual_seed(0)
    config = DPSNetConfig(classes=3, strides=(8, 16, 32), width=8, head_width=16, proposals=20, samples=16)
    torch.save(DPSNet(config, pretrained=False).state_dict(), folder / "start.pt")
    (folder / "training.py").write_text(TRAINING)
    _run([sys.executable], folder / "training.py", folder / "start.pt", folder / "one.safetensors")
    return folder


@pytest.mark.parametrize("memory", ["enough", "short"])
def test_together__two_processes_are_one_with_the_same_global_batch(alone, tmp_path, memory):
    elastic = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    _run(elastic, alone / "training.py", alone / "start.pt", tmp_path / "two.safetensors", memory)
    one, two = load_file(alone / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    before = torch.load(alone / "start.pt", weights_only=True)
    names = [name for name in one if name.startswith("network/")]
    apart = max(float((two[name] - one[name]).abs().max()) for name in names)
    moved = max(float((one[name] - before[name.removeprefix("network/")]).abs().max()) for name in names)
    assert apart <= 1e-5, f"largest difference {apart}"
    assert moved > 100 * apart, f"little was learnt: {moved}"


def test_world_of_environment__is_what_torch_elastic_says(monkeypatch):
    assert world_of_environment() == ALONE
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert world_of_environment() == World(rank=3, size=4, local_rank=1)


def test_share_of__says_which_batches_can_be_shared():
    world = World(rank=0, size=3, local_rank=0)
    assert world.share_of(9) == 3
    with pytest.raises(ValueError, match="multiple of the 3 processes that train together, got 8; try 6 or 9"):
        world.share_of(8)


def test_with_shared_statistics__keeps_the_activations_that_norms_carry():
    photo_13HW = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for name in ("efficientnet_lite0", "resnet18"):
        backbone = build_backbone(name, pretrained=False, out_strides=(8, 16)).eval().requires_grad_(False)
        alone = backbone(photo_13HW)
        World(rank=0, size=2, local_rank=0).with_shared_statistics(backbone, device=torch.device("cuda"))
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in backbone.modules())
        for ours, before in zip(backbone(photo_13HW), alone, strict=True):
            torch.testing.assert_close(ours, before)


def test_with_shared_statistics__converts_batch_norms_of_several_gpus_and_keeps_state_names():
    def names(world, device):
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Sequential(torch.nn.BatchNorm2d(4)))
        before = list(network.state_dict())
        world.with_shared_statistics(network, device=torch.device(device))
        assert list(network.state_dict()) == before
        return type(network[1][0]).__name__

    two = World(rank=0, size=2, local_rank=0)
    assert names(two, "cuda") == "SyncBatchNorm"
    assert names(two, "cpu") == names(ALONE, "cuda") == "BatchNorm2d"
