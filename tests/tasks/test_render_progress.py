import numpy as np
import torch

from models.cyclegan import CycleGAN
from tasks.render_progress import picture_steps, progress_picture


def test_picture_steps__evenly_spaced_with_the_last():
    assert picture_steps(500) == {100, 200, 300, 400, 500}
    assert picture_steps(3) == {1, 2, 3}


def test_progress_picture__a_row_a_translator_which_untrained_leave_crops_alone():
    crops = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = CycleGAN(channels=4, blocks=1, critic_channels=4, generator=torch.Generator())
    picture = progress_picture(crops, translators=[model.to_pool, model.to_synthetic])
    assert picture.shape == (3 * 48, 2 * 48, 3) and picture.dtype == np.uint8
    expected = np.rint((crops[1].numpy().transpose(1, 2, 0) + 1) * 127.5)
    for row in range(3):
        assert np.abs(picture[row * 48 : row * 48 + 48, 48:] - expected).max() <= 1


def test_progress_picture__a_translator_gets_what_the_one_before_it_made():
    crops = torch.full((1, 3, 4, 4), -1.0)
    picture = progress_picture(crops, translators=[Brighter(), Brighter()])
    assert picture[:, 0, 0].tolist() == [0] * 4 + [64] * 4 + [128] * 4


class Brighter(torch.nn.Module):
    def forward(self, images):
        return images + 0.5
