"""Synthetic photos on the fly: an unlimited stream for training that never touches the disk.

The pixels are those of the stored mode: each photo goes through the same JPEG, so that a model sees the same whether
photos were stored or streamed. Workers of a DataLoader take every n-th index each.

Boundary: the one place in composing that knows torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from storage.images import decode_rgb
from storage.manifest import ManifestRow
from tasks.compose import encoded_photo
from tasks.params import ComposeParams
from tasks.sprites import Kit


class SyntheticPhotos(IterableDataset[tuple[NDArray[np.uint8], ManifestRow]]):
    """Yields (photo uint8 [H, W, 3], its row with the labels) for the indices `first`, `first` + 1, … without end."""

    def __init__(self, kit: Kit, *, params: ComposeParams, first: int = 0) -> None:
        """Compose from `kit`; `params.photos` does not limit the stream."""
        self._kit, self._params, self._first = kit, params, first

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], ManifestRow]]:
        """The photos of this worker, in the order of their indices."""
        worker = get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for index in count(self._first + start, step):
            data, row = encoded_photo(index, kit=self._kit, params=self._params)
            yield decode_rgb(data), row
