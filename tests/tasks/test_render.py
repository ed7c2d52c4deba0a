import numpy as np
import pytest
import torch
from safetensors.torch import load

from models.cyclegan import Generator
from storage.images import decode_rgb, encode_jpeg
from storage.manifest import Manifest, ManifestObject, ManifestRow
from storage.store import Store
from tasks.params import RenderParams
from tasks.render import render, rendered_row
from tasks.render_check import CheckLimits, ItemScores
from tasks.stage import key_of, run_stage_locally

TINY = {"steps": 3, "batch": 1, "crop": 48, "channels": 4, "blocks": 1, "critic_channels": 4, "threads": 1}


def photos(store: Store, stage: str, *, prefix: str, count: int, brightness: int) -> Manifest:
    publication = store.begin(stage, key="made")
    for index in range(count):
        rng = np.random.default_rng(index)
        photo = rng.normal(brightness, 4, (112, 120, 3))
        photo[30:80, 40:90] = np.kron(rng.integers(0, 2, (10, 10, 1)) * 90 + 60, np.ones((5, 5, 3)))
        item = ManifestObject(category=3, sku="tea", box=(40, 30, 90, 80))
        row = ManifestRow(
            item_id=f"{prefix}/{index:06d}",
            media_type="image/jpeg",
            width=120,
            height=112,
            level="easy",
            objects=(item,) if prefix == "synthetic" else (),
        )
        publication.put(encode_jpeg(np.clip(photo, 0, 255).astype(np.uint8)), path=f"{index}.jpg", row=row)
    return publication.commit(metadata={})


@pytest.fixture
def inputs(tmp_path):
    store = Store.open(str(tmp_path))
    synthetic = photos(store, "compose", prefix="synthetic", count=3, brightness=190)
    return {
        "store": store,
        "synthetic": synthetic,
        "pool": photos(store, "ingest", prefix="pool", count=2, brightness=120),
    }


def test_render__labels_stay_and_the_generator_is_kept(inputs):
    made = run_stage_locally(render, RenderParams(**TINY), **inputs)
    assert [row.item_id for row in made.ok] == [f"rendered/{index:06d}" for index in range(3)]
    assert {row.item_id for row in made.rows if row.status == "artifact"} == {
        "generator",
        *(f"progress/{step:06d}" for step in (1, 2, 3)),
    }
    for row in made.ok:
        source = inputs["synthetic"].row(row.parents[0])
        assert (row.objects, row.level, row.width, row.height) == (source.objects, "easy", 120, 112)
        assert decode_rgb(inputs["store"].read(row)).shape == (112, 120, 3)
        assert row.status == "ok" and row.quality > 0.9
    network = Generator(channels=4, blocks=1)
    network.load_state_dict(load(inputs["store"].read(made.row("generator"))))


def test_render__fastcut_keeps_labels_and_shows_two_rows_of_crops(inputs):
    made = run_stage_locally(render, RenderParams(**TINY, renderer="fastcut"), **inputs)
    assert [row.objects for row in made.ok] == [row.objects for row in inputs["synthetic"].ok]
    picture = decode_rgb(inputs["store"].read(made.row("progress/000003")))
    assert picture.shape == (2 * 48, 4 * 48, 3)


def test_render__equal_digests_for_any_number_of_workers(inputs, tmp_path):
    one = run_stage_locally(render, RenderParams(**TINY), **inputs, workers=1)
    elsewhere = {**inputs, "store": Store.open(str(tmp_path / "other"))}
    many = run_stage_locally(render, RenderParams(**TINY), **elsewhere, workers=4)
    assert one.content_digest == many.content_digest


def test_render__none_refers_to_the_synthetic_files(inputs):
    made = run_stage_locally(render, RenderParams(renderer="none"), **inputs)
    for row in made.rows:
        source = inputs["synthetic"].row(row.parents[0])
        assert (row.url, row.digest, row.objects) == (source.url, source.digest, source.objects)


def test_render__fourier_follows_the_brightness_of_the_pool(inputs):
    made = run_stage_locally(render, RenderParams(renderer="fourier"), **inputs)
    assert len(made.ok) == 3
    brightness = np.mean([decode_rgb(inputs["store"].read(row))[:20].mean() for row in made.ok])
    assert 110 < brightness < 160


def test_render__a_photo_whose_item_drifted_is_rejected_and_kept_to_look_at(inputs):
    made = run_stage_locally(render, RenderParams(renderer="colour", min_structure=1.1), **inputs)
    assert not made.ok
    assert all(row.reason.startswith("1 of 1 items drifted") and row.path for row in made.rows)


def test_render__an_empty_input_says_which(inputs):
    empty = inputs["store"].begin("ingest", key="empty").commit(metadata={})
    with pytest.raises(ValueError, match="input 'pool'"):
        run_stage_locally(render, RenderParams(**TINY), **{**inputs, "pool": empty})


def test_rendered_row__keeps_the_worst_scores():
    scores = [ItemScores(structure=0.9, edges=0.8, shift=0.2), ItemScores(structure=0.95, edges=0.7, shift=0.1)]
    row = ManifestRow(item_id="synthetic/000007", attributes={"board": 3})
    made = rendered_row(row, scores=scores, limits=CheckLimits(structure=0.5, edges=0.5, shift=1))
    assert made.item_id == "rendered/000007" and made.quality == pytest.approx(0.9)
    assert made.attributes == {"board": 3, "render": {"structure": 0.9, "edges": 0.7, "shift": 0.2}}
    assert made.status == "ok"


def test_render__training_threads_are_those_of_the_parameters(inputs, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    run_stage_locally(render, RenderParams(**TINY), **inputs)
    assert asked == [1, 1]


def test_render__a_pool_of_larger_photos_is_brought_to_the_size_of_the_synthetic_ones(inputs, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "tasks.render.fourier_renderer", lambda pool, radius: seen.extend(pool) or (lambda photo, *_: photo)
    )
    store = inputs["store"]
    publication = store.begin("ingest", key="large")
    row = ManifestRow(item_id="pool/a", media_type="image/jpeg", width=300, height=300)
    publication.put(encode_jpeg(np.zeros((300, 300, 3), np.uint8)), path="a.jpg", row=row)
    larger = {**inputs, "pool": publication.commit(metadata={})}
    run_stage_locally(render, RenderParams(renderer="fourier", scale=0.5), **larger)
    assert [photo.shape for photo in seen] == [(60, 60, 3)]


@pytest.mark.parametrize("setting", ["generator_share", "slope_weight"])
@pytest.mark.parametrize(("renderer", "counts"), [("cyclegan", True), ("fastcut", True), ("colour", False)])
def test_key_of__how_critics_and_generators_learn_counts_for_renderers_that_learn(renderer, counts, setting):
    one, other = (key_of(RenderParams(renderer=renderer, **{setting: value}), inputs={}) for value in (0.5, 1.0))
    assert (one != other) == counts
