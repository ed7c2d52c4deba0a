"""Commands in the pages: every one is a command that there is, with options that there are; the README's are run."""

import re
import shlex
import subprocess

import numpy as np
import pytest

from flows.cli import app
from storage.images import encode_jpeg
from tests.commands import tally
from tests.docs.pages import PAGES, ROOT, text_of

pytestmark = pytest.mark.long

_COMMANDS = re.compile(r"(?m)^ *(tally|make|python -m|\.venv/bin/python -m) (.+?)(?: +#.*)?$")
# The reader's shop is the small data set of the tests, and the preset the one that takes seconds.
_IN_LITTLE = {"--preset cpu": "--preset micro", "shop/val": "counter"}


def shell_lines(text):
    """Commands in a text's blocks for the shell, joined where they go on; what follows && is one of its own."""
    blocks = re.findall(r"(?ms)^ *```sh\n(.*?)^ *```", text)
    whole = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for block in whole.splitlines() for line in re.split(r"&&|;", block)]


COMMANDS = sorted(
    {
        (page.name, match[1].removeprefix(".venv/bin/"), match[2])
        for page in PAGES
        for line in shell_lines(page.read_text())
        if (match := _COMMANDS.match(line))
    }
)


def test_commands__there_are_some():
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("page", "program", "words"), COMMANDS)
def test_commands__exist_with_their_options(page, program, words):
    if program == "tally":
        app.parse_args(shlex.split(words), exit_on_error=False, print_error=False)
    elif program == "make":
        target = words.split()[0]
        assert re.search(rf"(?m)^{re.escape(target)}:", text_of("Makefile"))
    else:
        module = words.split()[0]
        found = ROOT / f"{module.replace('.', '/')}.py", ROOT / module.replace(".", "/") / "__main__.py"
        assert any(path.is_file() for path in found) or module == "pytest"


@pytest.fixture(scope="module")
def shop(micro_run, small_dataset, tmp_path_factory):
    """A folder as the README's reader has it after step 2, with a run of the micro preset."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "shop").symlink_to(small_dataset)
    for name in ("store", "runs"):
        subprocess.run(["cp", "--archive", "--link", micro_run[0] / name, folder / name], check=True)
    (folder / "counter").mkdir()
    for photo in sorted((small_dataset / "test2019").glob("*.jpg"))[:2]:
        (folder / "counter" / photo.name).symlink_to(photo.resolve())
    return folder


def steps():
    """The commands of the README's five steps that end by themselves."""
    part = text_of("README.md").partition("## Your own shop in five steps")[2].partition("\n## ")[0]
    lines = [line for line in shell_lines(part) if line.startswith("tally ")]
    return [line for line in lines if line.split()[1] not in ("inspect", "serve", "retrain")]


def test_readme__the_five_steps_run(shop):
    product = shop / "new_products" / "brand_new"
    product.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    (product / "one.jpg").write_bytes(encode_jpeg(pixels))
    assert len(steps()) == 5
    for line in steps():
        for before, after in _IN_LITTLE.items():
            line = line.replace(before, after)
        done = tally(*shlex.split(line)[1:], folder=shop)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert (shop / "lists" / "shopping_lists.csv").stat().st_size > 0
