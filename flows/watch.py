"""`tally catalog watch`: a folder in which new products appear, looked at from time to time.

A product's folder is taken when its photos have been still between two looks, so that a copy that is under way is not
read half. Polling works on network file systems too, where nobody tells of changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flows.catalog import Catalog, CatalogChange, add_products, newest_version, retired_products
from storage.catalog import categories_of
from storage.formats.dataset import pictures_in

Signature = tuple[tuple[str, int, int], ...]


@dataclass(kw_only=True)
class Watch:
    """What has been seen in a folder: the state of each product's photos, and those that were refused in that state."""

    catalog: Catalog
    folder: Path
    _seen: dict[str, Signature] = field(default_factory=dict)
    _refused: dict[str, Signature] = field(default_factory=dict)

    def look(self) -> CatalogChange | None:
        """Add the new products that have settled since the last look; None where there are none.

        A product that was removed from the catalog does not come back by lying there. One that was refused is tried
        again when its photos change.
        """
        now = signatures(self.folder)
        before, self._seen = self._seen, now
        present = self.catalog.store.load(newest_version(self.catalog).manifest)
        known = {category.sku for category in categories_of(present)} | retired_products(present)
        settled = [
            sku
            for sku, state in now.items()
            if state and before.get(sku) == state and sku not in known and self._refused.get(sku) != state
        ]
        if not settled:
            return None
        try:
            change = add_products(str(self.folder), catalog=self.catalog, skus=settled)
        except ValueError:
            self._refused |= {sku: now[sku] for sku in settled}
            raise
        self._refused |= {sku: now[sku] for sku in change.refused}
        return change


def signatures(folder: Path) -> dict[str, Signature]:
    """Names, sizes and times of the photos of each product's folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            files = [(photo.name, photo.stat()) for photo in pictures_in(path)]
            found[path.name] = tuple((name, state.st_size, state.st_mtime_ns) for name, state in files)
    return found


def watch(
    watched: Watch, *, every: float, sleep: Callable[[float], object] = time.sleep
) -> Iterator[CatalogChange | ValueError]:
    """Look every so many seconds, without end: each change, and each error that a user has to know of."""
    while True:
        try:
            change = watched.look()
            if change is not None:
                yield change
        except ValueError as error:
            yield error
        sleep(every)
