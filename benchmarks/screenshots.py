"""Pictures of the inspector's pages for the README: written to docs/screenshots by a real browser.

    python -m benchmarks.screenshots [--runs runs] [--store store] [--run NAME] [--out docs/screenshots]

Best after `make demo` and a second run of the same name (`tally run … --seed 1`), so that there is
something to compare. Needs Chromium (`make browser`).
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from playwright.sync_api import sync_playwright

from benchmarks.inspector import start_server
from benchmarks.services import free_port
from flows.endings import end_with_code
from inspector.confusion_matrix import NOTHING, mistake_pairs
from inspector.products import products_of
from inspector.run_shelf import RunShelf
from inspector.run_view import RunView
from inspector.table_shelf import TableShelf
from storage.store import Store

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
_QUALITY = 82
_DECODED = "Promise.all([...document.images].filter(one => one.complete).map(one => one.decode().catch(() => 0)))"
_WIDE, _TALL, _PHONE = {"width": 1280, "height": 860}, {"width": 1280, "height": 1500}, {"width": 390, "height": 844}


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture: the file's name, the page, and how it is looked at. `clicks` are done first."""

    name: str
    path: str
    size: dict[str, int]
    scheme: str = "light"
    clicks: tuple[str, ...] = ()


def shots_of(run: RunView, *, earlier: str) -> list[Shot]:
    """The pages of a run that are worth a picture."""
    base = f"/runs/{quote(run.id)}"
    stage = f"{base}/stages"
    mask, photo = (quote(_item(run, name, share=0.5), safe="") for name in ("segment", "compose"))
    # The first ones have their density maps kept.
    tested = quote(_item(run, f"predict.{run.champion}.test", share=0.0), safe="")
    compare = (
        f"/compare?a={quote(earlier)}&b={quote(run.id)}" if earlier else f"/compare?a={run.id}&ar=source&b={run.id}"
    )
    wide = [
        ("runs", "/", ()),
        ("run", base, ()),
        ("stage", f"{stage}/prune", ()),
        ("item", f"{stage}/segment/item?item={mask}", ()),
        ("synthetic", f"{stage}/compose/item?item={photo}", ("label[for=layer-mask]", "label[for=layer-visible]")),
        ("prediction", f"{stage}/predict.{run.champion}.test/item?item={tested}", ("label[for=layer-density]",)),
        ("catalog", f"{base}/catalog", ()),
        ("product", f"{base}/product?sku={_worst_product(run)}", ()),
        ("confusions", f"{base}/confusions", ()),
        ("pair", f"{base}/confusions/pair?{_worst_pair(run)}", ()),
        ("review", f"/review?run={quote(run.id)}&stage=segment", ()),
    ]
    return [
        *(Shot(name=name, path=path, size=_WIDE, clicks=clicks) for name, path, clicks in wide),
        Shot(name="compare", path=compare, size=_TALL),
        Shot(name="item-dark", path=f"{stage}/segment/item?item={mask}", size=_WIDE, scheme="dark"),
        Shot(name="run-phone", path=base, size=_PHONE),
        Shot(name="stage-phone-dark", path=f"{stage}/prune", size=_PHONE, scheme="dark"),
    ]


def _item(run: RunView, stage: str, *, share: float) -> str:
    """The item that so large a share of a stage's items stands before."""
    table = run.table(stage)
    return str(table.light.column("item_id")[int(share * len(table))])


def _worst_product(run: RunView) -> str:
    """The product of lowest recall, quoted."""
    measured = [one for one in products_of(run, rung=run.champion) if one.recall is not None]
    return quote(min(measured, key=lambda one: one.recall or 0.0).sku, safe="")


def _worst_pair(run: RunView) -> str:
    """The query of the most confused pair of two products."""
    pairs = mistake_pairs(run.evaluation(run.champion, table="mistakes"))
    there, found, _ = next(one for one in pairs if NOTHING not in one)
    return urlencode({"true": there, "found": found, "rung": run.champion})


def take(browser: Any, shot: Shot, *, url: str, out: Path) -> None:  # noqa: ANN401 - Playwright's Browser
    """Open a page and keep what is seen of it."""
    context = browser.new_context(viewport=shot.size, color_scheme=shot.scheme, base_url=url)
    page = context.new_page()
    page.goto(shot.path)
    for selector in shot.clicks:
        page.locator(selector).click()
    page.wait_for_load_state("networkidle")
    page.evaluate(_DECODED)
    page.screenshot(path=out / f"{shot.name}.jpg", type="jpeg", quality=_QUALITY)
    context.close()


def main() -> None:
    """Take the pictures of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--store", default="store", help="folder or URL of the store")
    parser.add_argument("--run", default="", help="id of the run; the last one that is complete when not given")
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"), help="where the pictures go")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("expected Chromium on this machine, got none: `make browser` installs it on Debian (as root)")
    shelf = RunShelf(arguments.runs)
    complete = [one for one in shelf.all() if one.state == "completed"]
    entry = shelf.get(arguments.run) if arguments.run else next(iter(complete), None)
    if entry is None:
        parser.error(f"expected a complete run in {arguments.runs}/, got none: start with `make demo`")
    store = Store.open(arguments.store)
    run = RunView(entry, store, TableShelf(store))
    earlier = next((one.id for one in complete if one.name == entry.name and one.id != entry.id), "")
    arguments.out.mkdir(parents=True, exist_ok=True)
    port = free_port()
    options = ("--runs", str(arguments.runs.resolve()), "--store", store.url)
    server = start_server(Path.cwd(), port=port, options=options)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
            for shot in shots_of(run, earlier=earlier):
                take(browser, shot, url=f"http://127.0.0.1:{port}", out=arguments.out)
                print(arguments.out / f"{shot.name}.jpg", flush=True)
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    end_with_code(main)
