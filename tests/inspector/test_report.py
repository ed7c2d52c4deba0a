from html.parser import HTMLParser

import pytest

from inspector.rendering import as_time, flat
from inspector.report import write_report
from storage.store import Store
from tests.inspector.made_run import HOSTILE, made_run

VOID = {"meta", "link", "img", "br", "input"}


class Outline(HTMLParser):
    """Collects what the tests ask about and insists that elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.headings, self.images, self.header_cells, self.ids, self.links = [], [], [], [], set(), []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(values["id"])
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.images.append(values)
        if tag == "th":
            self.header_cells.append(values)
        if tag == "a":
            self.links.append(values["href"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def page(folder):
    write_report(made_run(folder), store=Store.open(str(folder / "store")), out=folder / "out" / "report.html")
    return (folder / "out" / "report.html").read_text()


def test_write_report__tells_which_renderers_were_tried(page):
    assert '<tr><th scope="row">none</th><td class="number">0.500</td><td class="number">1.500</td>' in page
    assert '<tr class="champion"><th scope="row">colour (chosen)</th><td class="number">0.625</td>' in page


def test_write_report__is_one_small_file_that_asks_for_nothing_else(page, folder):
    assert [path.name for path in (folder / "out").iterdir()] == ["report.html"]
    assert len(page) < 6_000_000
    outline = Outline(page)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in outline.images)
    assert all(link.startswith("#") for link in outline.links)
    assert "<script" not in page and 'src="http' not in page and "@import" not in page


def test_write_report__every_stage_has_its_pictures(page):
    outline = Outline(page)
    sections = {"masks", "poses", "boards", "synthetic", "detections", "pseudo-labels"}
    assert outline.ids == sections | {"ladder", "quarantine", "stages", "parameters"}
    # The masks' trio, two poses, a board, a photo thrice and progress, detections and heat, two pseudo-labels.
    assert len(outline.images) == 3 + 2 + 1 + (3 + 1) + 2 + 2
    for said in ("seen from the side", "nothing trusted", "both views agree", "1 of 1 items drifted", "quality 0.88"):
        assert said in outline.text


def test_write_report__detections_below_the_threshold_are_left_out(page):
    assert "hard: 1 found, 2 are there" in page and "counting view: 2.5" in page


def test_write_report__is_accessible(page):
    outline = Outline(page)
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert all(image["alt"] for image in outline.images)
    assert all(cell.get("scope") in ("col", "row") for cell in outline.header_cells)
    assert '<html lang="en">' in page and 'name="viewport"' in page
    assert {link[1:] for link in outline.links} <= outline.ids


def test_write_report__what_comes_from_the_data_is_escaped(page):
    assert HOSTILE not in page
    assert Outline(page).text.count(HOSTILE) >= 2


def test_write_report__figures_with_their_protocol(page):
    assert page.count("<td>unlabelled-target</td>") == 4
    assert "1.250" in page and "0.42" in page and "compose.overlap.hard" in page


def test_write_report__lost_and_damaged_files_leave_gaps(tmp_path):
    run = made_run(tmp_path)
    (tmp_path / "store/artifacts/board/board/manifest.parquet").unlink()
    (tmp_path / "store/artifacts/compose/compose/synthetic_000000").write_bytes(b"changed")
    write_report(run, store=Store.open(str(tmp_path / "store")), out=tmp_path / "report.html")
    outline = Outline((tmp_path / "report.html").read_text())
    assert "boards" not in outline.ids and "cannot be shown" in outline.text


def test_write_report__a_run_that_failed_early(tmp_path):
    run = made_run(tmp_path)
    early = {**run, "state": "failed", "finished": None, "champion": None, "ladder": {}, "stages": run["stages"][:1]}
    write_report(early, store=Store.open(str(tmp_path / "store")), out=tmp_path / "report.html")
    assert "has not been evaluated" in Outline((tmp_path / "report.html").read_text()).text


def test_flat__dotted_names_in_order():
    assert flat({"a": {"b": 1, "c": [2]}, "d": None}) == [("a.b", 1), ("a.c", [2]), ("d", None)]


@pytest.mark.parametrize(("seconds", "told"), [(4.21, "4.2 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")])
def test_as_time__as_people_read_it(seconds, told):
    assert as_time(seconds) == told
