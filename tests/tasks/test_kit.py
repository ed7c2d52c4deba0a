import weakref
from dataclasses import replace

import numpy as np
import pytest

from storage.images import encode_png
from storage.manifest import ManifestObject, ManifestRow
from storage.store import Store
from tasks.context import StageContext
from tasks.kit import (
    assemble,
    build_kit,
    catalog_scale,
    chosen_poses,
    likeliest,
    product_weights,
    solid_ones,
    view_factors,
)
from tests.tasks.composing_cases import (
    board_picture,
    board_row,
    committed,
    cutouts,
    inputs_of,
    kit_of,
    look,
    params_of,
    photo_with_products,
)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def exemplar(sku, camera, view, width, height=20.0):
    return ManifestRow(
        item_id=f"catalog/{sku}_{camera}_{view}",
        sku=sku,
        objects=(ManifestObject(category=1, sku=sku, box=(5.0, 5.0, 5.0 + width, 5.0 + height)),),
        attributes={"camera": camera, "placement": ""},
    )


def products(**millimetres):
    return [
        {"id": number, "sku": sku, "metadata": {"mm": millimetres[sku]} if sku in millimetres else {}}
        for number, sku in enumerate("abc", start=1)
    ]


def test_view_factors__cameras_and_millimetres(store):
    rows = [exemplar("a", 0, 0, 100), exemplar("a", 1, 0, 50), exemplar("b", 0, 0, 60), exemplar("b", 1, 0, 30)]
    categories = products(a=[50, 20, 20], b=[10, 60, 20])
    catalog = committed(store, "catalog", [(row, None) for row in rows], content={"categories": categories})
    poses = committed(store, "poses", [])
    factor = view_factors(catalog, poses=poses, sized=True)
    # a: 100 px for 50 mm, b: 60 px for 60 mm; the median is 1.5 px a mm, so a shrinks and b grows.
    assert factor("a", 0) == pytest.approx(0.75) and factor("b", 0) == pytest.approx(1.5)
    assert factor("a", 1) == pytest.approx(1.5) and factor("c", 7) == 1
    assert view_factors(catalog, poses=poses, sized=False)("a", 1) == 1


def test_view_factors__masks_tell_sizes_where_no_box_is_annotated(store):
    rows = [exemplar("a", None, 0, 100), exemplar("b", None, 0, 60)]
    poses = [
        replace(row, item_id=f"pose/{row.sku}", parents=(row.item_id, f"mask/{row.sku}"), status=status)
        for row, status in zip(rows, ("ok", "dropped"), strict=True)
    ]
    bare = [(replace(row, objects=()), None) for row in rows]
    content = {"categories": products(a=[50, 20, 20], b=[10, 60, 20])}
    catalog = committed(store, "catalog", bare, content=content)
    factor = view_factors(catalog, poses=committed(store, "poses", [(row, None) for row in poses]), sized=True)
    assert factor("a", -1) == pytest.approx(0.75) and factor("b", -1) == pytest.approx(1.5)


@pytest.mark.parametrize("size", [115, "66x66x115", [66, 0], [66, "115"], {"a": 1}])
def test_view_factors__millimetres_are_a_list_of_lengths(store, size):
    catalog = committed(store, "catalog", [], content={"categories": products(b=size)})
    with pytest.raises(ValueError, match="mm: expected a list of lengths.* of b, got"):
        view_factors(catalog, poses=committed(store, "poses", []), sized=True)


def test_build_kit__photos_of_other_sizes_say_nothing_of_the_scale(store, tmp_path, monkeypatch):
    """Half of the photos would find sprites at half of their size: the boards are those of the larger photos."""
    publication = store.begin("t", key="1")
    context = StageContext(stage="t", seed=0, store=store, publication=publication, scratch=tmp_path)
    photos = {number: photo_with_products(number)[:: 1 + number % 2, :: 1 + number % 2] for number in range(20)}
    rows = {
        number: ManifestRow(item_id=f"pool/{number:02d}", width=photo.shape[1], height=photo.shape[0])
        for number, photo in photos.items()
    }
    pools = [
        [(row, encode_png(photos[number])) for number, row in rows.items() if number % 2 or part] for part in (0, 1)
    ]
    read = []
    monkeypatch.setattr(
        "tasks.kit.catalog_scale", lambda *_, photos, **__: read.append([len(one) for one in photos]) or 1
    )
    for number, pool in enumerate(pools):
        inputs = {**inputs_of(store), "pool": committed(store, f"pool{number}", pool)}
        build_kit(context, params=params_of(scale_photos=8), **inputs)
    assert read == [[80] * 8, [160] * 8]


def test_chosen_poses__the_likeliest_of_the_wanted_products(store):
    rows = [
        ManifestRow(item_id=f"pose/{sku}{number}", sku=sku, attributes={"weight": float(number)})
        for sku in ("a", "b")
        for number in range(4)
    ]
    poses = committed(store, "poses", [(row, None) for row in rows])
    assert [row.item_id for row in chosen_poses(poses, skus=("b",), most=2)] == ["pose/b3", "pose/b2"]
    assert len(chosen_poses(poses, skus=(), most=0)) == 8
    with pytest.raises(ValueError, match="c, d"):
        chosen_poses(poses, skus=("d", "a", "c"), most=0)


