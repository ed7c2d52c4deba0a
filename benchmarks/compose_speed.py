"""How fast photos are composed, next to encoding alone and to the paper's script: for `benchmarks.compose`.

Processor time of this thread, so that a busy machine does not change it much; composing and encoding take turns, so
that what it does change hits both.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.images import encode_jpeg
from tasks.compose import compose_photo, draw_scene, encoded_photo, label_items, laid_out, paint, photograph
from tasks.layout import cell_side, draw_name
from tasks.params import ComposeParams
from tasks.sprites import Kit
from tasks.wishes import draw_items

Photo = NDArray[np.uint8]

_WARM, _ROUNDS, _BLOCK = 150, 8, 20


def thread_ms(function: Callable[[], Any]) -> float:
    """Milliseconds of this thread's processor time that a call takes."""
    started = time.thread_time()
    function()
    return 1000 * (time.thread_time() - started)


def composing_speed(kit: Kit, *, params: ComposeParams, warm: int = _WARM) -> dict[str, float]:
    """Photos a processor second with encoding, bytes, items, and how much longer than encoding alone it takes."""
    for index in range(warm):
        encoded_photo(index, kit=kit, params=params)
    photos = [compose_photo(kit, params=params, index=index).photo_HW3 for index in range(_BLOCK)]
    made = [encoded_photo(index, kit=kit, params=params) for index in range(_BLOCK)]
    whole, encoding = [], []
    for block in range(_ROUNDS):
        first = _BLOCK * block
        whole.append(thread_ms(lambda: _compose_block(first, kit=kit, params=params)) / _BLOCK)  # noqa: B023
        encoding.append(thread_ms(lambda: [encode_jpeg(one, quality=kit.jpeg_quality) for one in photos]) / _BLOCK)
    return {
        "side": float(photos[0].shape[0]),
        "items": float(np.mean([len(row.objects) for _, row in made])),
        "ms": statistics.median(whole),
        "photos_per_cpu_second": 1000 / statistics.median(whole),
        "bytes": float(np.mean([len(data) for data, _ in made])),
        "jpeg_alone_ms": statistics.median(encoding),
        "times_jpeg_limit": statistics.median(one / other for one, other in zip(whole, encoding, strict=True)),
    }


def _compose_block(first: int, *, kit: Kit, params: ComposeParams) -> None:
    for index in range(first, first + _BLOCK):
        encoded_photo(index, kit=kit, params=params)


def photos_a_second(kit: Kit, *, params: ComposeParams, threads: int, photos: int = 400) -> float:
    """Photos a second of wall time by so many threads: what the stage reaches where the processors are free."""
    with ThreadPoolExecutor(threads) as executor:
        started = time.perf_counter()
        for _ in executor.map(lambda index: encoded_photo(index, kit=kit, params=params), range(photos)):
            pass
        return photos / (time.perf_counter() - started)


def breakdown(kit: Kit, *, params: ComposeParams, photos: int = 150) -> dict[str, float]:
    """Median milliseconds of the steps of a photo."""
    rows: dict[str, list[float]] = {}
    for index in range(photos):
        for name, ms in _steps(kit, params=params, index=index).items():
            rows.setdefault(name, []).append(ms)
    return {f"{name}_ms": statistics.median(values) for name, values in rows.items()}


def _steps(kit: Kit, *, params: ComposeParams, index: int) -> dict[str, float]:
    """The steps of `tasks.compose.compose_photo`, one after the other, with their times."""
    times: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the step returns
        started = time.thread_time()
        result = function()
        times[name] = 1000 * (time.thread_time() - started)
        return result

    generator = np.random.default_rng((params.seed, index))
    level = draw_name({name: one.share for name, one in params.levels.items()}, generator=generator)
    scene = timed("scene", lambda: draw_scene(kit, generator=generator))
    board_HW3 = scene.board.canvas_HW3
    drawn = {"level": params.levels[level], "index": index, "cell": cell_side(*board_HW3.shape[:2])}
    items = timed("items", lambda: draw_items(kit, params=params, generator=generator, **drawn))
    layout = timed("layout", lambda: laid_out(items, kit=kit, board_HW3=board_HW3, params=params, generator=generator))
    canvas_HW3 = timed("paint", lambda: paint(layout, scene=scene, kit=kit, params=params))
    taken = {"kit": kit, "scene": scene, "params": params, "generator": generator}
    photo_HW3 = timed("camera", lambda: photograph(canvas_HW3, **taken))
    timed("labels", lambda: label_items(layout, kit=kit, amodal=False))
    timed("jpeg", lambda: encode_jpeg(photo_HW3, quality=kit.jpeg_quality))
    return times


def memory_grown(kit: Kit, *, params: ComposeParams, photos: int = 300) -> float:
    """MiB by which the process's peak grows while so many photos are composed and thrown away."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(photos):
        encoded_photo(index, kit=kit, params=params)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def paper_script_photo(sprites: Sequence[Photo], board_HW3: Photo, generator: np.random.Generator) -> Photo:
    """One photo as the paper's script makes it: resized, turned and tried until the boxes overlap little.

    Each cut-out is scaled by 0.4 to 0.7 and turned by any angle on a canvas that holds it, then pasted with a hard edge
    on a float copy of the photo.
    """
    photo_HW3 = board_HW3.copy()
    boxes: list[tuple[int, int, int, int]] = []
    for sprite_hw4 in sprites:
        scale = generator.uniform(0.4, 0.7)
        small_hw4 = cv2.resize(sprite_hw4, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        side = int(np.ceil(np.hypot(*small_hw4.shape[:2])))
        matrix_23 = cv2.getRotationMatrix2D(
            (small_hw4.shape[1] / 2, small_hw4.shape[0] / 2), generator.uniform(0, 360), 1
        )
        matrix_23[:, 2] += [(side - small_hw4.shape[1]) / 2, (side - small_hw4.shape[0]) / 2]
        turned_hw4 = cv2.warpAffine(small_hw4, matrix_23, (side, side), flags=cv2.INTER_CUBIC)
        rows, columns = np.nonzero(turned_hw4[..., 3] > 127)
        turned_hw4 = turned_hw4[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        x, y = _free_corner(turned_hw4.shape[:2], photo_HW3.shape[:2], boxes, generator)
        mask_HW = np.zeros(photo_HW3.shape[:2], np.float64)
        layer_HW3 = np.zeros(photo_HW3.shape, np.float64)
        window = slice(y, y + turned_hw4.shape[0]), slice(x, x + turned_hw4.shape[1])
        mask_HW[window] = turned_hw4[..., 3] > 127
        layer_HW3[window] = turned_hw4[..., :3]
        photo_HW3 = (photo_HW3 * (1 - mask_HW[..., None]) + layer_HW3 * mask_HW[..., None]).astype(np.uint8)
        boxes.append((x, y, x + turned_hw4.shape[1], y + turned_hw4.shape[0]))
    return photo_HW3


def _free_corner(
    size: tuple[int, ...], room: tuple[int, ...], boxes: Sequence[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int]:
    """A corner whose box covers less than half of any earlier one, or the last of 20 tries."""
    for _ in range(20):
        x, y = int(rng.integers(0, room[1] - size[1])), int(rng.integers(0, room[0] - size[0]))
        shared = [
            max(0, min(x + size[1], x1) - max(x, x0))
            * max(0, min(y + size[0], y1) - max(y, y0))
            / (x1 - x0)
            / (y1 - y0)
            for x0, y0, x1, y1 in boxes
        ]
        if max(shared, default=0.0) < 0.5:
            break
    return x, y
