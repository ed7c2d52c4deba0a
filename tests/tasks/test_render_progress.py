import numpy as np
import torch

from models.cyclegan import CycleGAN
from tasks.render_progress import picture_steps, progress_picture


def test_picture_steps__evenly_spaced_with_the_last():
    assert picture_steps(500) == {100, 200, 300, 400, 500}
    assert picture_steps(3) == {1, 2, 3}


def test_progress_picture__three_rows_of_crops_that_an_untrained_model_leaves_alone():
    crops = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = CycleGAN(channels=4, blocks=1, critic_channels=4, generator=torch.Generator())
    picture = progress_picture(model, crops)
    assert picture.shape == (3 * 48, 2 * 48, 3) and picture.dtype == np.uint8
    expected = np.rint((crops[1].numpy().transpose(1, 2, 0) + 1) * 127.5)
    for row in range(3):
        assert np.abs(picture[row * 48 : row * 48 + 48, 48:] - expected).max() <= 1
