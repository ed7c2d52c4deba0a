"""docs/reference.md: every command, option and setting, and the variables of the environment that the code reads."""

import re

from benchmarks.reference import PAGE, documented_variables, page
from tests.docs.pages import ROOT, text_of

_READ = re.compile(r"[\"']((?:TALLY|PREFECT_API|AWS)_[A-Z0-9_]+)[\"']")
# Written for Prefect and for our own processes, not read from the user.
_OWN = {"PREFECT_API_URL", "PREFECT_API_AUTH_STRING"}


def test_reference__is_what_the_code_says():
    assert PAGE.read_text() == page(), "run `python -m benchmarks.reference`"


def test_environment__every_variable_is_documented():
    sources = [
        path
        for folder in ("storage", "models", "tasks", "flows", "inspector")
        for path in (ROOT / folder).rglob("*.py")
    ]
    read = {name for path in sources for name in _READ.findall(path.read_text())}
    assert read <= documented_variables() | _OWN
    assert {name for name in documented_variables() if name.startswith("TALLY_")} - read <= {"TALLY_HOME"}


def test_readme__names_every_command():
    commands = set(re.findall(r"(?m)^### `tally (\w+)", text_of("docs/reference.md")))
    assert all(f"`tally {name}" in text_of("README.md") for name in commands)
