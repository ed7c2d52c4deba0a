"""Plots and pictures of an evaluation as bytes: SVG by matplotlib without a display, PNG contact sheets of mistakes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from storage.images import Picture, encode_png

STYLE: Any = {"svg.hashsalt": "tally", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_TILE, _LABEL = 160, 34


def svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    # Without a date and with a fixed salt for ids, the same figures give the same bytes.
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return buffer.getvalue()


def _axes(*, title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6, 3.2))
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def plot_threshold_curve(
    curves: Mapping[str, Mapping[str, Sequence[float]]], *, threshold: float, tuned: bool = True
) -> bytes:
    """SVG of cAcc over the score threshold, one line for each set; `threshold` is marked (`tuned`: val chose it)."""
    origin = "frozen on val" if tuned else "as given"
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(title="cAcc by score threshold", x="threshold", y="cAcc")
        for name, curve in curves.items():
            axes.plot(curve["threshold"], curve["cAcc"], label=name)
        axes.axvline(threshold, color="grey", linestyle=":", label=f"{origin}: {threshold:.2f}")
        axes.set(ylim=(0, 1), xlim=(0, 1))
        axes.legend(frameon=False)
        return svg(figure)


def plot_accuracy_by_items(by_items: Sequence[tuple[int, int, float]]) -> bytes:
    """SVG of cAcc over the number of products in a photo; the bars are the numbers of photos."""
    items, photos, accuracy = zip(*by_items, strict=True)
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(title="cAcc by number of products", x="products in the photo", y="cAcc")
        axes.plot(items, accuracy, marker="o", markersize=3)
        axes.set_ylim(0, 1)
        counts = axes.twinx()
        counts.bar(items, photos, alpha=0.2, color="grey")
        counts.set_ylabel("photos")
        return svg(figure)


def plot_reliability(bins: Sequence[Mapping[str, float]], *, error: float) -> bytes:
    """SVG of precision over score; on the diagonal a score is a probability."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(title=f"reliability (calibration error {error:.3f})", x="score", y="share right")
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":")
        sizes = [8 + 60 * one["detections"] / max(one["detections"] for one in bins) for one in bins]
        axes.scatter([one["mean_score"] for one in bins], [one["precision"] for one in bins], s=sizes)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        return svg(figure)


def plot_error_kinds(kinds: Mapping[str, int]) -> bytes:
    """SVG of the numbers of missed, double, wrong and background detections."""
    wrong = {kind: count for kind, count in kinds.items() if kind != "right"}
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(title=f"mistakes ({kinds['right']} right)", x="", y="number")
        axes.bar_label(axes.bar(list(wrong), list(wrong.values())))
        return svg(figure)


def plot_worst_skus(table: Mapping[str, Sequence[Any]], *, most: int = 15) -> bytes:
    """SVG of precision and recall of the SKUs with most mistakes; `table` as `evaluation_analysis.sku_table` has it."""
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    # Missed and falsely found products; SKUs without either are no one's concern.
    wrong = {row["sku"]: row["products"] + row["found"] - 2 * row["right"] for row in rows}
    worst = sorted((row for row in rows if wrong[row["sku"]]), key=lambda row: (wrong[row["sku"]], row["sku"]))[-most:]
    places = np.arange(len(worst))
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes(title="SKUs with most mistakes", x="share", y="")
        for name, shift in (("recall", 0.2), ("precision", -0.2)):
            axes.barh(places + shift, [row[name] or 0.0 for row in worst], height=0.38, label=name)
        axes.set_yticks(places, [row["sku"] for row in worst])
        axes.set_xlim(0, 1)
        axes.legend(frameon=False, fontsize=7)
        return svg(figure)


def contact_sheet(tiles: Sequence[tuple[str, Sequence[Picture]]]) -> bytes:
    """PNG with a row for each (label, crops): the label above, the crops side by side, each fitted into a square."""
    columns = max(len(crops) for _, crops in tiles)
    sheet = np.full((len(tiles) * (_TILE + _LABEL), max(columns, 3) * _TILE, 3), 255, np.uint8)
    for place, (label, crops) in enumerate(tiles):
        top = place * (_TILE + _LABEL)
        cv2.putText(sheet, label, (4, top + 22), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        for column, crop in enumerate(crops):
            fitted = _fitted(crop)
            height, width = fitted.shape[:2]
            sheet[top + _LABEL : top + _LABEL + height, column * _TILE : column * _TILE + width] = fitted
    return encode_png(sheet)


def _fitted(crop: Picture) -> Picture:
    scale = (_TILE - 6) / max(crop.shape[:2])
    size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    return np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
