"""A picture of every stage for docs/concepts.md, out of a run's own artifacts: written to docs/stages.

    python -m benchmarks.pictures [--run runs/demo] [--store store] [--out docs/stages]

Best after `make demo`. Shown is what lies in the middle of each stage's rows: nothing is picked by hand.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import orjson
from matplotlib.figure import Figure

from flows.endings import end_with_code
from flows.runs import read_run
from inspector.pictures import (
    decode_density,
    in_window,
    instances_overlay,
    on_checkers,
    stretched,
    under_mask,
    with_boxes,
    with_heat,
)
from inspector.run_data import RunData, one_per_sku, spread
from storage.images import Picture, decode_grey, decode_rgb, decode_rgba, encode_jpeg
from storage.manifest import ManifestObject, ManifestRow
from storage.rle import decode_mask
from storage.store import Store
from tasks.shopping_list import draw_detections, kept

_HEIGHT, _GAP, _QUALITY = 260, 8, 84
_STYLE = {"svg.hashsalt": "tally", "font.size": 9, "axes.spines.top": False}
_VIEWS = ("ok", "dropped")


def strip(tiles: Iterable[Picture], *, height: int = _HEIGHT) -> Picture:
    """Pictures side by side at one height, white between them, uint8 RGB [height, W, 3]."""
    shown = [
        cv2.resize(one, (round(one.shape[1] * height / one.shape[0]), height), interpolation=cv2.INTER_AREA)
        for one in tiles
    ]
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    parts = [part for one in shown for part in (gap, one)][1:]
    return np.asarray(np.hstack(parts), np.uint8)


class Artist:
    """Draws the stages of a run; every method gives one picture as (suffix, bytes)."""

    def __init__(self, data: RunData) -> None:
        """Draw from the run's manifests."""
        self._data = data

    def _rows(self, stage: str) -> list[ManifestRow]:
        return list(self._data.manifests[stage].ok)

    def _rgb(self, row: ManifestRow) -> Picture:
        return decode_rgb(self._data.store.read(row))

    def _grey(self, row: ManifestRow) -> Picture:
        return decode_grey(self._data.store.read(row))

    def _parent(self, row: ManifestRow, *, stage: str) -> ManifestRow:
        found = self._data.parent(row, stage=stage)
        assert found is not None, f"{row.item_id} was made from nothing of {stage}"
        return found

    def ingest(self) -> bytes:
        """Exemplars, pool photos, and a labelled photo."""
        exemplars = [self._rgb(row) for row in one_per_sku(self._rows("ingest.catalog"), count=3)]
        pool = [self._rgb(row) for row in spread(self._rows("ingest.pool"), count=1)]
        val = [
            with_boxes(self._rgb(row), objects=row.objects, side=640)
            for row in spread(self._rows("ingest.val"), count=1)
        ]
        return _jpeg(strip([*exemplars, *pool, *val], height=190))

    def coarse(self) -> bytes:
        """Exemplars and their coarse masks."""
        return _jpeg(
            strip(
                [tile for row in one_per_sku(self._rows("coarse"), count=3) for tile in self._coarse(row)], height=190
            )
        )

    def _coarse(self, row: ManifestRow) -> list[Picture]:
        photo_HW3 = self._rgb(self._parent(row, stage="ingest.catalog"))
        size = photo_HW3.shape[1], photo_HW3.shape[0]
        levels_HW = in_window(self._grey(row), window=row.attributes["window"], size=size)
        return [photo_HW3, stretched(levels_HW)]

    def segment(self) -> bytes:
        """Exemplars under their fine masks, and a product cut out."""
        tiles = []
        for row in one_per_sku(self._rows("segment"), count=3):
            photo_HW3, alpha_HW = self._rgb(self._parent(row, stage="ingest.catalog")), self._grey(row)
            tiles += [under_mask(photo_HW3, alpha_HW=alpha_HW), on_checkers(photo_HW3, alpha_HW=alpha_HW)]
        return _jpeg(strip(tiles, height=190))

    def prune(self) -> bytes:
        """Above, views of one product that are kept; below, in grey, views that are dropped."""
        rows = self._data.manifests["prune"].rows
        sku = min(row.sku or "" for row in rows)
        chosen = (spread((row for row in rows if (row.sku, row.status) == (sku, status)), count=6) for status in _VIEWS)
        strips = [strip(map(self._view, ones), height=130) for ones in chosen if ones]
        width = max(one.shape[1] for one in strips)
        padding = [((0, _GAP), (0, width - one.shape[1]), (0, 0)) for one in strips]
        return _jpeg(np.vstack([np.pad(one, by, constant_values=255) for one, by in zip(strips, padding, strict=True)]))

    def _view(self, row: ManifestRow) -> Picture:
        """The cut-out where a view is kept, else the exemplar in grey."""
        exemplar = self._parent(row, stage="ingest.catalog")
        photo_HW3 = self._rgb(exemplar)
        x0, y0, x1, y1 = (round(value) for value in row.objects[0].box)
        part_hw3 = photo_HW3[y0:y1, x0:x1]
        if row.status == "ok":
            rgba_HW4 = decode_rgba(self._data.store.read(row))
            return on_checkers(rgba_HW4[..., :3], alpha_HW=np.ascontiguousarray(rgba_HW4[..., 3]))
        grey_hw = cv2.cvtColor(part_hw3, cv2.COLOR_RGB2GRAY)
        return np.repeat((grey_hw // 2 + 96)[..., None], 3, axis=2)

    def board(self) -> bytes:
        """Pool photos, and the board that they share."""
        photos = [self._rgb(row) for row in spread(self._rows("ingest.pool"), count=3)]
        return _jpeg(strip([*photos, self._rgb(self._rows("board")[0])], height=220))

    def compose(self) -> bytes:
        """A synthetic photo, its visible masks, and its boxes."""
        row = spread(self._rows("compose"), count=2)[1]
        photo_HW3 = self._rgb(row)
        covered_HW3 = _tinted(photo_HW3, items=row.objects)
        return _jpeg(strip([photo_HW3, covered_HW3, with_boxes(photo_HW3, objects=row.objects, side=480)]))

    def render(self) -> bytes:
        """Synthetic photos, what they become, and a pool photo to compare with."""
        row = spread([one for one in self._rows("render") if one.objects], count=2)[1]
        pool = spread(self._rows("ingest.pool"), count=2)[1]
        return _jpeg(strip([self._rgb(self._parent(row, stage="compose")), self._rgb(row), self._rgb(pool)]))

    def train(self) -> bytes:
        """Losses and cAcc on val over all rungs, as SVG."""
        names = [one for one in self._data.manifests if one.startswith("train.")]
        with matplotlib.rc_context(_STYLE):
            drawing = Figure(figsize=(7.2, 2.6))
            losses, first = drawing.subplots(), 0
            shares = losses.twinx()
            for name in names:
                lines = self._log(name)
                steps = [first + line["step"] for line in lines]
                loss = _smooth([sum(line["losses"].values()) for line in lines])
                losses.plot(steps, loss, linewidth=1, label=name.removeprefix("train."))
                vals = [(at, line["val"]["cAcc"]) for at, line in zip(steps, lines, strict=True) if "val" in line]
                shares.plot(*zip(*vals, strict=True), "o", color="black", markersize=4)
                first = steps[-1]
            losses.set(xlabel="step", ylabel="loss")
            shares.set(ylabel="cAcc on val (dots)", ylim=(0, 1))
            losses.legend(frameon=False, fontsize=8)
            buffer = io.BytesIO()
            drawing.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
        return buffer.getvalue()

    def _log(self, name: str) -> list[dict[str, Any]]:
        data = self._data.store.read(self._data.manifests[name].row("log"))
        return [orjson.loads(line) for line in data.splitlines()]

    def predict(self) -> bytes:
        """A test photo with its list, and what the counting view sees."""
        rows = [row for row in self._rows(f"predict.{self._data.champion}.test") if row.path]
        row = spread(rows, count=2)[1]
        photo_HW3, threshold = self._rgb(self._parent(row, stage="ingest.test")), float(self._data.report["threshold"])
        listed = draw_detections(photo_HW3, objects=kept(row.objects, threshold=threshold), names={})
        heat_HW3 = with_heat(photo_HW3, density_hw=decode_density(self._data.store.read(row)))
        return _jpeg(strip([photo_HW3, listed, heat_HW3], height=300))

    def select(self) -> bytes:
        """Pool photos, each beside what became of it: taken whole, taken in part (grey: ignored), not taken."""
        names = [name for name in self._data.manifests if name.startswith("select.")]
        rows = [row for name in names for row in self._data.manifests[name].rows]
        tiles = []
        for outcome in ("image", "instance", "rejected"):
            for row in spread((one for one in rows if one.attributes.get("mode", one.status) == outcome), count=2)[1:]:
                before_HW3 = self._rgb(self._parent(row, stage="ingest.pool"))
                after_HW3 = self._rgb(row) if row.path else before_HW3
                tiles += [before_HW3, with_boxes(after_HW3, objects=row.objects, side=480)]
        return _jpeg(strip(tiles, height=200))

    def paste(self) -> bytes:
        """Accepted pool photos, each beside itself with further items, tinted in the third picture; pool photos as they
        are where none was accepted."""
        rounds = [name.removeprefix("paste.") for name in self._data.manifests if name.startswith("paste.")]
        filled = [name for name in rounds if self._rows(f"paste.{name}")]
        if not filled:
            return _jpeg(strip(map(self._rgb, spread(self._rows("ingest.pool"), count=6)), height=200))
        tiles = []
        for row in spread(self._rows(f"paste.{filled[-1]}"), count=2):
            photo_HW3, added = self._rgb(row), [item for item in row.objects if item.source]
            before_HW3 = self._rgb(self._parent(row, stage=f"select.{filled[-1]}"))
            tiles += [before_HW3, photo_HW3, _tinted(photo_HW3, items=added)]
        return _jpeg(strip(tiles, height=200))

    def evaluate(self) -> bytes:
        """The threshold's curve, as the stage drew it (SVG)."""
        return self._data.store.read(
            self._data.manifests[f"evaluate.{self._data.champion}"].row("plot/threshold_curve")
        )


def _tinted(photo_HW3: Picture, *, items: Sequence[ManifestObject]) -> Picture:
    """The photo under films of the items' masks."""
    height, width = photo_HW3.shape[:2]
    masks = [decode_mask(item.mask_rle or "", height=height, width=width) for item in items]
    film_HW4 = instances_overlay(masks, categories=[item.category for item in items])
    share_HW1 = film_HW4[..., 3:].astype(np.float32) / 255
    return np.rint(photo_HW3 * (1 - share_HW1) + film_HW4[..., :3] * share_HW1).astype(np.uint8)


def _smooth(values: list[float], *, over: int = 20) -> list[float]:
    """Running means."""
    return [float(np.mean(values[max(0, index - over + 1) : index + 1])) for index in range(len(values))]


def _jpeg(picture_HW3: Picture) -> bytes:
    return encode_jpeg(np.ascontiguousarray(picture_HW3), quality=_QUALITY)


def pictures(data: RunData) -> dict[str, Callable[[], bytes]]:
    """How to draw each stage, by the file's name."""
    artist = Artist(data)
    drawn = ("ingest", "coarse", "segment", "prune", "board", "compose", "render", "predict", "select")
    if any(name.startswith("paste.") for name in data.manifests):
        drawn = (*drawn, "paste")
    plotted = ("train", "evaluate")
    return {f"{name}.jpg": getattr(artist, name) for name in drawn} | {
        f"{name}.svg": getattr(artist, name) for name in plotted
    }


def main() -> None:
    """Draw the stages of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of the run")
    parser.add_argument("--store", default="store", help="folder or URL of the store")
    parser.add_argument("--out", type=Path, default=Path("docs/stages"), help="where the pictures go")
    options = parser.parse_args()
    data = RunData(read_run(options.run), Store.open(options.store))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures(data).items():
        (options.out / name).write_bytes(draw())
        print(options.out / name, flush=True)


if __name__ == "__main__":
    end_with_code(main)
