"""Every page in a real browser: what is on it, filters, paging, keys, layers, and that it works without script."""

import json
import os
import re
import shutil
import socket
from datetime import UTC, datetime

import numpy as np
import pytest
from playwright.sync_api import expect

from storage.images import decode_rgb
from tests.inspector.browser.conftest import follow, press, show, sign_in
from tests.inspector.browser.planted import EARLIER, LONG_ROWS, LONG_STAGE

pytestmark = pytest.mark.long

STAGE = "/runs/micro/stages/{}"


def loaded(page, selector):
    """The pictures of a part of the page, scrolled to and waited for: all must have come."""
    pictures = page.locator(f"{selector} img")
    assert pictures.count() > 0
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("image => image.decode()")
        assert picture.evaluate("image => image.naturalWidth") > 0


def first_item(page, stage, **filters):
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    page.goto(f"{STAGE.format(stage)}?{query}")
    follow(page, page.locator(".gallery .tile").first)
    return page


def test_runs__lead_to_the_run_and_its_stages(page):
    rows = page.get_by_role("row")
    expect(rows.nth(1)).to_contain_text("completed")
    expect(rows.nth(2)).to_contain_text("earlier")
    follow(page, page.get_by_role("link", name="micro").first)
    expect(page.get_by_role("heading", level=1)).to_contain_text("micro")
    expect(page.get_by_text("tally run --dataset")).to_be_visible()
    expect(page.get_by_role("term").filter(has_text="parameter resamplings: 49 before, 50 now")).to_be_visible()
    stages = page.locator(".graph a.stage")
    assert stages.count() >= 30
    loaded(page, ".plots")
    follow(page, page.locator(".graph a.stage", has_text="prune").first)
    expect(page).to_have_url(re.compile("/runs/micro/stages/prune$"))


@pytest.fixture
def live(shop):
    """Tells of a run that goes on: its number of stages, how many turns of the next one are done, and its state."""
    folder = shop.folder / "runs/live"
    folder.mkdir()
    record = json.loads((shop.folder / "runs/micro/run.json").read_text())
    started = datetime.now(UTC).isoformat()
    here = {"name": "live", "started": started, "finished": None, "champion": None, "ladder": {}}
    here |= {"host": socket.gethostname(), "process": os.getpid()}
    told = {"stage": "segment", "what": "turns", "total": 9, "time": started}

    def tell(stages, done, **more):
        (folder / "progress.json").write_text(json.dumps({**told, "done": done}))
        now = {**record, **here, "state": "running", "stages": record["stages"][:stages], **more}
        (folder / "run.json").write_text(json.dumps(now))

    tell(6, 2)
    yield tell
    shutil.rmtree(folder)


def test_run__that_goes_on_keeps_itself_up_to_date(live, open_page):
    page = open_page("/runs/live")
    expect(page.get_by_text("segment: 2 of 9 turns")).to_be_visible()
    assert page.locator(".graph a.stage").count() == 6
    page.get_by_text("The stages as a table").click()
    live(7, 7)
    expect(page.get_by_text("segment: 7 of 9 turns")).to_be_visible()
    expect(page.locator(".graph a.stage")).to_have_count(7)
    expect(page.get_by_role("table", name="The stages in the order they ran")).to_be_visible()
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1
    page.goto("/")
    expect(page.get_by_role("row").nth(1)).to_contain_text("segment: 7 of 9 turns")


def test_run__that_ends_is_told_as_a_whole(live, open_page):
    page = open_page("/runs/live")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("running")
    live(6, 2, state="failed", error="segment: the disk is full")
    expect(heading).to_contain_text("failed")
    expect(page.get_by_role("alert")).to_have_text("segment: the disk is full")


def test_report__opens(open_page):
    page = open_page("/runs/micro/report")
    expect(page.get_by_role("heading", level=1)).to_have_text("Run micro")


def test_report__prints_dark_on_white_with_the_legends_colours(open_page):
    page = open_page("/runs/micro/report", scheme="dark")
    page.emulate_media(media="print")
    shown = decode_rgb(page.screenshot())
    assert np.median(shown) == 255 and shown.min() < 60
    assert page.evaluate("getComputedStyle(document.querySelector('.swatch')).printColorAdjust") == "exact"


