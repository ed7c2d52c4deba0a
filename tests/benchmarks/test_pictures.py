"""The pictures of docs/concepts.md, drawn of a small run."""

import xml.etree.ElementTree as ET

import numpy as np

from benchmarks.pictures import pictures, strip
from flows.runs import read_run
from inspector.run_data import RunData
from storage.images import decode_rgb
from storage.store import Store
from tests.docs.pages import links, text_of


def test_pictures__every_stage_has_one_and_the_page_shows_them(micro_run):
    folder, _ = micro_run
    drawn = pictures(RunData(read_run(folder / "runs/micro"), Store.open(str(folder / "store"))))
    assert {
        link.removeprefix("stages/") for link in links(text_of("docs/concepts.md")) if link.startswith("stages/")
    } == set(drawn)
    for name, draw in drawn.items():
        if name.endswith(".svg"):
            assert ET.fromstring(draw()).tag.endswith("svg")
        else:
            height, width, _ = decode_rgb(draw()).shape
            assert width > height > 100


def test_strip__one_height_and_white_between():
    made = strip([np.zeros((10, 20, 3), np.uint8), np.zeros((40, 20, 3), np.uint8)], height=20)
    assert made.shape == (20, 40 + 8 + 10, 3)
    assert (made[:, 40:48] == 255).all() and not made[:, :40].any()
