"""docs/security.md against the defaults of the code."""

from inspect import signature

from flows import cli
from flows.serve_app import Limits
from flows.serving import Batcher, Served
from inspector import access
from storage import images
from tests.docs.pages import table_rows, text_of

PAGE = " ".join(text_of("docs/security.md").split())


def test_limits__are_those_of_the_endpoint():
    limits = Limits()
    waiting = Batcher(served=Served(find=None, load=None)).waiting
    assert f"at most {limits.most_bytes // 10**6} MB a request" in PAGE
    assert f"{limits.most_held_bytes // 10**6} MB over all requests" in PAGE
    assert f"more than {limits.seconds:.0f} s, decodes {limits.decoding} at a time, lets {waiting} wait" in PAGE
    assert f"a picture may have {limits.most_pixels // 10**6} million pixels" in PAGE
    assert (
        f"({images.MAX_PIXELS // 10**6} million for photos of a data set, {limits.most_pixels // 10**6} million" in PAGE
    )


def test_access__is_that_of_the_inspector():
    assert f"The inspector's must have {access._LEAST_TOKEN} characters" in PAGE
    assert access._SECONDS == 12 * 3600 and "a signed cookie for half a day" in PAGE
    assert f"The inspector takes {access._MOST_FORM_BYTES // 1000} kB a form" in PAGE


def test_services__listen_on_loopback_at_the_ports_of_the_table():
    rows = {row[0]: row[1:3] for row in table_rows(text_of("docs/security.md")) if row[0].startswith("`tally ")}
    for name in ("inspect", "serve"):
        defaults = signature(getattr(cli, name)).parameters
        assert rows[f"`tally {name}`"] == [str(defaults["port"].default), defaults["host"].default]
