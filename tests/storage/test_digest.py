import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digest import canonical_json, digest_bytes, digest_json, stage_key

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_digest_bytes__is_sha256():
    assert digest_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_canonical_json__ignores_the_order_of_keys(value):
    turned = dict(reversed(list(value.items())))
    assert canonical_json(turned) == canonical_json(value)


def test_digest_json__hashes_sorted_compact_text():
    assert digest_json({"b": 1, "a": [True, None]}) == hashlib.sha256(b'{"a":[true,null],"b":1}').hexdigest()


def test_canonical_json__refuses_what_json_has_no_form_for():
    with pytest.raises(TypeError):
        canonical_json({1, 2})


BASE = {"version": 1, "parameters": {"a": 1, "seed": 0}, "inputs": {"x": "d1", "y": ["d2", "d3"], "z": None}}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"parameters": {"a": 2, "seed": 0}},
        {"parameters": {"a": 1, "seed": 1}},
        {"inputs": {"x": "d9", "y": ["d2", "d3"], "z": None}},
        {"inputs": {"x": "d1", "y": ["d3", "d2"], "z": None}},
        {"inputs": {"x": "d1", "y": ["d2", "d3"], "z": "d4"}},
        {"inputs": {"y": "d1", "x": ["d2", "d3"], "z": None}},
    ],
)
def test_stage_key__changes_with_every_component(change):
    assert stage_key("s", **{**BASE, **change}) != stage_key("s", **BASE)


def test_stage_key__changes_with_the_name_and_not_with_the_order_of_keys():
    turned = {**BASE, "parameters": {"seed": 0, "a": 1}, "inputs": {"z": None, "y": ("d2", "d3"), "x": "d1"}}
    assert stage_key("s", **turned) == stage_key("s", **BASE)
    assert stage_key("t", **BASE) != stage_key("s", **BASE)
