"""Photo files to shopping lists as fast as the processors go: reading, decoding, the network and drawing overlap.

A photo that can't be read becomes a problem in its place; the others go on. Memory stays flat however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from storage.images import Picture, decode_reduced, encode_jpeg
from tasks.ahead import ahead
from tasks.list_reader import Found, ListReader
from tasks.shopping_list import ShoppingList, draw_detections, kept, prices_of, shopping_list


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFile:
    """A photo on disk and what it is called in the lists."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoResult:
    """What came of one photo: its list (None: `problem` says why it was skipped) and, where asked for, a JPEG of the
    photo with the products drawn in, at the size at which it was decoded."""

    file: PhotoFile
    found: ShoppingList | None
    drawn: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    file: PhotoFile
    photo_HW3: Picture | None
    problem: str = ""


class PhotoLister:
    """Reads the lists of photo files with one model at one threshold (the model's own if None)."""

    def __init__(
        self, reader: ListReader, *, threshold: float | None, draw: bool, workers: int, review: float | None = None
    ) -> None:
        """`workers`: threads that decode and draw beside the network; `review` as in `shopping_list`.

        Raises:
            ValueError: the catalog has a price that is none.
        """
        self._reader, self._draw, self._workers = reader, draw, workers
        self._review = review
        self._threshold = reader.threshold if threshold is None else threshold
        self._names = {category.sku: category.title for category in reader.categories}
        self._prices = prices_of(reader.categories)

    def __call__(self, files: Iterable[PhotoFile]) -> Iterator[PhotoResult]:
        """Results in the order of the files."""
        reader, most = self._reader, 2 * self._workers
        with (
            ThreadPoolExecutor(self._workers) as helpers,
            ThreadPoolExecutor(reader.parallel) as readers,
        ):
            # Two steps in one pool cannot starve each other: neither waits inside a task.
            opened = ahead(self._opened, files, executor=helpers, most=most + reader.batch)
            groups = iter(lambda: list(islice(opened, reader.batch)), [])
            seen = ahead(self._seen, groups, executor=readers, most=2 * reader.parallel)
            pairs = (pair for group in seen for pair in group)
            yield from ahead(self._finished, pairs, executor=helpers, most=most)

    def _opened(self, file: PhotoFile) -> _Opened:
        try:
            photo_HW3 = decode_reduced(file.path.read_bytes(), least_side=self._reader.least_side)
        except (OSError, ValueError) as error:
            return _Opened(file=file, photo_HW3=None, problem=str(error))
        return _Opened(file=file, photo_HW3=photo_HW3)

    def _seen(self, group: list[_Opened]) -> list[tuple[_Opened, Found | None]]:
        photos = [one.photo_HW3 for one in group if one.photo_HW3 is not None]
        found = iter(self._reader.read(photos) if photos else [])
        return [(one, None if one.photo_HW3 is None else next(found)) for one in group]

    def _finished(self, pair: tuple[_Opened, Found | None]) -> PhotoResult:
        one, seen = pair
        if seen is None or one.photo_HW3 is None:
            return PhotoResult(file=one.file, found=None, drawn=b"", problem=one.problem)
        objects, count = seen
        found = shopping_list(
            one.file.name,
            objects=objects,
            threshold=self._threshold,
            names=self._names,
            prices=self._prices,
            count=count,
            trust=self._reader.confidence,
            review=self._review,
        )
        if not self._draw:
            return PhotoResult(file=one.file, found=found, drawn=b"")
        listed = kept(objects, threshold=self._threshold)
        drawn_HW3 = draw_detections(one.photo_HW3, objects=listed, names=self._names, total=found.total)
        return PhotoResult(file=one.file, found=found, drawn=encode_jpeg(drawn_HW3))
