"""What stands behind the HTTP endpoint: a model that is loaded anew when its files change, and batches of photos.

Photos that wait at the same time are read together; a new model takes over between two batches, so that no request is
dropped. It lies in `flows` because it only wires tasks to the outside: pixels are touched by the tasks it calls.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from flows.champion import load_champion
from storage.catalog import with_product
from storage.formats.folders import read_products
from storage.images import Picture
from tasks.list_reader import Found, ListReader, onnx_reader
from tasks.shopping_list import prices_of

Waiting = tuple[Picture, asyncio.Future[tuple[ListReader, Found]]]
Signature = tuple[tuple[str, int, int], ...]
logger = logging.getLogger("tally.serve")


class BusyError(Exception):
    """More photos wait than the endpoint takes on."""


class ReadingError(Exception):
    """The model could not read a photo."""


def open_reader(path: Path, *, workers: int, products: Path | None = None) -> ListReader:
    """The reader of an .onnx file or of a champion's folder.

    Args:
        workers: photos that an .onnx file reads at once.
        products: file like the catalog's products.json, whose names and prices stand in for those of the training.

    Raises:
        ValueError: the model or the products are not what they should be.
    """
    if path.suffix == ".onnx":
        reader = onnx_reader(path, workers=workers)
    else:
        from tasks.checkpoint_reader import detector_reader

        reader = detector_reader(load_champion(path))
    if products is not None:
        known = read_products(products)
        categories = tuple(with_product(one, product=known.get(one.sku, {})) for one in reader.categories)
        reader = replace(reader, categories=categories)
    prices_of(reader.categories)
    return reader


def signature(path: Path) -> Signature:
    """Names, sizes and times of a model's files: it changes when one of them is replaced."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file, file.stat()) for file in files if file.is_file()]
    return tuple((file.name, state.st_size, state.st_mtime_ns) for file, state in states)


@dataclass(kw_only=True)
class Served:
    """The model in service. `find` says where it lies now (the champion may move), `load` opens it."""

    find: Callable[[], Path]
    load: Callable[[Path], ListReader]
    reader: ListReader | None = None
    loads: int = 0
    problem: str = ""
    _loaded: tuple[Path, Signature] | None = None
    _seen: tuple[Path, Signature] | None = None

    def refresh(self) -> None:
        """Load the model if its files changed and have been still since the last look; a failure keeps the old one."""
        try:
            path = self.find()
            now = (path, signature(path))
            settled = self.reader is None or now == self._seen
            self._seen = now
            if now != self._loaded and settled:
                self._loaded = now
                self.reader = self.load(path)
                self.loads, self.problem = self.loads + 1, ""
                _give_back_memory()
        except (ValueError, OSError) as error:
            self.problem = str(error)
            if self.reader is not None:
                logger.warning("the model could not be loaded, the one before stays: %s", error)


def _give_back_memory() -> None:
    """Let the system have what loading took and what the model before held.

    glibc keeps freed memory for the thread that used it, and each load may be another thread's: measured over 24 loads,
    550 to 760 MB without this, 350 to 430 MB with it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@dataclass(kw_only=True)
class Batcher:
    """Collects waiting photos, at most `batch` of them, and reads them together in a thread."""

    served: Served
    batch: int = 8
    waiting: int = 64
    _queue: asyncio.Queue[Waiting] = field(default_factory=asyncio.Queue)

    async def read(self, photo_HW3: Picture) -> tuple[ListReader, Found]:
        """The photo's products, with the reader that found them.

        Raises:
            BusyError: too many photos wait.
            ReadingError: the model could not read it.
        """
        if self._queue.qsize() >= self.waiting:
            raise BusyError
        future: asyncio.Future[tuple[ListReader, Found]] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((photo_HW3, future))
        return await future

    async def work(self) -> None:
        """Read batches until cancelled."""
        while True:
            group = [await self._queue.get()]
            while len(group) < self.batch and not self._queue.empty():
                group.append(self._queue.get_nowait())
            await self._read_group(group)

    async def _read_group(self, group: list[Waiting]) -> None:
        reader = self.served.reader
        assert reader is not None, "requests are taken only when a model is there"
        try:
            found = await asyncio.to_thread(reader.read, [photo for photo, _ in group])
        except Exception as error:  # whatever it is, what waits is still to be read
            logger.exception("a batch of %d photos could not be read", len(group))
            if len(group) == 1:
                _answer(group[0], error=ReadingError(str(error)))
            else:
                for one in group:
                    await self._read_group([one])
            return
        for one, what in zip(group, found, strict=True):
            _answer(one, found=(reader, what))


def _answer(waiting: Waiting, *, found: tuple[ListReader, Found] | None = None, error: Exception | None = None) -> None:
    _, future = waiting
    # A client that went away has cancelled its future.
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    elif found is not None:
        future.set_result(found)
