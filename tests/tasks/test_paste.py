import numpy as np
import pytest
from pycocotools import mask as coco_mask

from storage.images import decode_rgb, encode_jpeg
from storage.manifest import ManifestObject, ManifestRow
from storage.store import Store
from tasks.kit import with_cutouts
from tasks.params import PasteParams
from tasks.paste import accepted, add_items, paste
from tasks.stage import run_stage_locally
from tests.tasks.composing_cases import SIDE, board_picture, committed, inputs_of, kit_of, params_of

PARAMS = PasteParams(skus=(2, 3), items=(3, 5), versions=3, synthesis=params_of(min_visible=0.5))
# Of the colours and sizes of the cases' products.
LYING = {"red": (20, 30, 52, 50), "green": (90, 70, 106, 86), "blue": (60, 120, 100, 132)}
COLOURS = {"red": (190, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 190)}
UNKNOWN = (120, 10, 150, 40)


def photo():
    found = board_picture()
    for sku, (x0, y0, x1, y1) in LYING.items():
        found[y0:y1, x0:x1] = COLOURS[sku]
    return found


def probability(*, skus=tuple(LYING)):
    found = np.full((SIDE, SIDE), 0.02, np.float32)
    for x0, y0, x1, y1 in (LYING[sku] for sku in skus):
        found[y0:y1, x0:x1] = 0.95
    return found


def pseudo_row(**changes):
    objects = [
        ManifestObject(category=category, sku=sku, box=tuple(map(float, LYING[sku])), score=0.95)
        for category, sku in enumerate(sorted(LYING), start=1)
    ]
    unknown = ManifestObject(category=0, sku="", box=tuple(map(float, UNKNOWN)), status="ignore")
    return ManifestRow(
        item_id="pseudo/07", width=SIDE, height=SIDE, split="pseudo", objects=(*objects, unknown), **changes
    )


def base(kit, **changes):
    given = {"photo_HW3": photo(), "probability_HW": probability(), "boards": [board_picture()], "least_score": 0.9}
    return accepted(pseudo_row(), kit=kit, **{**given, **changes})


def kit():
    return kit_of(params_of())


def decoded(item):
    return coco_mask.decode({"size": [SIDE, SIDE], "counts": item.mask_rle.encode()}).astype(bool)


def pasted(index, **changes):
    made = kit()
    return add_items(base(made), photo_HW3=photo(), kit=made, params=PARAMS.model_copy(update=changes), index=index)


def test_accepted__cuts_out_items_that_stand_clear():
    found = base(kit())
    assert [item.mask_rle is not None for item in found.objects] == [True] * 3
    assert [np.nonzero(decoded(item))[0].min() for item in found.objects] == [120, 70, 30]
    assert sorted(one.sku for one in found.cutouts) == ["blue", "green", "red"]
    red = next(one for one in found.cutouts if one.sku == "red")
    solid = red.picture()[red.picture()[..., 3] == 255]
    assert solid.shape[0] == pytest.approx(32 * 20, rel=0.1)
    # Levelled: divided by the light at its place, which is the board's relative to where products usually lie.
    assert np.median(solid[:, 0]) == pytest.approx(190, abs=20)


def test_accepted__doubtful_items_are_not_cut_out():
    assert not base(kit(), least_score=0.96).cutouts


def test_accepted__none_where_no_board_is_bare():
    row = pseudo_row()
    everything = ManifestObject(category=0, sku="", box=(0.0, 0.0, 160.0, 160.0), status="ignore")
    found = accepted(
        ManifestRow(
            **{**{name: getattr(row, name) for name in ("item_id", "width", "height")}, "objects": (everything,)}
        ),
        photo_HW3=photo(),
        probability_HW=probability(),
        boards=[board_picture()],
        kit=kit(),
        least_score=0.9,
    )
    assert found is None


@pytest.mark.parametrize("index", range(8))
def test_add_items__labels_are_what_is_seen(index):
    made = pasted(index)
    old, new = [one for one in made.objects if one.source is None], [one for one in made.objects if one.source]
    assert len(old) == 3 and 1 <= len(new) <= 5
    for label, one in enumerate(made.objects, start=2):
        mask = made.labels_HW == label
        assert np.array_equal(decoded(one), mask)
        rows, columns = np.nonzero(mask)
        assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    # What lay there keeps at least the share that parameters name; what lies on top hides the rest of it.
    for one in old:
        x0, y0, x1, y1 = LYING[one.sku]
        share = decoded(one).sum() / ((x1 - x0) * (y1 - y0))
        assert share >= 0.5 and (one.visible_fraction or 1.0) == pytest.approx(share)


