import threading

import pytest

from storage.journal import append_record, checked_name, read_records, record_numbers
from storage.store import Store


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    return Store.open(str(tmp_path) if request.param == "disk" else f"memory://bucket/{tmp_path.name}")


def test_append_record__numbers_from_one_and_keeps_the_order(store):
    assert [append_record(store, "log", body=lambda number, text=text: {"text": text}) for text in "abc"] == [1, 2, 3]
    assert [one["text"] for one in read_records(store, "log")] == ["a", "b", "c"]
    assert list(read_records(store, "other")) == []


def test_append_record__writers_at_once_lose_nothing(tmp_path):
    store = Store.open(str(tmp_path))
    start = threading.Barrier(8)

    def write(name):
        start.wait()
        for index in range(5):
            append_record(store, "log", body=lambda number, text=f"{name}{index}": {"number": number, "text": text})

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = list(read_records(store, "log"))
    assert [one["number"] for one in records] == list(range(1, 41))
    assert len({one["text"] for one in records}) == 40
    assert record_numbers(store, "log") == list(range(1, 41))
    assert not [path for path in (tmp_path / "log").iterdir() if path.name.startswith(".")]


def test_create_file__leaves_what_is_there(store):
    url = f"{store.url}/a/b.json"
    assert store.create_file(url, b"1") and not store.create_file(url, b"2")
    assert store.read_url(url) == b"1"


def test_read_records__says_which_is_broken(store):
    store.create_file(f"{store.url}/log/000001.json", b"{broken")
    with pytest.raises(ValueError, match=r"log/000001.json: expected a JSON object"):
        list(read_records(store, "log"))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../up", ".hidden"])
def test_checked_name__refuses_what_leads_elsewhere(name):
    with pytest.raises(ValueError, match="catalog: expected letters"):
        checked_name(name, what="catalog")
