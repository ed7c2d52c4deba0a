import numpy as np

from tasks.fitting import fit_photo


def test_fit_photo__keeps_the_aspect_and_fills_the_square():
    photo = np.zeros((96, 128, 3), np.uint8)
    photo[:, 100:] = 255
    fitted, factor = fit_photo(photo, size=100, side=128)
    assert fitted.shape == (128, 128, 3) and factor == 100 / 128
    assert fitted[:, 100:].min() == 255 and (fitted[75:] == fitted[74]).all()