def test_add_items__nothing_is_laid_on_places_of_which_nothing_is_known():
    x0, y0, x1, y1 = UNKNOWN
    assert all((pasted(index).labels_HW[y0:y1, x0:x1] == 1).all() for index in range(8))


def test_add_items__some_items_below_are_covered_in_part():
    shares = [one.visible_fraction or 1.0 for index in range(12) for one in pasted(index).objects if not one.source]
    assert min(shares) < 0.95


def test_add_items__what_is_not_covered_stays_but_for_shadows():
    made, before = pasted(3), photo().astype(int)
    gone = before - made.photo_HW3
    old = (made.labels_HW >= 1) & (made.labels_HW <= 4)
    assert gone[made.labels_HW == 0].max() > 10
    # One grey level of rounding, and a rim of one pixel around what is new.
    assert gone[old].min() >= -40 and np.median(np.abs(gone[old])) <= 1


def test_add_items__same_index_same_photo_other_index_another():
    first, again, other = (pasted(index).photo_HW3 for index in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_with_cutouts__get_their_share_of_a_product():
    plain = kit()
    found = base(plain).cutouts
    extended = with_cutouts(plain, [one for one in found if one.sku == "red"] * 3, share=0.75, most=2)
    reds = [one for one in extended.sprites if one.sku == "red"]
    weights = {one.item_id: 0.0 for one in reds}
    for one in reds:
        weights[one.item_id] += one.weight
    assert weights["pseudo/07"] / sum(weights.values()) == pytest.approx(0.75)
    assert len(reds) == 2 + 2 and len(extended.sprites) == len(plain.sprites) + 2
    assert extended.table.starts_S.tolist() == [0, 2, 4, 8]
    assert {one.height for one in reds if one.item_id == "pseudo/07"} == {np.median([one.height for one in reds[:2]])}


@pytest.fixture
def network_free(monkeypatch):
    """A saliency network that knows where products lie."""
    monkeypatch.setattr("tasks.saliency.read_network", lambda context, network: None)
    monkeypatch.setattr("tasks.saliency.predict_saliency", lambda net, photo_HW3, working_size: probability())


def inputs(store):
    # Uncompressed enough that boxes stay where they are.
    rows = [(pseudo_row(media_type="image/jpeg"), encode_jpeg(photo(), quality=95))]
    rejected = ManifestRow(item_id="pseudo/08", status="rejected", reason="nothing trusted", split="pseudo")
    pseudo = committed(store, "select", [*rows, (rejected, None)])
    return {"pseudo": pseudo, "network": committed(store, "saliency", []), **inputs_of(store)}


def test_paste__rows_are_pool_photos_with_further_items(tmp_path, network_free):
    store = Store.open(str(tmp_path))
    made = run_stage_locally(paste, PARAMS, store=store, **inputs(store))
    assert [row.item_id for row in made.rows] == ["pasted/07_0", "pasted/07_1", "pasted/07_2"]
    for row in made.rows:
        sources = {one.source for one in row.objects if one.source}
        assert row.split == "pseudo" and row.parents[0] == "pseudo/07" and sources <= set(row.parents)
        assert [one.status for one in row.objects].count("ignore") == 1
        assert decode_rgb(store.read(row)).shape == (SIDE, SIDE, 3)
        assert row.attributes["added"] == sum(one.source is not None for one in row.objects) > 0
    sources = {one.source for row in made.rows for one in row.objects if one.source}
    assert "pseudo/07" in sources and any(source.startswith("pose/") for source in sources)


def test_paste__same_bytes_with_any_number_of_workers(tmp_path, network_free):
    digests = []
    for workers in (1, 3):
        store = Store.open(str(tmp_path / str(workers)))
        made = run_stage_locally(paste, PARAMS, store=store, workers=workers, **inputs(store))
        digests.append(made.content_digest)
    assert digests[0] == digests[1]


def test_paste__without_accepted_photos_there_is_nothing(tmp_path):
    store = Store.open(str(tmp_path))
    given = inputs(store)
    given["pseudo"] = committed(store, "selected", [(ManifestRow(item_id="pseudo/08", status="rejected"), None)])
    assert not run_stage_locally(paste, PARAMS, store=store, **given).rows
