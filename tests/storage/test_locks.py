import threading

import pytest

from storage.locks import Lease
from storage.store import Store


def lease(store, **values):
    return Lease(storage=store, folder=f"{store.url}/locks/s/k", poll=0.001, **values)


def test_lease__one_at_a_time(tmp_path):
    store, inside, seen = Store.open(str(tmp_path)), [], []

    def work():
        for _ in range(5):
            with lease(store).held():
                inside.append(1)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 20
    assert len(store.list_files(f"{store.url}/locks/s/k")) == 1


def test_lease__that_cannot_be_given_back_does_not_hide_how_the_work_ended(tmp_path, monkeypatch, caplog):
    store = Store.open(str(tmp_path))

    def fail(url, data):
        raise ConnectionError("no answer")

    with pytest.raises(ValueError, match="the labels are wrong"), lease(store).held():
        monkeypatch.setattr(store, "put_file", fail)
        raise ValueError("the labels are wrong")
    assert "could not be given back and has to run out: no answer" in caplog.text


def test_lease__of_a_holder_that_stands_still_is_taken_after_its_length(tmp_path):
    store = Store.open(str(tmp_path))
    dead = lease(store, length=60.0)
    dead._taken()
    clock = iter(range(0, 1000, 7))
    waits = []
    other = lease(store, length=60.0, clock=lambda: next(clock), sleep=waits.append)
    with other.held():
        # Looked at 7 s apart on its own clock: after nine looks a whole minute has gone by.
        assert 8 <= len(waits) <= 10


def test_lease__of_a_holder_that_renews_is_not_taken(tmp_path):
    store = Store.open(str(tmp_path))
    holder = lease(store)
    url = holder._taken()
    clock, renewals = iter(range(0, 10_000, 40)), iter(range(20))

    def sleep(_):
        # A sign of life before each look, up to the twentieth, which gives the lease back.
        store.put_file(url, holder._body(held=next(renewals) < 19))

    with lease(store, length=60.0, clock=lambda: next(clock), sleep=sleep).held():
        assert next(renewals, None) is None


def test_lease__who_comes_back_with_an_old_list_does_not_take_a_number_that_was_swept_away(tmp_path):
    store = Store.open(str(tmp_path))
    for _ in range(2):
        with lease(store).held():
            pass
    current = lease(store)
    assert current._taken().endswith("000000003.json")
    late = lease(store)
    assert late._created("000000002.json") is False
    assert store.list_files(current.folder) == ["000000003.json"]
