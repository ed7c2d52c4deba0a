"""Usable by everybody: no serious finding of axe-core, both widths, both schemes, light pages."""

import io
import json
import re
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from inspector.confusion_matrix import NOTHING
from storage.store import Store
from tests.inspector.browser.conftest import follow, sign_in
from tests.inspector.browser.planted import EARLIER, LONG_STAGE, load

pytestmark = pytest.mark.long

PAGES = {
    "runs": "/",
    "run": "/runs/micro",
    "stage": "/runs/micro/stages/prune",
    "table": f"/runs/micro/stages/{LONG_STAGE}?view=table",
    "item": "/runs/micro/stages/compose/item?item=synthetic/000000",
    "file": "/runs/micro/stages/evaluate.source/item?item=table/skus",
    "evidence": "/runs/micro/stages/prune/item?item={pose}",
    "prediction": "/runs/micro/stages/predict.source.test/item?item={photo}",
    "pseudo-label": "/runs/micro/stages/select.instance_level/item?item={pseudo}",
    "compare": f"/compare?a={EARLIER}&b=micro",
    "rounds": "/compare?a=micro&ar=source&b=micro&br=instance_level",
    "catalog": "/runs/micro/catalog",
    "product": "/runs/micro/product?sku={sku}",
    "confusions": "/runs/micro/confusions",
    "pair": "/runs/micro/confusions/pair?rung=source&true={there}&found={found}",
    "review": "/review?run=micro&stage=segment",
    "rerun": "/rerun?run=micro",
    "champions": "/champions",
    "log": "/log",
    "sign-in": "/sign-in",
}
SERIOUS = {"serious", "critical"}
STATIC = Path(__file__).parents[3] / "inspector/static"


@pytest.fixture(scope="module")
def pages(shop):
    """Every page's address by its name."""
    store = Store.open(str(shop.folder / "store"))
    record = json.loads((shop.folder / "runs/micro/run.json").read_text())
    stages = {one["name"]: load(store, one) for one in record["stages"]}
    mistakes = pq.read_table(io.BytesIO(store.read(stages["evaluate.source"].row("table/mistakes")))).to_pylist()
    ids = {
        "pose": stages["prune"].ok[0].item_id,
        "photo": stages["predict.source.test"].ok[0].item_id,
        "pseudo": stages["select.instance_level"].rows[0].item_id,
        "sku": stages["ingest.catalog"].ok[0].sku,
        "there": mistakes[0]["true_sku"] or NOTHING,
        "found": mistakes[0]["found_sku"] or NOTHING,
    }
    return {name: path.format(**{key: quote(value) for key, value in ids.items()}) for name, path in PAGES.items()}


def findings(page, axe):
    """What axe finds in a page that has loaded, and what its rules about colours find in the dark."""
    # The page's own policy forbids foreign script; axe comes in through the debugger.
    page.evaluate(axe)
    found = _violations(page)
    page.emulate_media(color_scheme="dark")
    found += _violations(page, runOnly=["color-contrast", "link-in-text-block"])
    page.emulate_media(color_scheme="light")
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in SERIOUS]


def _violations(page, **options):
    run = "async options => (await axe.run(document, options)).violations"
    return page.evaluate(run, {"resultTypes": ["violations"], **options})


def test_schemes__differ_in_nothing_but_the_values_of_tokens():
    """So that in the dark axe need only look at colours."""
    [dark] = re.findall(r"(?s)@media[^{]*prefers-color-scheme[^{]*(\{.*?\}\s*\})", (STATIC / "tokens.css").read_text())
    assert re.fullmatch(r"\{\s*:root\s*\{(\s*(/\*.*?\*/|(--[\w-]+|color-scheme):[^;]*;))*\s*\}\s*\}", dark)
    others = [path for folder in (STATIC, STATIC.parent / "templates") for path in folder.rglob("*.*")]
    assert [path.name for path in others if "prefers-color-scheme" in path.read_text()] == ["tokens.css"]


@pytest.mark.parametrize("width", [1280, 390])
def test_axe__finds_nothing_serious(open_page, pages, axe, width):
    page, wrong = open_page("/sign-in", width=width), {}
    for name, path in pages.items():
        page.goto(path)
        wrong[name] = findings(page, axe)
    assert {name: found for name, found in wrong.items() if found} == {}


def test_axe__finds_nothing_serious_in_forms_of_members(open_page, axe):
    page = open_page()
    sign_in(page)
    page.goto("/runs/micro/stages/segment")
    page.locator(".tile").first.click()
    item = page.get_by_role("heading", level=1).inner_text().split()[0]
    for path in ("/promote?run=micro", f"/review/decide?run=micro&stage=segment&verdict=bad&item={item}"):
        page.goto(path)
        assert findings(page, axe) == []
    follow(page, page.locator(".tile").first)


@pytest.mark.parametrize("width", [1280, 390])
def test_pages__nothing_sticks_out_sideways(open_page, pages, width):
    page = open_page("/sign-in", width=width)
    for name, path in pages.items():
        page.goto(path)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        main = page.locator("main").bounding_box()
        assert main["x"] >= 0 and main["x"] + main["width"] <= width, name


def test_axe__finds_nothing_serious_where_something_is_missing(browser, shop, axe):
    context = browser.new_context(base_url=shop.url)
    page = context.new_page()
    assert page.goto("/runs/nothing").status == 404
    assert findings(page, axe) == []
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_axe__finds_nothing_serious_in_the_report(open_page, axe, width):
    page = open_page("/runs/micro/report", width=width)
    assert findings(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


# What a page loads before it can be read, pictures aside.
WEIGHED = {"document", "stylesheet", "script", "font"}


def test_pages__are_light_without_pictures(open_page, pages):
    page, weights, arrived = open_page("/sign-in"), {}, []

    def note(response):
        arrived.append(response)

    page.on("response", note)
    for name, path in pages.items():
        arrived.clear()
        page.goto(path)
        # Weighed before the next page: a browser forgets the bodies of the one that it has left.
        weights[name] = sum(len(one.body()) for one in arrived if one.request.resource_type in WEIGHED)
    assert max(weights.values()) < 200_000, json.dumps(weights)
