import cv2
import numpy as np
import pytest

from tasks.render_check import CheckLimits, ItemScores, drift_reason, item_scores, structure_map

LIMITS = CheckLimits(structure=0.7, edges=0.7, shift=1.0)


def textured(seed: int = 0, *, height: int = 70, width: int = 90) -> np.ndarray:
    """Print-like texture, float32 [height, width], 40..200."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.asarray(120 + 80 * smooth / np.abs(smooth).max(), np.float32)


def photo(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def shifted(grey: np.ndarray, *, right: float, down: float) -> np.ndarray:
    matrix = np.float32([[1, 0, right], [0, 1, down]])
    return cv2.warpAffine(grey, matrix, grey.shape[::-1], borderMode=cv2.BORDER_REFLECT)


def structure_by_hand(before: np.ndarray, after: np.ndarray, *, row: int, column: int) -> float:
    axis = np.arange(-5, 6)
    weights = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    weights /= weights.sum()
    window = np.s_[row - 5 : row + 6, column - 5 : column + 6]
    x, y = before[window].astype(float), after[window].astype(float)
    mx, my = (weights * x).sum(), (weights * y).sum()
    sx, sy = np.sqrt((weights * (x - mx) ** 2).sum()), np.sqrt((weights * (y - my) ** 2).sum())
    constant = (0.03 * 255) ** 2 / 2
    return ((weights * (x - mx) * (y - my)).sum() + constant) / (sx * sy + constant)


def test_structure_map__equals_the_formula_written_out():
    before, after = textured(0), textured(1)
    got = structure_map(before, after)[30, 40]
    assert got == pytest.approx(structure_by_hand(before, after, row=30, column=40), abs=1e-3)


def test_structure_map__blind_to_light_and_gain():
    before = textured()
    assert structure_map(before, before * 0.8 + 20).min() > 0.99


def scores_of_all(before: np.ndarray, after: np.ndarray) -> ItemScores:
    """The scores of one item that is the whole picture."""
    height, width = before.shape
    return item_scores(photo(before), photo(after), boxes_N4=np.float32([[0, 0, width, height]]))[0]


def test_item_scores__edges_agree_under_a_gain_and_not_with_another_texture():
    before, flat = textured(), np.zeros((20, 20))
    assert scores_of_all(before, before * 0.5 + 30).edges == pytest.approx(1, abs=1e-2)
    assert abs(scores_of_all(before, textured(3)).edges) < 0.2
    assert scores_of_all(flat, flat).edges == 1


@pytest.mark.parametrize("size", [(64, 64), (61, 75), (45, 90)])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (2, 0), (0, -3), (1.5, 1)])
def test_item_scores__find_a_known_displacement(size, right, down):
    before = textured(height=size[0], width=size[1])
    got = scores_of_all(before, shifted(before, right=right, down=down)).shift
    assert got == pytest.approx(np.hypot(right, down), abs=0.35)


def test_item_scores__no_shift_where_nothing_shows_one():
    assert scores_of_all(np.full((20, 20), 9.0), np.full((20, 20), 90.0)).shift == 0


def test_item_scores__only_the_item_that_drifted_suffers():
    before = textured(height=120, width=200)
    after = before * 0.9 + 10
    after[20:80, 120:180] = textured(9, height=60, width=60)
    boxes = np.float32([[20, 20, 80, 80], [120, 20, 180, 80]])
    kept, lost = item_scores(photo(before), photo(after), boxes_N4=boxes)
    assert kept.structure > 0.95 and kept.edges > 0.95 and kept.shift < 0.2
    assert lost.structure < 0.5 and lost.edges < 0.5


def test_item_scores__boxes_at_the_border_and_tiny_ones():
    before = textured()
    boxes = np.float32([[0, 0, 3, 3], [88, 68, 90, 70], [-5, -5, 200, 200]])
    assert [score.edges for score in item_scores(photo(before), photo(before), boxes_N4=boxes)] == [
        pytest.approx(1, abs=1e-5)
    ] * 3


def test_item_scores__smeared_print_fails():
    before = photo(np.kron(np.random.default_rng(0).integers(0, 2, (24, 24)) * 255.0, np.ones((3, 3))))
    after = cv2.GaussianBlur(before, (0, 0), 4)
    scores = item_scores(before, after, boxes_N4=np.float32([[0, 0, 72, 72]]))
    assert drift_reason(scores, limits=LIMITS) != ""


def test_drift_reason__names_the_first_item_and_the_limit():
    good = ItemScores(structure=0.9, edges=0.9, shift=0.1)
    assert drift_reason([good], limits=LIMITS) == ""
    assert drift_reason([], limits=LIMITS) == ""
    moved = ItemScores(structure=0.9, edges=0.9, shift=1.5)
    assert drift_reason([good, moved], limits=LIMITS) == "1 of 2 items drifted; item 1: edges moved by 1.5 > 1.0 pixels"
