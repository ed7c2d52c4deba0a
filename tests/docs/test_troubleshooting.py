"""docs/troubleshooting.md quotes messages that the code really has."""

import ast
import re

import pytest

from tests.docs.pages import ROOT, quoted, sections, table_rows, text_of

PAGE = text_of("docs/troubleshooting.md")
_LEAST_TOLD = 8
QUOTED = [
    quoted(row[0])[0] for name, text in sections(PAGE).items() if name != "No message" for row in table_rows(text)
]


def text_of_node(node):
    """A text of the code with "…" for what it fills in; None for what is no text, or says too little to tell it."""
    parts = [node] if isinstance(node, ast.Constant) else node.values if isinstance(node, ast.JoinedStr) else []
    told = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    # "key: expected …, got …" is the form of all of them.
    words = [word for word in re.findall(r"\w+", told) if word not in ("expected", "got")]
    return told if sum(map(len, words)) >= _LEAST_TOLD else None


@pytest.fixture(scope="module")
def texts():
    found = set()
    for folder in ("storage", "models", "tasks", "flows", "inspector"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= {text for node in ast.walk(ast.parse(path.read_text())) if (text := text_of_node(node))}
    return found


@pytest.mark.parametrize("message", QUOTED)
def test_messages__are_those_of_the_code(message, texts):
    # What ends with "…" may go on.
    pattern = re.compile(".+".join(map(re.escape, message.removesuffix("…").split("…"))) + ".*" * message.endswith("…"))
    assert any(pattern.fullmatch(text) for text in texts)


def test_messages__one_that_the_code_has_not_is_found_out(texts):
    assert "dataset: expected a folder, got …, which does not exist" in texts
    assert "dataset: expected a file, got …, which does not exist" not in texts
