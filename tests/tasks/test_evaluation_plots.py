import xml.etree.ElementTree as xml

import numpy as np

from storage.images import decode_rgb
from tasks.evaluation_plots import (
    contact_sheet,
    plot_accuracy_by_items,
    plot_error_kinds,
    plot_reliability,
    plot_threshold_curve,
    plot_worst_skus,
)

CURVE = {"threshold": [0.0, 0.5, 1.0], "cAcc": [0.1, 0.8, 0.0]}
BINS = [{"mean_score": 0.7, "precision": 0.5, "detections": 3}]
KINDS = {"right": 9, "missed": 1, "double": 2}
SKUS = {
    "sku": ["tea", "oats", "rice"],
    "products": [4, 4, 4],
    "found": [4, 5, 0],
    "right": [4, 3, 0],
    "precision": [1.0, 0.6, None],
    "recall": [1.0, 0.75, 0.0],
}


def test_plot_worst_skus__shows_those_with_mistakes():
    drawn = plot_worst_skus(SKUS, most=1).decode()
    assert "rice" in drawn and "tea" not in drawn and "oats" not in drawn


def test_plots__well_formed_svg():
    drawn = [
        plot_threshold_curve({"val": CURVE}, threshold=0.4),
        plot_accuracy_by_items([(3, 10, 0.9), (4, 2, 0.5)]),
        plot_reliability(BINS, error=0.2),
        plot_error_kinds(KINDS),
        plot_worst_skus(SKUS),
        plot_worst_skus({name: [] for name in SKUS}),
    ]
    assert all(xml.fromstring(data).tag.endswith("svg") for data in drawn)


def test_plots__same_figures_same_bytes():
    assert plot_error_kinds(KINDS) == plot_error_kinds(KINDS)


def test_contact_sheet__crops_stand_side_by_side_under_their_label():
    red, blue = np.full((20, 10, 3), (255, 0, 0), np.uint8), np.full((10, 20, 3), (0, 0, 255), np.uint8)
    sheet = decode_rgb(contact_sheet([("tea for cola", [red, blue]), ("cola for tea", [blue])]))
    assert sheet.shape == (2 * (160 + 34), 3 * 160, 3)
    assert sheet[60, 20].tolist() == [255, 0, 0]
    assert sheet[60, 180].tolist() == [0, 0, 255]
    assert sheet[34 + 160 + 60, 20].tolist() == [0, 0, 255]
