"""Usable by everybody: no serious finding of axe-core, both widths, both schemes, light pages."""

import json

import pytest

from tests.inspector.browser.conftest import sign_in
from tests.inspector.browser.planted import EARLIER, LONG_STAGE

PAGES = {
    "runs": "/",
    "run": "/runs/micro",
    "stage": "/runs/micro/stages/prune",
    "table": f"/runs/micro/stages/{LONG_STAGE}?view=table",
    "item": "/runs/micro/stages/compose/item?item=synthetic/000000",
    "prediction": "/runs/micro/stages/evaluate.source/item?item=table/skus",
    "compare": f"/compare?a={EARLIER}&b=micro",
    "catalog": "/runs/micro/catalog",
    "confusions": "/runs/micro/confusions",
    "review": "/review?run=micro&stage=segment",
    "rerun": "/rerun?run=micro",
    "champions": "/champions",
    "log": "/log",
    "sign-in": "/sign-in",
    "missing": "/runs/nothing",
}
SERIOUS = {"serious", "critical"}


def findings(page, axe):
    page.wait_for_load_state("networkidle")
    page.evaluate(axe)
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in SERIOUS]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe__finds_nothing_serious(open_page, axe, width, scheme):
    page = open_page("/sign-in", width=width, scheme=scheme)
    # The page's own policy forbids foreign script; axe comes in through the debugger.
    wrong = {}
    for name, path in PAGES.items():
        if name != "missing":
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


@pytest.mark.parametrize("width", [1280, 390])
def test_pages__nothing_sticks_out_sideways(open_page, width):
    page = open_page("/sign-in", width=width)
    for name, path in PAGES.items():
        if name != "missing":
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            main = page.locator("main").bounding_box()
            assert main["x"] >= 0 and main["x"] + main["width"] <= width, name


def test_pages__are_light_without_pictures(open_page):
    page, weights = open_page("/sign-in"), {}

    def weigh(response):
        if response.request.resource_type != "image":
            weights[current[0]] = weights.get(current[0], 0) + len(response.body())

    current = [""]
    page.on("response", weigh)
    for name, path in PAGES.items():
        if name != "missing":
            current[0] = name
            page.goto(path)
    page.wait_for_load_state("networkidle")
    assert max(weights.values()) < 200_000, json.dumps(weights)
