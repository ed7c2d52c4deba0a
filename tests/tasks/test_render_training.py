from itertools import islice

import numpy as np
import pytest
import torch

from models.cyclegan import CycleGAN, LossWeights
from tasks.render_photos import TrainingPhotos
from tasks.render_training import STATE_FILE, Schedule, Training, load_state, new_training, train

SCHEDULE = Schedule(
    steps=8,
    batch=2,
    crop=48,
    learning_rate=1e-3,
    weights=LossWeights(cycle=10, identity=5, content=10),
    save_every=3,
)


def fresh(seed: int = 0) -> Training:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    return new_training(CycleGAN(channels=4, blocks=1, critic_channels=4, generator=generator), learning_rate=1e-3)


def photos() -> TrainingPhotos:
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 120, (3, 56, 64, 3), np.uint8), rng.integers(120, 256, (3, 60, 50, 3), np.uint8)
    return TrainingPhotos(synthetic=list(dark), masks=[np.ones((56, 64), bool)] * 3, pool=list(bright))


def steps(training: Training, folder):
    return train(
        training,
        photos=photos(),
        schedule=SCHEDULE,
        random_at=lambda step: torch.Generator().manual_seed(step),
        folder=folder,
    )


@pytest.mark.parametrize("killed_after", [1, 5])
def test_train__a_killed_training_ends_with_the_same_weights(tmp_path, killed_after):
    straight = fresh()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    losses = list(steps(straight, tmp_path / "a"))
    assert len(losses) == SCHEDULE.steps and all(np.isfinite(list(step.values())).all() for step in losses)

    list(islice(steps(fresh(), tmp_path / "b"), killed_after))
    resumed = fresh(seed=99)
    found = load_state(resumed, folder=tmp_path / "b")
    assert found == (killed_after >= SCHEDULE.save_every)
    if not found:
        resumed = fresh()
    assert resumed.step == killed_after // SCHEDULE.save_every * SCHEDULE.save_every
    rest = list(steps(resumed, tmp_path / "b"))
    assert rest == losses[-len(rest) :]
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert torch.equal(straight.pool_buffer.images, resumed.pool_buffer.images)


def test_load_state__nothing_there(tmp_path):
    assert not load_state(fresh(), folder=tmp_path)
    assert not (tmp_path / STATE_FILE).exists()
