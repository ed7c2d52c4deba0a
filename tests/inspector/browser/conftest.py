"""A real browser, and the inspector as `tally inspect` starts it, over a store that the micro preset made."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.inspector.browser.planted import plant
from tests.waiting import LONGEST, wait_for

TOKEN = "a-token-for-the-browser"
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@dataclass(frozen=True)
class Shop:
    """A micro run's folder, the inspector over it, and the data set that it was made of."""

    folder: Path
    url: str
    dataset: Path


@pytest.fixture(scope="session")
def chromium():
    """The path of a Chromium; tests are skipped where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: `make browser` installs it on Debian (as root)")
    return found


@pytest.fixture(scope="session")
def axe():
    """The source of axe-core; tests are skipped where it was not installed."""
    if not AXE.is_file():
        pytest.skip("no axe-core: `make browser` installs it with npm")
    return AXE.read_text()


@pytest.fixture(scope="session")
def shop(chromium, micro_run, small_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    for name in ("runs", "store"):
        # Links, not copies: nothing here writes into a published file.
        shutil.copytree(micro_run[0] / name, folder / name, copy_function=os.link)
    plant(folder)
    (folder / "token").write_text(TOKEN)
    port = free_port()
    command = [sys.executable, "-m", "flows.cli", "inspect", "--port", str(port), "--token-file", "token"]
    environment = {**os.environ, "PREFECT_API_URL": ""}
    with (folder / "output").open("w") as output:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        address, output = f"http://127.0.0.1:{port}", folder / "output"
        wait_for(lambda: answers(f"{address}/health", server=server, output=output), what="starting the inspector")
        yield Shop(folder, address, small_dataset)
    finally:
        server.terminate()
        server.wait(LONGEST)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(url, *, server, output):
    """Whether a server answers yet; one that has ended never will."""
    assert server.poll() is None, output.read_text()
    try:
        with urllib.request.urlopen(url, timeout=LONGEST):
            return True
    except urllib.error.URLError:
        return False


@pytest.fixture(scope="module")
def browser(chromium):
    # Closed with each file: Playwright keeps an event loop running, beside which other files' tests can't start theirs.
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: see `make test`")
    sync_api.expect.set_options(timeout=1000 * LONGEST)
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, shop):
    """Opens pages of the inspector; complains of every error that the browser's console told."""
    contexts, complaints = [], []

    def open_one(path="/", *, width=1280, height=860, scheme="light", script=True):
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=script, base_url=shop.url)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * LONGEST)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
        page.goto(path)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page):
    return open_page()


def press(page, key):
    """Press a key once the page's script, which listens to it, runs."""
    page.wait_for_load_state("load")
    page.keyboard.press(key)


def follow(page, target):
    """Click what leads to another page, and wait until all of that is there."""
    with page.expect_navigation():
        target.click()


def show(page):
    """Press the button of the filters' form."""
    follow(page, page.get_by_role("button", name="Show"))


def sign_in(page, *, name="Ada"):
    page.goto("/sign-in")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_label("Your name").fill(name)
    follow(page, page.get_by_role("button", name="Sign in"))
