from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from storage.images import encode_png
from storage.manifest import ManifestRow
from storage.store import Store
from tasks.compose import compose, compose_photo, encoded_photo, paint
from tasks.stage import run_stage_locally
from tests.tasks.composing_cases import board_row, committed, inputs_of, kit_of, look, params_of


def decoded(one, shape):
    return coco_mask.decode({"size": list(shape), "counts": one.mask_rle.encode()}).astype(bool)


@pytest.mark.parametrize("index", range(6))
def test_compose_photo__boxes_are_the_bounds_of_the_visible_masks(index):
    params = params_of(overlap_share=1.0)
    composed = compose_photo(kit_of(params), params=params, index=index)
    height, width = composed.labels_HW.shape
    for label, one in enumerate(composed.objects, start=1):
        rows, columns = np.nonzero(composed.labels_HW == label)
        assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert 0 <= one.box[0] < one.box[2] <= width and 0 <= one.box[1] < one.box[3] <= height
        assert one.amodal_box[0] <= one.box[0] and one.amodal_box[3] >= one.box[3]
        assert one.centre == ((one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2)
        assert np.array_equal(decoded(one, (height, width)), composed.labels_HW == label)


def test_compose_photo__visible_fractions_equal_those_of_a_painter(monkeypatch):
    laid = []

    def noted_paint(layout, **rest):
        laid.append((layout.items.copy(), layout.crops.copy()))
        return paint(layout, **rest)

    monkeypatch.setattr("tasks.compose.paint", noted_paint)
    params = params_of(overlap_share=1.0, arrangements={"pile": 1.0}, min_visible=0.3)
    for index in range(8):
        composed = compose_photo(kit_of(params), params=params, index=index)
        wholes = []
        items, crops = laid[-1]
        for item in items:
            whole = np.zeros(composed.labels_HW.shape, bool)
            rows, columns = int(item["rows"]), int(item["columns"])
            crop = crops[item["crop"] : item["crop"] + rows * columns].reshape(rows, columns)
            whole[item["y"] : item["y"] + rows, item["x"] : item["x"] + columns] = crop >> 24 > 127
            wholes.append(whole)
        for position, (whole, one) in enumerate(zip(wholes, composed.objects, strict=True)):
            seen = whole & ~np.any([np.zeros_like(whole), *wholes[position + 1 :]], axis=0)
            assert one.visible_fraction == pytest.approx(seen.sum() / whole.sum())
            assert one.visible_fraction >= 0.3


def test_compose_photo__some_items_are_covered_in_part():
    params = params_of(overlap_share=1.0, arrangements={"pile": 1.0})
    fractions = [
        one.visible_fraction
        for index in range(8)
        for one in compose_photo(kit_of(params), params=params, index=index).objects
    ]
    assert min(fractions) < 0.97 and max(fractions) == 1


def test_compose_photo__same_index_same_photo_other_index_another():
    params = params_of()
    first, again, other = (compose_photo(kit_of(params), params=params, index=index) for index in (3, 3, 4))
    assert np.array_equal(first.photo_HW3, again.photo_HW3) and first.objects == again.objects
    assert not np.array_equal(first.photo_HW3, other.photo_HW3)


def test_compose_photo__every_block_of_photos_shows_every_product():
    params = params_of()
    kit = kit_of(params)
    for start in (0, 3, 6):
        shown = {
            one.sku
            for index in range(start, start + 3)
            for one in compose_photo(kit, params=params, index=index).objects
        }
        assert shown == {"red", "green", "blue"}


def test_compose_photo__never_mirrors():
    # The stripe lies left of the middle of a sprite. Turned, it stays on the same side of the direction "up".
    params = params_of(
        without=("shadow", "light"), overlap_share=0.0, blends={"hard": 1.0}, arrangements={"uniform": 1}
    )
    kit = kit_of(params)
    seen = 0
    for index in range(4):
        composed = compose_photo(kit, params=params, index=index)
        for label, one in enumerate(composed.objects, start=1):
            if one.sku != "blue":
                continue
            mask = composed.labels_HW == label
            stripe = mask & (composed.photo_HW3.max(-1) < 60)
            (_, _), angle_sides, _ = cv2.minAreaRect(cv2.findNonZero(mask.astype(np.uint8)))
            offset = np.mean(np.nonzero(stripe), axis=1) - np.mean(np.nonzero(mask), axis=1)
            assert np.hypot(*offset) == pytest.approx(max(angle_sides) / 2 - 6, abs=3)
            seen += 1
    assert seen > 2


def test_compose_photo__shadows_darken_the_board():
    lit = params_of(without=("light",), seed=5)
    kit = kit_of(lit, rows=[board_row(looks=[look(ambient=0.3, directed=0.08)])])
    with_shadow = compose_photo(kit, params=lit, index=0)
    without = compose_photo(kit, params=lit.model_copy(update={"without": ("light", "shadow")}), index=0)
    board = with_shadow.labels_HW == 0
    assert np.array_equal(with_shadow.labels_HW, without.labels_HW)
    difference = without.photo_HW3[board].astype(int) - with_shadow.photo_HW3[board]
    assert difference.min() >= 0 and difference.max() > 20


def test_compose_photo__papers_recipe_labels_whole_boxes_of_items_of_all_sizes():
    params = params_of(recipe="paper", levels={"hard": {"share": 1, "skus": (3, 3), "items": (20, 20)}})
    kit = kit_of(params)
    objects = [one for index in range(6) for one in compose_photo(kit, params=params, index=index).objects]
    assert all(one.box == one.amodal_box for one in objects)
    sides = [max(one.box[2] - one.box[0], one.box[3] - one.box[1]) for one in objects if one.sku == "green"]
    assert max(sides) / min(sides) > 1.5
    assert min(one.visible_fraction for one in objects) < 0.5


def test_compose_photo__unknown_parts_and_shares_are_refused():
    with pytest.raises(ValueError, match="without"):
        params_of(without=("gravity",))


def test_compose__same_bytes_with_any_number_of_workers(tmp_path):
    digests = []
    for workers in (1, 2, 4):
        store = Store.open(str(tmp_path / str(workers)))
        made = run_stage_locally(compose, params_of(), store=store, workers=workers, **inputs_of(store))
        digests.append(made.content_digest)
        assert len(made.rows) == 6
    assert len(set(digests)) == 1


def test_compose__rows_point_at_sprites_and_photos_made_on_the_fly_are_the_same(tmp_path):
    from tasks.context import StageContext
    from tasks.kit import build_kit

    store = Store.open(str(tmp_path))
    inputs, params = inputs_of(store), params_of(photos=4, scale=0.5)
    made = run_stage_locally(compose, params, store=store, **inputs)
    row = made.row("synthetic/000002")
    assert (row.width, row.height, row.media_type) == (80, 80, "image/jpeg")
    assert set(row.parents) == {one.source for one in row.objects} <= set(inputs["poses"].by_id)
    context = StageContext(stage="t", seed=0, store=store, publication=store.begin("t", key="1"), scratch=tmp_path)
    data, streamed = encoded_photo(2, kit=build_kit(context, params=params, **inputs), params=params)
    assert data == store.read(row)
    assert [one.mask_rle for one in streamed.objects] == [one.mask_rle for one in row.objects]
    assert [one.source for one in streamed.objects] == [one.source for one in row.objects]


def test_compose__a_product_without_sprites_is_named(tmp_path):
    store = Store.open(str(tmp_path))
    with pytest.raises(ValueError, match="violet"):
        run_stage_locally(compose, params_of(skus=("red", "violet")), store=store, **inputs_of(store))


def test_compose__works_without_a_pool(tmp_path):
    from tasks.board import board
    from tasks.params import BoardParams

    store = Store.open(str(tmp_path))
    inputs = inputs_of(store)
    inputs["pool"] = committed(store, "nothing", [(ManifestRow(item_id="pool/1", status="quarantined"), None)])
    inputs["boards"] = run_stage_locally(board, BoardParams(plain_side=200), store=store, pool=inputs["pool"])
    made = run_stage_locally(compose, params_of(photos=2), store=store, **inputs)
    sides = [max(one.box[2] - one.box[0], one.box[3] - one.box[1]) for row in made.rows for one in row.objects]
    assert 20 < np.median(sides) < 60


def test_compose__transparent_sprites_are_left_out(tmp_path):
    store = Store.open(str(tmp_path))
    inputs = inputs_of(store)
    empty = encode_png(np.zeros((20, 20, 4), np.uint8))
    rows = [(replace(row, path="", digest="", bytes=0), store.read(row)) for row in inputs["poses"].ok]
    bad = ManifestRow(item_id="pose/red_7", sku="red", attributes={"weight": 50.0, "camera": 0})
    inputs["poses"] = committed(store, "poses", [*rows, (bad, empty)])
    made = run_stage_locally(compose, params_of(), store=store, **inputs)
    assert all(one.source != bad.item_id for row in made.rows for one in row.objects)
    inputs["poses"] = committed(store, "none", [(bad, empty)])
    with pytest.raises(ValueError, match="transparent"):
        run_stage_locally(compose, params_of(), store=store, **inputs)


def test_encoded_photo__poisson_blending_works_too():
    params = params_of(blends={"poisson": 1.0})
    data, row = encoded_photo(0, kit=kit_of(params), params=params)
    assert data.startswith(b"\xff\xd8") and row.objects


def test_compose__tells_how_often_products_are_seen(tmp_path):
    store = Store.open(str(tmp_path))
    params = params_of(photos=6, view_shares="equal", sku_weights={"red": 2.0})
    made = run_stage_locally(compose, params, store=store, **inputs_of(store))
    counts = Counter(one.sku for row in made.rows for one in row.objects)
    metrics = made.metadata["metrics"]
    assert metrics["least_of_a_product"] == min(counts.values()) > 0
    assert metrics["most_of_a_product"] == max(counts.values())