def test_catalog_scale__from_blobs_or_from_the_board_if_no_photo_tells():
    sides = [[66.0, 40.0], [68.0, 42.0], [32.0, 32.0], [80.0, 24.0]]
    scale = catalog_scale(cutouts(), boards=[board_row(blobs=sides)], photos=[], board_side=400)
    assert scale == pytest.approx(2.1, rel=0.1)
    plain = catalog_scale(cutouts(), boards=[board_row()], photos=[], board_side=400)
    assert 400 / 8 < plain * 32 < 400 / 3


def test_likeliest__every_product_while_there_is_room():
    chosen = likeliest(cutouts(), most=6)
    assert {one.sku for one in chosen} == {"red", "green", "blue"}
    assert chosen[0].weight >= chosen[1].weight


def empty(cutout):
    return replace(cutout, item_id=f"{cutout.item_id}-empty", weight=9.0, picture=lambda: np.zeros((9, 9, 4), np.uint8))


def test_solid_ones__leaves_out_what_shows_nothing():
    empties = [empty(one) for one in cutouts()]
    chosen = [one.item_id for one in solid_ones([*empties, *cutouts()], most=6)]
    assert chosen == [one.item_id for one in likeliest(cutouts(), most=6)]
    with pytest.raises(ValueError, match="expected some with solid pixels, got 6 that are transparent"):
        solid_ones(empties, most=6)


def test_assemble__what_shows_nothing_is_no_sprite():
    boards = {"boards": [board_row()], "pictures": [board_picture()]}
    kit = assemble([empty(cutouts()[0]), *cutouts()], scale=1.0, params=params_of(), **boards)
    assert [one.item_id for one in kit.sprites] == [one.item_id for one in kit_of(params_of()).sprites]


def test_assemble__sprites_are_views_of_one_collection():
    kit = kit_of(params_of())
    assert all(np.shares_memory(one.rgba_hw4, kit.pictures.pixels) for one in kit.sprites)
    assert sum(one.rgba_hw4.nbytes for one in kit.sprites) == kit.pictures.pixels.nbytes


def test_assemble__holds_few_cutouts_at_catalog_resolution():
    """Of 300 views those 60 that are searched for, and one at a time of all."""
    alive, most = set(), []

    def picture():
        square = np.zeros((40, 40, 4), np.uint8)
        square[4:-4, 4:-4] = 255
        alive.add(id(square))
        weakref.finalize(square, alive.remove, id(square))
        most.append(len(alive))
        return square

    views = [replace(cutouts()[0], item_id=f"pose/{number}", picture=picture, weight=1.0) for number in range(300)]
    kit = assemble(views, scale=0.5, boards=[board_row()], pictures=[board_picture()], params=params_of())
    assert len(kit.sprites) == 300 and max(most) <= 62


def test_assemble__lights_are_spread_over_the_pools_photos():
    looks = [look(light_C6=[[0.01 * number, 0, 0, 0, 0, 0]] * 3) for number in range(9)]
    kit = kit_of(params_of(lit_boards=3), rows=[board_row(looks=looks)])
    means = [one.canvas_HW3.mean() for one in kit.boards]
    assert len(means) == 3 and means == sorted(means) and means[-1] / means[0] == pytest.approx(np.exp(0.08), rel=0.01)


def test_assemble__smaller_photos_have_smaller_sprites_and_less_blur():
    whole, half = (kit_of(params_of(scale=scale)) for scale in (1.0, 0.5))
    assert half.boards[0].canvas_HW3.shape == (80, 80, 3)
    ratio = half.sprites[-1].sides[0] / whole.sprites[-1].sides[0]
    assert ratio == pytest.approx(0.5, rel=0.1)
    assert half.boards[0].blur == pytest.approx(0.5 * whole.boards[0].blur)


def test_assemble__takes_the_pools_jpeg_quality_unless_told():
    rows = [board_row(jpeg_quality=77)]
    assert kit_of(params_of(), rows=rows).jpeg_quality == 77
    assert kit_of(params_of(jpeg_quality=60), rows=rows).jpeg_quality == 60


def test_product_weights__named_products_and_no_others():
    assert product_weights(["a", "b"], weights={"b": 2.5}).tolist() == [1, 2.5]
    with pytest.raises(ValueError, match="sku_weights.*a, c"):
        product_weights(["a", "b"], weights={"c": 1.0, "a": 0.0})


def test_assemble__look_alikes_and_weights_by_number():
    kit = kit_of(params_of(sku_weights={"green": 3.0}))
    assert kit.skus == ["blue", "green", "red"] and kit.weights_S.tolist() == [1, 3, 1]
    assert all(mate == -1 or 0 <= mate < 3 for mate in kit.mates_S)
