import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from models.cyclegan import CycleGAN, LossWeights
from models.fastcut import FastCut
from models.training.loop import train_steps
from models.training.world import ALONE
from tasks.loading import batches
from tasks.render_photos import TrainingPhotos
from tasks.render_training import CropSource, collated, make_cyclegan_trainer, make_fastcut_trainer

pytestmark = pytest.mark.long

STEPS, CROP, BATCH = 8, 48, 2
HOW = {"steps": STEPS, "learning_rate": 1e-3, "generator_share": 0.2, "slope_weight": 5e-4}


def fresh(seed: int = 0):
    torch.set_num_threads(1)
    model = CycleGAN(channels=4, blocks=1, critic_channels=4, generator=torch.Generator().manual_seed(seed))
    weights = LossWeights(cycle=10, identity=5, content=10)
    return make_cyclegan_trainer(model, **HOW, crop=CROP, weights=weights, device=torch.device("cpu"))


def fresh_fastcut(seed: int = 0):
    torch.set_num_threads(1)
    model = FastCut(channels=4, blocks=1, critic_channels=4, generator=torch.Generator().manual_seed(seed))
    return make_fastcut_trainer(model, **HOW, contrast=10, content=10, device=torch.device("cpu"))


def source() -> CropSource:
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 120, (3, 56, 64, 3), np.uint8), rng.integers(120, 256, (3, 60, 50, 3), np.uint8)
    photos = TrainingPhotos(synthetic=list(dark), masks=[np.ones((56, 64), bool)] * 3, pool=list(bright))
    random_at = lambda step, position: torch.Generator().manual_seed(100 * step + position)  # noqa: E731
    return CropSource(photos=photos, size=CROP, random_at=random_at)


def steps(trainer, *, last=STEPS):
    drawn = batches(source(), collate=collated, batch=BATCH, steps=range(trainer.step, last), world=ALONE, workers=0)
    return [report.losses for report in train_steps(trainer, drawn, clock=lambda: 0.0)]


@pytest.mark.parametrize("killed_after", [1, 5])
def test_make_cyclegan_trainer__a_killed_training_ends_with_the_same_weights(killed_after):
    straight, killed, resumed = fresh(), fresh(), fresh(seed=99)
    losses = steps(straight)
    assert all(np.isfinite(list(step.values())).all() for step in losses)
    assert set(losses[0]) == {"adversarial", "cycle", "identity", "content", "critics"}
    steps(killed, last=killed_after)
    resumed.restore(load(save(killed.state())))
    assert steps(resumed) == losses[killed_after:]
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name
    assert straight.network["older"]["pool"].filled == STEPS * BATCH


@pytest.mark.parametrize("killed_after", [1, 5])
def test_make_fastcut_trainer__a_killed_training_ends_with_the_same_weights(killed_after):
    straight, killed, resumed = fresh_fastcut(), fresh_fastcut(), fresh_fastcut(seed=99)
    losses = steps(straight)
    assert set(losses[0]) == {"adversarial", "contrast", "content", "critics"}
    steps(killed, last=killed_after)
    resumed.restore(load(save(killed.state())))
    assert steps(resumed) == losses[killed_after:]
    for name, tensor in straight.state().items():
        assert torch.equal(tensor, resumed.state()[name]), name


def test_make_fastcut_trainer__generator_projections_and_critic_learn():
    trainer = fresh_fastcut()
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    steps(trainer, last=2)
    changed = {
        name.split(".")[1] for name, value in trainer.network.state_dict().items() if (value != before[name]).any()
    }
    assert changed == {"to_pool", "projections", "pool_critic"}


def test_make_cyclegan_trainer__generators_and_critics_learn():
    trainer = fresh()
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    steps(trainer, last=1)
    changed = {
        name.split(".")[1] for name, value in trainer.network.state_dict().items() if (value != before[name]).any()
    }
    assert changed >= {"to_pool", "to_synthetic", "pool_critic", "synthetic_critic"}


@pytest.mark.parametrize("made", [fresh, fresh_fastcut])
def test_make_trainer__generators_learn_at_a_share_of_the_critics_rate(made):
    trainer = made()
    steps(trainer, last=1)
    generators, critics = (optimiser.param_groups[0]["lr"] for optimiser in trainer.optimisers)
    assert (generators, critics) == pytest.approx((2e-4, 1e-3))
