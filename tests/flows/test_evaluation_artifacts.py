import sqlite3
from contextlib import closing

from flows.evaluation_artifacts import evaluation_markdown

FIGURES = {"cAcc": 0.5, "ACD": 1.0, "mCCD": None, "mCIoU": 0.8, "mAP50": 0.9, "mmAP": 0.7, "photos": 4}
REPORT = {
    "threshold": 0.4,
    "target_protocol": "unlabelled-target",
    "honest": {"averaged": FIGURES},
    "intervals": {"averaged": {"cAcc": [0.3, 0.7], "ACD": [0.5, 1.5], "mCCD": [None, None], "mCIoU": [0.7, 0.9]}},
    "absent_classes": {"averaged": {}},
}
TABLES = {
    "error_kinds": [{"level": "averaged", "kind": "missed", "number": 3}],
    "confusions": [{"true_sku": "tea|green", "found_sku": "oats", "times": 2}],
    "skus": [
        {
            "sku": sku,
            "products": 4,
            "found": 4,
            "right": right,
            "precision": right / 4,
            "recall": None,
            "count_error": 1.0,
        }
        for sku, right in (("oats", 4), ("tea", 1))
    ],
}


def test_evaluation_markdown__figures_and_mistakes_worst_first():
    text = evaluation_markdown(REPORT, tables=TABLES)
    assert "unlabelled-target" in text and "30.0% to 70.0%" in text and "nan" in text
    assert "| averaged | 3 |" in text
    assert "| tea\\|green | oats | 2 |" in text
    assert text.index("| tea | 4 |") < text.index("| oats | 4 |")
    assert "| 0.250 |  | 1.000 |" in text


def test_pipeline__evaluations_are_among_the_artifacts(micro_run):
    folder, _ = micro_run
    with closing(sqlite3.connect(folder / "prefect/prefect.db")) as database:
        kinds = dict(database.execute("SELECT key, type FROM artifact"))
        text, address = (
            database.execute("SELECT data FROM artifact WHERE key = ?", (key,)).fetchone()[0]
            for key in ("evaluate-source", "evaluate-source-threshold-curve")
        )
    assert kinds["evaluate-instance-level"] == "markdown"
    assert kinds["evaluate-source-reliability"] == "image"
    assert "honest: every photo counts" in text and "tuned on test" in text
    assert "data:image/svg+xml;base64," in address
