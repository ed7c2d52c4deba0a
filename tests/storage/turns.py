"""Several workers on one store, one operation at a time, in an order that a test chooses."""

import threading
from contextlib import contextmanager

from storage.store import Store


class Turns:
    """Passes the turn from worker to worker: at each operation the next one is taken from `order`, then by rotation."""

    def __init__(self, order):
        self._order = list(reversed(order))
        self._condition = threading.Condition()
        self._workers, self._turn = [], None

    def run(self, *works):
        """Run every work in a thread of its own, to their ends; raises what one of them raised."""
        failures = []

        def follow(work, number):
            try:
                self._wait(number)
                work()
            except BaseException as error:  # noqa: BLE001 - raised again where the threads end
                failures.append(error)
            finally:
                with self._condition:
                    self._workers.remove(number)
                    self._next(number)

        self._workers = list(range(len(works)))
        threads = [threading.Thread(target=follow, args=(work, n)) for n, work in enumerate(works)]
        self._numbers = {thread: number for number, thread in enumerate(threads)}
        with self._condition:
            self._next(-1)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def pass_on(self):
        """An operation is about to happen: whose turn is it?"""
        number = self._numbers.get(threading.current_thread())
        if number is not None:
            with self._condition:
                self._next(number)
            self._wait(number)

    def _next(self, number):
        if self._workers:
            after = [one for one in self._workers if one > number] or self._workers
            self._turn = self._workers[self._order.pop() % len(self._workers)] if self._order else after[0]
            self._condition.notify_all()

    def _wait(self, number):
        with self._condition:
            self._condition.wait_for(lambda: self._turn == number)


class SteppedStore(Store):
    """A store each of whose operations waits for its worker's turn."""

    def __init__(self, url, turns):
        super().__init__(url)
        self._turns = turns

    @contextmanager
    def lock(self, stage, *, key, wait=True):
        # Who waits for a lock must let others go on.
        while True:
            self._turns.pass_on()
            with super().lock(stage, key=key, wait=False) as free:
                if free or not wait:
                    yield free
                    return


def _stepped(name):
    def method(self, *arguments, **options):
        self._turns.pass_on()
        return getattr(Store, name)(self, *arguments, **options)

    return method


for _name in (
    *("read_manifest", "read_url", "put_file", "create_file", "remove_file", "remove_folder"),
    *("exists", "walk", "list_files", "_files"),
):
    setattr(SteppedStore, _name, _stepped(_name))
