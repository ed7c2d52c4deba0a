"""Nothing lost: stores and runs under kills, power cuts, failing disks and services, flipped bits and bad inputs.

    python -m benchmarks.faults [commit] [refused] [power] [s3] [once] [inputs] [leaks] [fuzz] [corruption] [storm]
        [--dataset D] [--small] [--preset P] [--folder F] [--annotations N] [--runs N] [--minutes M]
        [--kills N] [--json]

commit      SIGKILL before every file operation of a commit, a refresh, a record, a quarantine, a collection
refused     ENOSPC, EIO, EACCES and short writes at each of these operations, fsync among them
power       every state that a disk may hold after a power cut in each of these works
s3          errors, cut connections and silence at every request of a commit to object storage (moto's server)
once        8 processes ask for one stage key; a lock whose owner was killed
inputs      an ingest of a COCO file of --annotations annotations, broken ones among them
leaks       --runs runs in one process: descriptors, threads, children, memory
fuzz        --minutes of random pictures, listings, manifests and HTTP requests
corruption  each file of a finished run's store with one bit flipped, then missing; what was set aside is made again
storm       --kills kills -9 at random moments of whole runs; the digests of what comes out beside an undisturbed run's

Without a name all but the last three; corruption and storm run the preset. Kills and minutes in a --folder add up over
several calls. With --small a few of the data set's photos stand for all. Ends with 1 where something was not as it
should be.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.reduced_dataset import small_copy
from benchmarks.stages import print_result, stage_arguments
from flows.endings import end_with_code
from tasks.ingest import dataset_root

SHORT = ("commit", "refused", "power", "s3", "once", "inputs", "leaks")
LONG = ("fuzz", "corruption", "storm")


def measured(part: str, *, dataset: Path, folder: Path, options: Any) -> dict[str, Any]:  # noqa: ANN401 - of argparse
    """The figures of one part."""
    from benchmarks import faults_annotations, faults_commit, faults_fuzz, faults_leaks, faults_runs, faults_s3

    match part:
        case "commit":
            return faults_commit.kills(folder)
        case "refused":
            return faults_commit.refusals(folder)
        case "power":
            return faults_commit.power_cuts(folder)
        case "s3":
            return faults_s3.faults()
        case "once":
            return faults_runs.at_once(dataset, folder=folder)
        case "inputs":
            return faults_annotations.annotations(folder, count=options.annotations)
        case "leaks":
            return faults_leaks.leaks(faults_leaks.few(dataset, folder=folder), folder=folder, runs=options.runs)
        case "fuzz":
            return faults_fuzz.fuzz(folder, minutes=options.minutes)
        case "corruption":
            return faults_runs.corruption(dataset, preset=options.preset, folder=folder)
        case _:
            return faults_runs.storm(dataset, preset=options.preset, folder=folder, kills=options.kills)


def wrong(part: str, found: dict[str, Any]) -> str:
    """What in the figures of a part is not as it should be; empty when nothing is."""
    pairs = {
        "storm": [("runs finished", "runs with equal digests")],
        "corruption": [
            (f"{kind}, spoiled", f"{kind}, found {how}")
            for kind in ("flipped", "missing")
            for how in ("by tally verify", "on read")
        ],
    }
    unequal = [
        f"{one}: {found[one]}, {other}: {found[other]}"
        for one, other in pairs.get(part, [])
        if found[one] != found[other]
    ]
    bad = ("stores damaged", "damage afterwards", "crashes", "hangs", "unexpected", "too large")
    unequal += [f"{name}: {found[name]}" for name in bad if found.get(name)]
    unequal += [name for name in ("equal", "made again with equal digests") if found.get(name) is False]
    if part == "once" and set(found["computed in each round"]) != {1}:
        unequal.append("a key was not computed exactly once")
    return "; ".join(unequal)


def main() -> None:
    """Print the figures of the parts that are asked for; ends with 1 where one is not as it should be."""
    parser = stage_arguments(__doc__)
    parser.add_argument("parts", nargs="*", choices=[*SHORT, *LONG, []], help="what is tried")
    parser.add_argument("--small", action="store_true", help="every fourth exemplar, eight photos of each other split")
    parser.add_argument("--folder", default="", help="where stores go; a temporary one when not given")
    parser.add_argument("--annotations", type=int, default=1_000_000, help="of inputs")
    parser.add_argument("--kills", type=int, default=200, help="of storm")
    parser.add_argument("--minutes", type=float, default=60.0, help="of fuzz")
    parser.add_argument("--runs", type=int, default=50, help="of leaks")
    parser.set_defaults(preset="micro")
    options = parser.parse_args()
    dataset, failed = dataset_root(options.dataset), []
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        dataset = small_copy(dataset, folder=folder) if options.small else dataset
        for part in options.parts or SHORT:
            found = measured(part, dataset=dataset, folder=folder, options=options)
            print_result(found, as_json=options.json, title=f"{part}, {options.dataset}, preset {options.preset}")
            failed += [f"{part}: {problem}"] if (problem := wrong(part, found)) else []
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    end_with_code(main)
