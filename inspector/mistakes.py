"""The report's section on what the champion still gets wrong: the evaluation's plots and pictures of the mistakes."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from inspector.figures import Figure, Section, figure
from inspector.run_data import RunData
from storage.digest import JSON
from storage.images import decode_rgb
from storage.manifest import Manifest, ManifestRow
from storage.store import DamagedArtifactError

_PLOTS = {
    "plot/error_kinds": ("Mistakes by kind", "missed, double, another SKU, or nothing there at all"),
    "plot/worst_skus": ("Precision and recall of the SKUs with most mistakes", "products that go wrong most often"),
    "plot/accuracy_by_items": ("cAcc by the number of products in a photo", "the fuller the photo, the harder"),
    "plot/threshold_curve": ("cAcc over the score threshold, on val and test", "test is shown only to compare"),
    "plot/reliability": ("Share of right detections over their score", "on the diagonal a score is a probability"),
}
_CONFUSIONS = "picture/confusions"


def mistakes(data: RunData) -> Section:
    """Plots of the champion's evaluation, and crops of the products that it takes for others."""
    manifest = data.manifests.get(f"evaluate.{data.champion}")
    section = Section(
        identifier="mistakes", title="What still goes wrong on the test photos", text=" ".join(_texts(data.report))
    )
    if manifest is None:
        return section
    plots = [
        _plot(data, manifest.by_id[item_id], alt=alt, caption=caption)
        for item_id, (alt, caption) in _PLOTS.items()
        if item_id in manifest.by_id
    ]
    if plots:
        section.rows.append(plots)
    if _CONFUSIONS in manifest.by_id:
        section.rows.append([_confusions(data, manifest)])
    return section


def _texts(report: Mapping[str, JSON]) -> list[str]:
    kinds, accepted = report.get("error_kinds"), (report.get("acceptance") or {}).get("frozen")
    texts = []
    if kinds:
        texts.append("At the threshold that val chose: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()) + ".")
    if accepted and accepted["share"]:
        texts.append(
            f"By their confidence {accepted['share']:.0%} of the lists need no review; {accepted['accuracy']:.0%} of "
            "those are right."
        )
    elif accepted:
        texts.append("By their confidence all lists need a review.")
    return texts


def _plot(data: RunData, row: ManifestRow, *, alt: str, caption: str) -> Figure:
    try:
        encoded = base64.b64encode(data.store.read(row)).decode()
    except DamagedArtifactError as error:
        return Figure(source="", alt=alt, caption=f"{caption} (cannot be shown: {error})")
    return Figure(source=f"data:image/svg+xml;base64,{encoded}", alt=alt, caption=caption)


def _confusions(data: RunData, manifest: Manifest) -> Figure:
    return figure(
        lambda: decode_rgb(data.store.read(manifest.row(_CONFUSIONS))),
        alt="Products that were taken for others, a row for each pair of SKUs",
        caption="the most confused pairs of SKUs",
    )
