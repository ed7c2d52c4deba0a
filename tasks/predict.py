"""Stage `predict`: a checkpoint's detections and counts for the photos of a manifest.

A row a photo, under the photo's own item_id: `objects` are detections down to the network's score floor, the counting
view's number is the attribute `count`, its channels' numbers `counts`. Which detections make the shopping list is
decided by a threshold from val, later.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch

from storage.digest import JSON
from storage.manifest import Manifest, ManifestRow
from tasks.context import StageContext
from tasks.detection import Detector, PhotoDetections, detect, load_detector
from tasks.device import pick_device
from tasks.mapping import THREADS
from tasks.params import PredictParams
from tasks.stage import stage


def prediction_row(row: ManifestRow, found: PhotoDetections) -> ManifestRow:
    """The row of one photo's detections."""
    return ManifestRow(
        item_id=row.item_id,
        width=row.width,
        height=row.height,
        split=row.split,
        level=row.level,
        parents=(row.item_id,),
        objects=found.objects,
        attributes={"count": found.count, **_counts_of_channels(found)},
    )


def _counts_of_channels(found: PhotoDetections) -> dict[str, JSON]:
    """What each channel of the counting view says, where there are several."""
    counts_C = found.density_Chw.sum(axis=(1, 2))
    return {"counts": [float(count) for count in counts_C]} if len(counts_C) > 1 else {}


def encode_density(density_Chw: np.ndarray) -> bytes:
    """A density map float32 [C, h, w] as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, density_Chw, allow_pickle=False)
    return buffer.getvalue()


def read_detector(context: StageContext, checkpoint: Manifest, *, device: str) -> Detector:
    """The detector of a checkpoint's manifest."""
    weights, config = context.read(checkpoint.row("checkpoint")), context.read(checkpoint.row("config"))
    return load_detector(weights, config, device=str(pick_device(device)))


def _groups(rows: Sequence[ManifestRow], *, size: int) -> list[Sequence[ManifestRow]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def predict_rows(
    context: StageContext, detector: Detector, *, rows: Sequence[ManifestRow], params: PredictParams
) -> Iterator[tuple[ManifestRow, PhotoDetections]]:
    """Rows with what was found in them; photos are decoded ahead while the network works, or batches go to workers."""
    groups = _groups(rows, size=params.batch)
    seen = partial(detect, detector, view=params.view)
    if context.runner != THREADS:

        def found_in(group: Sequence[ManifestRow]) -> list[PhotoDetections]:
            return seen([context.read_rgb(row) for row in group])

        for group, found in zip(groups, context.spread(found_in, groups, what="batches"), strict=True):
            yield from zip(group, found, strict=True)
        return
    decoded = context.map(context.read_rgb, rows, what="photos")
    for group in groups:
        yield from zip(group, seen(list(islice(decoded, len(group)))), strict=True)


@stage(PredictParams)
def predict(context: StageContext, *, params: PredictParams, checkpoint: Manifest, photos: Manifest) -> None:
    """Predict every usable photo; see the module's docstring."""
    # What ran before in this process may have left another number: a run that was killed must go on to the same sums.
    torch.set_num_threads(params.threads)
    detector = read_detector(context, checkpoint, device=params.device)
    predicted = predict_rows(context, detector, rows=photos.ok, params=params)
    for index, (row, found) in enumerate(predicted):
        result = prediction_row(row, found)
        if index < params.keep_density:
            path = f"density/{row.item_id.rsplit('/', 1)[-1]}.npy"
            data = encode_density(found.density_Chw)
            context.put(data, path=path, row=replace(result, media_type="application/x-npy"))
        else:
            context.add(result)
    context.content["threshold"] = detector.threshold
    channels = detector.network.config.count_channels
    if len(set(channels)) > 1:
        ids = [str(category.id) for category in detector.categories]
        context.content["channels"] = dict(zip(ids, channels, strict=True))
