"""Links of the pages lead to files and headings that exist, and to no page of elsewhere by accident."""

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links__lead_somewhere(page):
    for target in links(page.read_text()):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text()), target


def test_docs__are_all_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    reached = {(ROOT / target.partition("#")[0]).resolve() for target in links(readme) if "://" not in target}
    assert {page for page in PAGES if page.parent.name == "docs"} <= reached
