"""Runs the data stages of a preset without Prefect, for the benchmarks; what the store has is taken from there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from flows.presets import PRESETS, Preset
from storage.manifest import Manifest
from storage.store import Store
from tasks.ingest import dataset_root, files_digest
from tasks.params import IngestParams
from tasks.stage import load_stage, run_stage_locally


def stage_arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that the benchmarks of the data stages share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="sample", help="folder in RPC layout with masks/ and poses.json beside it")
    parser.add_argument("--preset", default="cpu", choices=sorted(PRESETS), help="whose parameters are used")
    parser.add_argument("--store", default="store", help="where stage results are kept and found")
    parser.add_argument("--workers", type=int, default=2, help="threads of the data stages")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def ingest_split(dataset: str, *, split: str, store: Store, workers: int) -> Manifest:
    """The manifest of one split of a data set."""
    digest = files_digest(dataset_root(dataset), split=split)
    params = IngestParams(dataset=dataset, split=split, files_digest=digest)
    return run_stage_locally(load_stage("ingest"), params, store=store, workers=workers)


def segmented(preset: Preset, *, dataset: str, store: Store, workers: int) -> dict[str, Manifest]:
    """catalog, coarse, network and masks of a data set."""
    catalog = ingest_split(dataset, split="catalog", store=store, workers=workers)
    return segmented_catalog(preset, catalog=catalog, store=store, workers=workers)


def segmented_catalog(preset: Preset, *, catalog: Manifest, store: Store, workers: int) -> dict[str, Manifest]:
    """catalog, coarse, network and masks of a catalog."""
    made = {"catalog": catalog}

    def run(name: str, **inputs: Manifest) -> Manifest:
        return run_stage_locally(load_stage(name), getattr(preset, name), store=store, workers=workers, **inputs)

    made["coarse"] = run("coarse", catalog=made["catalog"])
    made["network"] = run("saliency", catalog=made["catalog"], coarse=made["coarse"])
    made["masks"] = run("segment", catalog=made["catalog"], coarse=made["coarse"], network=made["network"])
    return made


def print_result(result: Mapping[str, Any], *, as_json: bool, title: str) -> None:
    """One JSON object, or a table of name and value."""
    if as_json:
        print(json.dumps(result))
        return
    width = max(len(name) for name in result)
    print(title)
    for name, value in result.items():
        print(f"  {name:<{width}}  {value:.4g}" if isinstance(value, float) else f"  {name:<{width}}  {value}")
