import numpy as np
import orjson

from inspector.mistakes import mistakes
from inspector.report import write_report
from inspector.run_data import RunData
from storage.images import encode_png
from storage.manifest import ManifestRow
from storage.store import Store
from tests.inspector.made_run import made_run, publish

REPORT = {
    "threshold": 0.4,
    "error_kinds": {"right": 9, "missed": 2},
    "acceptance": {"frozen": {"cut": 0.8, "share": 0.5, "accuracy": 0.9}},
}
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"


def run_with(tmp_path, *, report=REPORT, pictures=True):
    """The made run with an evaluation that has something to show."""
    run, store = made_run(tmp_path), Store.open(str(tmp_path / "store"))
    rows = [(ManifestRow(item_id="report", media_type="application/json"), orjson.dumps(report))]
    if pictures:
        sheet = encode_png(np.full((20, 30, 3), 200, np.uint8))
        rows += [
            (ManifestRow(item_id="plot/reliability", media_type="image/svg+xml"), SVG),
            (ManifestRow(item_id="picture/confusions", media_type="image/png"), sheet),
        ]
    publish(store, "evaluate.source", rows)
    return RunData(run=run, store=store)


def test_mistakes__plots_pictures_and_what_they_say(tmp_path):
    section = mistakes(run_with(tmp_path))
    plot, sheet = (row[0] for row in section.rows)
    assert plot.source.startswith("data:image/svg+xml;base64,") and plot.alt
    assert sheet.source.startswith("data:image/jpeg;base64,")
    assert "9 right, 2 missed" in section.text
    assert "50% of the lists need no review; 90% of those are right" in section.text


def test_mistakes__no_list_can_be_accepted(tmp_path):
    report = {**REPORT, "acceptance": {"frozen": {"cut": 1.1, "share": 0.0, "accuracy": None}}}
    assert "all lists need a review" in mistakes(run_with(tmp_path, report=report)).text


def test_mistakes__a_damaged_plot_leaves_the_rest(tmp_path):
    data = run_with(tmp_path)
    (path,) = (tmp_path / "store").rglob("plot_reliability")
    path.write_bytes(b"other bytes")
    plot, sheet = (row[0] for row in mistakes(data).rows)
    assert plot.source == "" and "cannot be shown" in plot.caption and sheet.source


def test_write_report__has_the_section_only_where_there_is_something_to_show(tmp_path):
    for pictures in (False, True):
        data = run_with(tmp_path / str(pictures), pictures=pictures)
        write_report(dict(data.run), store=data.store, out=tmp_path / "report.html")
        assert ('id="mistakes"' in (tmp_path / "report.html").read_text()) == pictures
