"""Manifests that are being looked at, kept open: the ones used last, within a limit on their rows."""

from __future__ import annotations

import threading
from collections import OrderedDict

from inspector.listing import Listing
from storage.manifest_table import open_manifest_table
from storage.store import Store

_MOST_TABLES, _MOST_ROWS = 96, 600_000


class TableShelf:
    """Opens manifests, and opens one again when its file has changed. Thread-safe."""

    def __init__(self, store: Store) -> None:
        """Open manifests of `store`."""
        self._store = store
        self._open: OrderedDict[str, tuple[str, Listing]] = OrderedDict()
        self._lock = threading.Lock()

    def listing(self, stage: str, *, key: str) -> Listing:
        """The rows of a stage key, ready for filters.

        Raises:
            FileNotFoundError: there is no such result in the store (any more).
            ValueError: its manifest is broken.
        """
        url = self._store.manifest_url(stage, key=key)
        version = self._store.version_of(url)
        with self._lock:
            known = self._open.get(url)
            if known is None or known[0] != version:
                known = (version, Listing(open_manifest_table(self._store, url)))
                self._open[url] = known
            self._open.move_to_end(url)
            while len(self._open) > 1 and self._too_much():
                self._open.popitem(last=False)
        return known[1]

    def _too_much(self) -> bool:
        rows = sum(len(listing.table) for _, listing in self._open.values())
        return len(self._open) > _MOST_TABLES or rows > _MOST_ROWS
