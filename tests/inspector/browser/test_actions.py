"""What can be done in the browser: decisions that change the next run's stage key, champions, and the log of it all."""

import json
import re
import shutil

import pytest
from playwright.sync_api import expect

from flows.execution import explain_run
from flows.options import RunOptions
from storage.reviews import FOLDER, read_decisions
from storage.store import Store
from tests.inspector.browser.conftest import follow, press, show, sign_in


@pytest.fixture(autouse=True)
def _undecided(shop):
    """Nobody has decided anything: the shop is one for all tests, in whatever order they come."""
    shutil.rmtree(shop.folder / "store" / FOLDER, ignore_errors=True)


def verdict_on(shop, stage):
    """What the next run would do with a stage, and why."""
    options = RunOptions(
        dataset=str(shop.dataset), preset="micro", store=str(shop.folder / "store"), runs=str(shop.folder / "runs")
    )
    return next((one.verdict, one.reason) for one in explain_run(options) if one.name == stage)


def test_review__a_decision_changes_the_next_runs_key_and_taking_it_back_restores_it(shop, open_page):
    assert verdict_on(shop, "prune") == ("hit", "")
    page = open_page()
    sign_in(page)
    page.goto("/runs/micro/stages/segment")
    follow(page, page.locator(".tile").first)
    item = page.get_by_role("heading", level=1).inner_text().split()[0]
    press(page, "b")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Mark as bad: {item}")
    expect(page.get_by_text("The next run's prune drops this view.")).to_be_visible()
    assert read_decisions(Store.open(str(shop.folder / "store"))) == ()
    press(page, "Enter")
    # On to the next item, so that a person can go on with two keys an item.
    expect(page.get_by_text("2 of 60")).to_be_visible()
    [decision] = read_decisions(Store.open(str(shop.folder / "store")))
    assert (decision.item_id, decision.verdict, decision.reviewer) == (item, "bad", "Ada")
    assert verdict_on(shop, "prune") == ("miss", "input reviews: other content than before")
    press(page, "ArrowLeft")
    expect(page.locator(".review")).to_contain_text("bad by Ada")
    press(page, "x")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Take back")
    press(page, "Enter")
    expect(page.get_by_text("2 of 60")).to_be_visible()
    assert verdict_on(shop, "prune") == ("hit", "")
    page.goto("/log")
    expect(page.get_by_role("row").nth(1)).to_contain_text("review")
    expect(page.get_by_role("row").nth(1)).to_contain_text(item)


def test_review__many_at_once(shop, open_page):
    page = open_page()
    sign_in(page)
    page.goto("/review?run=micro&stage=prune")
    for box in page.locator(".pick input").all()[:3]:
        box.check()
    follow(page, page.get_by_role("button", name="Good"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("3 items")
    page.get_by_label("Note").fill("seen from above")
    follow(page, page.get_by_role("button", name="Mark as good"))
    expect(page.get_by_text("seen from above").first).to_be_visible()
    assert [one.verdict for one in read_decisions(Store.open(str(shop.folder / "store")))][-3:] == ["good"] * 3
    assert verdict_on(shop, "prune")[0] == "miss"
    page.locator("select[name=decided]").select_option("yes")
    show(page)
    expect(page.locator(".pick")).to_have_count(3)


def test_actions__without_the_token_only_a_way_to_sign_in(open_page):
    page = open_page("/promote?run=micro")
    expect(page.get_by_role("button", name="Promote")).to_have_count(0)
    follow(page, page.get_by_role("link", name="sign in").last)
    expect(page.get_by_label("Token")).to_be_visible()


def test_champions__promoted_and_brought_back_with_confirmation(shop, open_page):
    page = open_page()
    sign_in(page)
    # The first run's model became champion by itself.
    pointer = shop.folder / "runs/champion.json"
    first = json.loads(pointer.read_text())
    page.goto("/promote?run=micro&rung=source")
    page.get_by_label("Reason").fill("to see")
    assert json.loads(pointer.read_text()) == first
    follow(page, page.get_by_role("button", name="Promote"))
    expect(page.get_by_role("status")).to_contain_text("source of run micro")
    second = json.loads(pointer.read_text())
    assert second["folder"] != first["folder"]
    assert (shop.folder / "runs" / second["folder"] / "model.safetensors").is_file()
    page.goto("/champions")
    follow(page, page.get_by_role("link", name="Go back to it"))
    page.get_by_label("Reason").fill("worse at night")
    follow(page, page.get_by_role("button", name="Go back"))
    expect(page.get_by_role("status")).to_contain_text("is the champion of")
    assert json.loads(pointer.read_text())["folder"] == first["folder"]
    page.goto("/champions")
    expect(page.get_by_text("worse at night")).to_be_visible()
    page.goto("/log")
    expect(page.locator("tbody")).to_contain_text(re.compile("roll back.*promote", re.DOTALL))


def test_rerun__without_a_prefect_server_says_what_to_type(open_page):
    page = open_page("/rerun?run=micro&stage=prune")
    expect(page.get_by_text("No Prefect server is known")).to_be_visible()
    expect(page.get_by_text("--from prune")).to_be_visible()
