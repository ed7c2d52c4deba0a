import cv2
import numpy as np
import pytest

from tasks.contact_shadow import without_contact_shadow

HEIGHT, WIDTH = 220, 260
BACKDROPS = {"white": (225, 225, 228), "blue": (110, 140, 190), "dark": (90, 88, 84)}


def ellipse(*, centre=(130, 105), axes=(90, 60)):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    return mask.astype(bool)


def scene(*, backdrop, colour=(215, 180, 30)):
    """A product, the shadow that it stands on, and the photo of both; the shadow ends softly."""
    product = ellipse()
    shadow = ellipse(centre=(130, 109)) & ~product
    light = 1 - 0.75 * cv2.GaussianBlur(shadow.astype(np.float32), (0, 0), 1.0)
    photo = np.array(BACKDROPS[backdrop], np.float32) * light[..., None]
    shade = np.linspace(1.1, 0.8, HEIGHT)[:, None, None]
    photo[product] = (np.array(colour, np.float32) * shade * np.ones((1, WIDTH, 1)))[product]
    noise = np.random.default_rng(0).normal(0, 1.5, photo.shape)
    return np.clip(photo + noise, 0, 255).astype(np.uint8), product, shadow


def kept(photo, mask):
    return without_contact_shadow(mask.astype(np.float32), photo) > 0.5


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_without_contact_shadow__takes_the_strip_and_leaves_the_product(backdrop):
    photo, product, shadow = scene(backdrop=backdrop)
    found = kept(photo, product | shadow)
    bottom = shadow.copy()
    bottom[: int(105 + 0.75 * 60)] = False
    assert (found & bottom).sum() < 0.1 * bottom.sum()
    assert (product & ~found).sum() < 0.002 * product.sum()


def test_without_contact_shadow__a_mask_without_shadow_stays_as_it_is():
    photo, product, _ = scene(backdrop="white")
    alpha = cv2.GaussianBlur(product.astype(np.float32), (0, 0), 1)
    assert (np.abs(without_contact_shadow(alpha, photo) - alpha) > 0.5).sum() == 0


def test_without_contact_shadow__a_product_with_dark_print_keeps_its_dark_rim():
    photo, product, _ = scene(backdrop="white")
    rim = product & ~ellipse(centre=(130, 101))
    print_ = np.zeros_like(product)
    print_[60:150:6] = True
    photo[rim | (print_ & product)] = (60, 60, 61)
    assert (kept(photo, product) == product).all()


def test_without_contact_shadow__a_grey_product_on_grey_loses_nothing():
    photo, product, shadow = scene(backdrop="white", colour=(150, 150, 152))
    assert (kept(photo, product | shadow) == (product | shadow)).all()


def test_without_contact_shadow__flipped_photo_flipped_mask():
    photo, product, shadow = scene(backdrop="white")
    photo[:, :60] = photo[:, :60] // 2
    alpha = (product | shadow).astype(np.float32)
    flipped = without_contact_shadow(alpha[:, ::-1].copy(), photo[:, ::-1].copy())
    assert ((flipped[:, ::-1] > 0.5) != (without_contact_shadow(alpha, photo) > 0.5)).mean() < 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_contact_shadow__nothing_or_everything_is_product(value):
    photo, _, _ = scene(backdrop="white")
    alpha = np.full((HEIGHT, WIDTH), value, np.float32)
    np.testing.assert_array_equal(without_contact_shadow(alpha, photo), alpha)