def test_ladder__can_be_read_on_a_phone(open_page):
    for place in ("/runs/micro", "/runs/micro/report"):
        page = open_page(place, width=390)
        heights = page.locator(".chart text").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
        assert min(heights) > 9


def test_stage_graph__names_stay_in_their_boxes(open_page):
    page = open_page("/runs/micro")
    for node in page.locator(".graph a.stage").all():
        name, box = node.locator(".name").bounding_box(), node.locator("rect").first.bounding_box()
        assert name["x"] + name["width"] < box["x"] + box["width"], node.text_content()


def test_stage__filters_by_sku_status_and_quality(open_page):
    page = open_page(STAGE.format("prune"))
    loaded(page, ".gallery li:nth-child(-n + 6)")
    sku = page.locator("select[name=sku]").locator("option").nth(1).get_attribute("value")
    page.locator("select[name=sku]").select_option(sku)
    show(page)
    tiles = page.locator(".gallery .tile")
    assert 0 < tiles.count() < 60
    assert all(sku in text for text in tiles.all_inner_texts())
    statuses = page.locator("select[name=status]").locator("option").all_inner_texts()
    if len(statuses) > 2:
        page.locator("select[name=status]").select_option("dropped")
        show(page)
        assert all("dropped" in text for text in tiles.all_inner_texts())
    follow(page, page.get_by_role("link", name="Reset"))
    page.get_by_label("lowest quality").fill("2")
    show(page)
    expect(page.get_by_text("No row passes these filters")).to_be_visible()


def test_stage__filters_by_reason_and_search(open_page):
    page = open_page(STAGE.format("select.image_level"))
    reason = page.locator("select[name=reason]").locator("option").nth(1).get_attribute("value")
    page.locator("select[name=reason]").select_option(reason)
    show(page)
    count = page.locator(".gallery .tile").count()
    assert count > 0
    name = page.locator(".tile .name").first.inner_text()
    page.get_by_label("search").fill(name.removeprefix("…"))
    page.get_by_label("search").press("Enter")
    assert 0 < page.locator(".gallery .tile").count() <= count


def test_stage__pages_and_sorts(open_page):
    page = open_page(STAGE.format(LONG_STAGE))
    told = page.locator(".pager").first
    expect(told).to_contain_text(f"1–60 of {LONG_ROWS}")
    press(page, "n")
    expect(told).to_contain_text(f"61–120 of {LONG_ROWS}")
    follow(page, page.get_by_role("link", name="Next").first)
    expect(told).to_contain_text(f"121–{LONG_ROWS} of {LONG_ROWS}")
    press(page, "p")
    expect(told).to_contain_text("61–120")
    page.locator("select[name=sort]").select_option("quality")
    show(page)
    expect(page.locator(".tile .name").first).to_have_text("0149")
    follow(page, page.get_by_role("link", name="table", exact=True))
    expect(page.get_by_role("rowheader").first).to_have_text("catalog/0149")


def test_stage__the_manifest_can_be_taken_away(open_page):
    page = open_page(STAGE.format("segment"))
    with page.expect_download() as download:
        page.get_by_role("link", name="manifest.parquet").click()
    assert download.value.suggested_filename == "micro-segment.parquet"


