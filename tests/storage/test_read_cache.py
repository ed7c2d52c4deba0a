import os
from concurrent.futures import ThreadPoolExecutor

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


def test_put__threads_that_read_the_same_at_once_do_not_meet(tmp_path):
    cache, data = ReadCache(tmp_path, limit=10**9), b"tea" * 10**6
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: put(cache, data), range(100)))
    assert cache.get(digest_bytes(data)) == data
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_put__several_processes_together_stay_near_the_limit(tmp_path):
    caches, most = [ReadCache(tmp_path, limit=10_000) for _ in range(4)], 0
    for index in range(100):
        for number, cache in enumerate(caches):
            put(cache, bytes([number, index]) * 50)
        most = max(most, sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    assert 9_000 <= most <= 14_000


def test_put__a_file_that_another_process_removes_meanwhile_is_no_matter(tmp_path, monkeypatch):
    cache, listed = ReadCache(tmp_path, limit=100), type(tmp_path).glob
    put(cache, b"a" * 60)

    def glob(folder, pattern):
        for path in list(listed(folder, pattern)):
            path.unlink()
            yield path

    monkeypatch.setattr(type(tmp_path), "glob", glob)
    put(cache, b"b" * 60)


def test_of_environment__refuses_what_is_no_number(monkeypatch):
    monkeypatch.setenv("TALLY_CACHE_GIGABYTES", "lots")
    with pytest.raises(ValueError, match="TALLY_CACHE_GIGABYTES: expected a number of gigabytes, got 'lots'"):
        ReadCache.of_environment()
