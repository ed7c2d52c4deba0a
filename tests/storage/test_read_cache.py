import os

import pytest

from storage.digest import digest_bytes
from storage.read_cache import ReadCache


def put(cache, data):
    cache.put(digest_bytes(data), data)


def test_get__gives_what_was_put_and_nothing_that_changed(tmp_path):
    cache = ReadCache(tmp_path, limit=1000)
    assert cache.get(digest_bytes(b"tea")) is None
    put(cache, b"tea")
    assert cache.get(digest_bytes(b"tea")) == b"tea"
    next(path for path in tmp_path.rglob("*") if path.is_file()).write_bytes(b"toe")
    assert cache.get(digest_bytes(b"tea")) is None


def test_put__makes_room_by_removing_what_was_not_read_for_longest(tmp_path):
    cache, texts = ReadCache(tmp_path, limit=100), [bytes([65 + index]) * 30 for index in range(4)]
    for age, text in enumerate(texts[:3]):
        put(cache, text)
        path = tmp_path / digest_bytes(text)[:2] / digest_bytes(text)
        os.utime(path, ns=(age, age))
    assert cache.get(digest_bytes(texts[0])) == texts[0]
    put(cache, texts[3])
    there = [cache.get(digest_bytes(text)) is not None for text in texts]
    assert there == [True, False, True, True]


def test_put__never_holds_more_than_the_limit_for_long(tmp_path):
    cache = ReadCache(tmp_path, limit=1000)
    for index in range(100):
        put(cache, index.to_bytes(4, "big") * 12)
        put(ReadCache(tmp_path, limit=1000), b"other" + index.to_bytes(4, "big") * 10)
    held = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 0 < held <= 1000
    put(cache, b"x" * 1001)
    assert cache.get(digest_bytes(b"x" * 1001)) is None


def test_of_environment__refuses_what_is_no_number(monkeypatch):
    monkeypatch.setenv("TALLY_CACHE_GIGABYTES", "lots")
    with pytest.raises(ValueError, match="TALLY_CACHE_GIGABYTES: expected a number of gigabytes, got 'lots'"):
        ReadCache.of_environment()
