"""The Markdown pages of the project, taken apart: headings, tables, blocks of code, links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/RESULTS.md", ROOT / "sample/README.md"]
)


def text_of(name):
    return (ROOT / name).read_text()


def sections(text, *, level=2):
    """The text under each heading of a level, by the heading without its backticks."""
    parts = re.split(rf"(?m)^{'#' * level} (.+)$", text)
    return {
        title.strip("`"): re.split(rf"(?m)^#{{1,{level}}} ", body)[0]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def table_rows(text):
    """The cells of every table's rows in a text, heads left out."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in rows]
    heads = {index - 1 for index, row in enumerate(cells) if all(re.fullmatch(":?-+:?", cell) for cell in row)}
    return [row for index, row in enumerate(cells) if index not in heads and index - 1 not in heads]


def quoted(cell):
    """What stands in backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def links(text):
    """Targets of links and pictures, blocks of code left out."""
    bare = re.sub(r"(?ms)^```.*?^```", "", text)
    return re.findall(r"\]\(([^)\s]+)\)", bare)


def anchors(text):
    """What `#…` may name in a page, as GitHub makes it out of the headings."""
    bare = re.sub(r"(?ms)^```.*?^```", "", text)
    titles = re.findall(r"(?m)^#+ (.+)$", bare)
    named = set(re.findall(r'<a id="([^"]+)">', bare))
    return named | {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
