"""Cut-outs end to end on made catalogs: backdrops, shapes and sizes that no constant was chosen on."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.made_catalog import BACKDROPS, LARGEST, View, make_photo, write_catalog
from benchmarks.segment import boundary_f, compare_masks, found_by_quality, mask_iou, without_boxes
from benchmarks.stages import ingest_split, segmented_catalog
from flows.presets import micro
from storage.boxes import mask_box
from storage.store import Store
from tasks.coarse import coarse_mask
from tasks.params import RefineParams, SegmentParams
from tasks.saliency import CONFIG_ID, WEIGHTS_ID, load_saliency
from tasks.segment import fine_mask, whole_alpha
from tasks.stage import load_stage, run_stage_locally

pytestmark = pytest.mark.long

TURNS = (0.0, 72.0, 144.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A catalog of two shapes on every backdrop, and what a network that has hardly been trained makes of it."""
    folder = tmp_path_factory.mktemp("made")
    views = [
        View(shape=shape, backdrop=ground, turn=turn, size=(240, 180), seed=5)
        for shape in ("box", "mug")
        for ground in BACKDROPS
        for turn in TURNS
    ]
    write_catalog(folder, views=views)
    store = Store.open(str(folder / "store"))
    preset = micro()
    preset = preset.model_copy(
        update={
            "saliency": preset.saliency.model_copy(update={"threads": 1}),
            "segment": SegmentParams(
                working_size=128, second_size=96, refine=RefineParams(size=160), least_quality=0.0
            ),
        }
    )
    catalog = ingest_split(str(folder), split="catalog", store=store, workers=1)
    return folder, store, preset, segmented_catalog(preset, catalog=catalog, store=store, workers=1)


def test_segment__any_backdrop(made):
    folder, store, _, results = made
    figures = compare_masks(results["masks"], dataset=folder, store=store)
    assert figures["exemplars"] == 2 * len(BACKDROPS) * len(TURNS)
    assert figures["mask IoU, mean"] > 0.94
    assert figures["mask IoU, least"] > 0.75


def test_segment__any_backdrop_without_boxes(made):
    folder, store, preset, results = made
    catalog, network = without_boxes(results["catalog"]), results["network"]
    coarse = run_stage_locally(load_stage("coarse"), preset.coarse, store=store, catalog=catalog)
    masks = run_stage_locally(
        load_stage("segment"), preset.segment, store=store, catalog=catalog, coarse=coarse, network=network
    )
    figures = compare_masks(masks, dataset=folder, store=store)
    assert figures["mask IoU, mean"] > 0.75
    assert figures["mask IoU, least"] > 0.4


@pytest.fixture(scope="module")
def network(made):
    _, store, _, results = made
    return load_saliency(*(store.read(results["network"].row(name)) for name in (WEIGHTS_ID, CONFIG_ID)))


def cut_out(network, photo, box, *, preset):
    """The mask of a photo's product, bool [H, W], and its alpha."""
    coarse = coarse_mask(photo, box, params=preset.coarse)
    fine = fine_mask(network, photo, coarse, tight=True, params=preset.segment)
    alpha = whole_alpha(fine, height=photo.shape[0], width=photo.shape[1])
    return alpha > 127, fine.alpha_hw


@pytest.mark.parametrize("size", [(480, 360), LARGEST])
def test_fine_mask__any_size(made, network, size):
    photo, truth = make_photo(View(shape="box", backdrop="gradient", turn=0.0, size=size, seed=5))
    mask, alpha = cut_out(network, photo, mask_box(truth), preset=made[2])
    assert mask.shape == truth.shape == size[::-1]
    assert alpha.min() >= 0 and alpha.max() <= 1
    assert mask_iou(mask, truth) > 0.9


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_fine_mask__flipped_photo_flipped_mask(made, network, backdrop):
    photo, truth = make_photo(View(shape="box", backdrop=backdrop, turn=72.0, size=(240, 180), seed=5))
    mask, _ = cut_out(network, photo, mask_box(truth), preset=made[2])
    flipped, _ = cut_out(network, photo[:, ::-1].copy(), mask_box(truth[:, ::-1]), preset=made[2])
    assert mask_iou(mask, flipped[:, ::-1]) > 0.95


def test_make_photo__mask_is_where_the_product_is():
    view = View(shape="bag", backdrop="dark", turn=30.0, size=(320, 240), seed=1)
    photo, mask = make_photo(view)
    assert photo.shape == (240, 320, 3) and mask.shape == (240, 320)
    other, _ = make_photo(replace(view, shape="rod"))
    changed = np.abs(photo.astype(int) - other).max(axis=-1) > 60
    assert changed[mask].mean() > 0.8
    assert changed[~mask].mean() < 0.05


def test_mask_iou__by_hand():
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[:2], other[1:3] = True, True
    assert mask_iou(one, other) == pytest.approx(1 / 3)
    assert mask_iou(one & False, one & False) == 1.0


def test_boundary_f__within_the_tolerance_and_beyond():
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    assert boundary_f(np.roll(mask, 2, axis=1), mask) == 1.0
    assert boundary_f(np.roll(mask, 12, axis=1), mask) < 0.6


def test_found_by_quality__share_of_the_worst():
    ious = np.linspace(0.5, 1.0, 100)
    assert found_by_quality(ious, ious) == 1.0
    assert found_by_quality(ious, -ious) == 0.0