def test_keys__through_gallery_and_items(open_page):
    page = open_page(STAGE.format(LONG_STAGE) + "?sort=quality")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        press(page, key)
    assert page.evaluate("document.activeElement.querySelector('.name').textContent") == "0148"
    press(page, "ArrowDown")
    below = int(page.evaluate("document.activeElement.querySelector('.name').textContent"))
    assert below < 147
    press(page, "Enter")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text(f"catalog/{below:04d}")
    press(page, "ArrowRight")
    expect(heading).to_contain_text(f"catalog/{below - 1:04d}")
    press(page, "ArrowLeft")
    expect(heading).to_contain_text(f"catalog/{below:04d}")
    press(page, "u")
    expect(page).to_have_url(re.compile(r"/gather\.long\?(.*&)?sort=quality"))
    press(page, "/")
    assert page.evaluate("document.activeElement.name") == "find"
    press(page, "Escape")
    page.locator("h1").click()
    press(page, "?")
    expect(page.get_by_role("dialog")).to_be_visible()
    press(page, "Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_keys__alone_reach_everything(open_page):
    page = open_page("/")
    press(page, "Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(25):
        press(page, "Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim()"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen[-1]
        if seen[-1] == "micro":
            press(page, "Enter")
            break
    expect(page).to_have_url(re.compile("/runs/micro"))


def canvas(page):
    """The picture with what lies on it, as pixels."""
    page.wait_for_load_state("networkidle")
    page.locator("#canvas img.base").evaluate("image => image.decode()")
    return decode_rgb(page.locator("#canvas").screenshot()).astype(int)


def inside(page, like):
    """Where the mask is, in the pixels of a picture of the page."""
    source = page.locator(".film.mask").get_attribute("src").replace("kind=mask", "kind=alpha")
    alpha = decode_rgb(page.request.get(source).body())[..., 0]
    rows = np.linspace(0, alpha.shape[0] - 1, like.shape[0]).round().astype(int)
    columns = np.linspace(0, alpha.shape[1] - 1, like.shape[1]).round().astype(int)
    return alpha[rows][:, columns] > 250


def test_layers__the_mask_film_appears_where_the_mask_is(open_page):
    page = first_item(open_page(), "segment")
    page.locator("label[for=layer-boxes]").click()
    film = page.locator(".film.mask")
    film.evaluate("image => image.decode()")
    shown = canvas(page)
    press(page, "1")
    expect(film).to_be_hidden()
    plain = canvas(page)
    mask = inside(page, plain)
    changed = np.abs(shown - plain).sum(axis=2) > 24
    assert mask.sum() > 50
    assert changed[mask].mean() > 0.95
    away = ~mask & ~np.array([np.roll(mask, step, axis) for axis in (0, 1) for step in (-4, 4)]).any(axis=0)
    assert changed[away].mean() < 0.02
    # Magenta: red and blue up against green.
    gained = (shown - plain)[mask].mean(axis=0)
    assert gained[0] - gained[1] > 40 and gained[2] - gained[1] > 20


def test_layers__stay_as_they_are_from_item_to_item(open_page):
    page = first_item(open_page(), "segment")
    expect(page.locator(".film.mask")).to_be_visible()
    press(page, "1")
    press(page, "ArrowRight")
    expect(page.get_by_text("2 of 60")).to_be_visible()
    expect(page.locator(".film.mask")).to_be_hidden()


def test_layers__density_boxes_truth_and_score(open_page):
    page = first_item(open_page(), "predict.instance_level.test")
    plain = canvas(page)
    page.get_by_text("density", exact=False).first.click()
    page.locator(".film.density").evaluate("image => image.decode()")
    assert (np.abs(canvas(page) - plain).sum(axis=2) > 24).mean() > 0.05
    page.get_by_text("truth").first.click()
    assert page.locator(".film.truth rect").count() > 0
    expect(page.locator(".film.truth")).to_be_visible()
    slider = page.locator("#score")
    slider.fill("0")
    everything = page.locator(".film.boxes .shape:not(.low)").count()
    slider.fill("1")
    assert page.locator(".film.boxes .shape:not(.low)").count() < everything


def test_layers__visible_fraction_centres_and_masks_of_a_synthetic_photo(open_page):
    page = first_item(open_page(), "compose")
    for name, told in (("masks", "img.film.mask"), ("visible fraction", ".film.visible"), ("centres", ".film.centres")):
        page.locator(".layers label", has_text=name).click()
        expect(page.locator(told)).to_be_visible()
    assert "%" in page.locator(".film.visible text").first.text_content()


def test_item__lineage_leads_from_the_exemplar_to_its_photos(open_page):
    page = first_item(open_page(), "ingest.catalog")
    kin = page.locator(".kin")
    expect(kin.filter(has_text="segment")).to_be_visible()
    expect(kin.filter(has_text="prune")).to_be_visible()
    follow(page, kin.filter(has_text="segment").locator("li a").first)
    expect(page.get_by_role("heading", level=1)).to_contain_text("mask/")
    expect(page.locator(".kin").filter(has_text="ingest.catalog")).to_be_visible()
    page.goto(STAGE.format("compose"))
    follow(page, page.locator(".tile").first)
    loaded(page, ".kin")
    follow(page, page.locator(".kin").filter(has_text="prune").locator("li a").first)
    expect(page.locator(".kin").filter(has_text="compose")).to_be_visible()
    expect(page.get_by_text("taught")).to_be_visible()
    expect(page.get_by_text("predictions of")).to_be_visible()


def test_item__pool_evidence_and_pseudo_labels(open_page):
    page = first_item(open_page(), "prune")
    loaded(page, "[aria-labelledby=evidence-title]")
    page.goto(STAGE.format("select.instance_level"))
    # A plot of the round comes first.
    follow(page, page.locator(".gallery .tile:is(.ok, .rejected)").first)
    expect(page.locator(".notice").first).to_contain_text(re.compile("rejected|ok"))
    expect(page.locator(".film.boxes")).to_be_attached()


def test_item__files_that_are_no_pictures_are_readable(open_page):
    page = open_page(STAGE.format("evaluate.source") + "/item?item=table/skus")
    expect(page.get_by_role("columnheader", name="recall").first).to_be_visible()
    page.goto(STAGE.format("evaluate.source") + "/item?item=report")
    expect(page.get_by_text('"threshold"')).to_be_visible()


def test_compare__a_list_that_was_right_and_became_wrong(open_page):
    page = open_page(f"/compare?a={EARLIER}&b=micro")
    expect(page.get_by_text("became wrong (1)")).to_be_visible()
    follow(page, page.get_by_role("link", name="became wrong"))
    pair = page.locator(".pair")
    expect(pair).to_have_count(1)
    loaded(page, ".pair")
    expect(pair.locator("figcaption").first).to_contain_text("no mistake")
    assert pair.locator("figure").nth(1).locator("rect").count() > 0
    expect(page.get_by_role("term").filter(has_text="parameter resamplings: 49 before, 50 now")).to_be_visible()


def test_compare__two_rounds_of_one_run(open_page):
    page = open_page("/compare?a=micro&ar=source&b=micro&br=instance_level")
    expect(page.get_by_text("Two rounds of the same run")).to_be_visible()
    expect(page.get_by_role("row", name="averaged cAcc")).to_be_visible()


def test_catalog__products_and_their_pages(open_page):
    page = open_page("/runs/micro/catalog")
    assert page.locator("table").first.get_by_role("row").count() == 11
    page.locator("select[name=sort]").select_option("kept")
    show(page)
    follow(page, page.locator("tbody th a").first)
    expect(page.get_by_role("heading", name="Exemplars")).to_be_visible()
    loaded(page, "section:nth-of-type(1) .gallery li:nth-child(-n + 3)")


def test_confusions__down_to_the_pictures(open_page):
    page = open_page("/runs/micro/confusions")
    assert page.locator(".matrix a").count() > 0
    follow(page, page.locator(".matrix a").first)
    expect(page.get_by_role("heading", level=1)).to_contain_text("found as")
    loaded(page, ".gallery li:nth-child(-n + 4)")
    follow(page, page.locator(".tile").first)
    expect(page.locator("#canvas")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_without_script__pages_layers_and_forms_work(open_page, scheme):
    page = open_page(STAGE.format("segment"), script=False, scheme=scheme)
    page.locator("select[name=sort]").select_option("-quality")
    show(page)
    follow(page, page.locator(".tile").first)
    expect(page.locator(".film.mask")).to_be_visible()
    page.locator("label[for=layer-mask]").click()
    expect(page.locator(".film.mask")).to_be_hidden()
    follow(page, page.get_by_role("link", name="Next"))
    expect(page.get_by_text("2 of 60")).to_be_visible()
    sign_in(page)
    expect(page.get_by_text("Ada")).to_be_visible()


def test_dark__follows_the_system(open_page):
    dark = decode_rgb(open_page("/", scheme="dark").screenshot())
    light = decode_rgb(open_page("/", scheme="light").screenshot())
    assert dark.mean() < 60 and light.mean() > 200
