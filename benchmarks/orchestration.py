"""Orchestration, measured: what caching, Prefect, PostgreSQL and Dask cost and hold.

    python -m benchmarks.orchestration [noop] [share] [changes] [killed] [event] [parallel] [dask] [product]
        [--dataset D] [--small] [--preset P] [--folder F] [--rounds N] [--moments N] [--effort E] [--json]

noop      a whole run with nothing to do, beside `dvc repro` on as many stages and files (in an environment of its own)
share     what a run through Prefect takes besides its stages
changes   which stages run after a change of one parameter of prune, and after a comment in every file
killed    kill -9 of the flow's process at --moments random moments: digests of the reruns beside an undisturbed run's;
          the first --whole of them begin with an empty store, the others with the stages before the one at work done
event     from the event of a new product to the start of the retraining, on a server on PostgreSQL
parallel  8 pipelines at once on that server: failed runs, and stage keys that were computed twice
dask      photos composed by two Dask workers beside one
product   a product is added: processor time of the retraining beside a full run's, figures on old and new products;
          --effort shortens training and composition of all three runs alike (that of share, too)

Without a name: noop, share and changes. event and parallel need PostgreSQL's programs. With --small a few of the data
set's photos are used, for rows that tell of processes and not of models. Results lie in --folder, a temporary one when
not given; with one, what is there already is not made again: killed and product go on where they were.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.orchestration_dask import composing
from benchmarks.orchestration_killed import killed
from benchmarks.orchestration_product import adding_a_product, last_product
from benchmarks.orchestration_runs import changes, nothing_to_do, share
from benchmarks.orchestration_server import at_once, event_to_retraining
from benchmarks.reduced_dataset import small_copy
from benchmarks.stages import print_result, stage_arguments
from flows.endings import end_with_code
from tasks.ingest import dataset_root

SHORT = ("noop", "share", "changes")
LONG = ("killed", "event", "parallel", "dask", "product")


def measured(row: str, *, dataset: Path, folder: Path, options: Any) -> dict[str, Any]:  # noqa: ANN401 - of argparse
    """The figures of one row."""
    preset = options.preset
    match row:
        case "noop":
            return nothing_to_do(dataset, preset=preset, folder=folder, rounds=options.rounds)
        case "share":
            return share(
                dataset, preset=preset, folder=folder / "share", effort=options.effort, workers=options.workers
            )
        case "changes":
            return changes(dataset, preset=preset, folder=folder)
        case "killed":
            counts = {"moments": options.moments, "whole": options.whole}
            return killed(dataset, preset=preset, folder=folder / "killed", **counts)
        case "event":
            return event_to_retraining(dataset, sku=options.sku or last_product(dataset), folder=folder)
        case "parallel":
            return at_once(dataset, preset=preset, folder=folder, pipelines=8)
        case "dask":
            counts = {"photos": options.photos, "rounds": options.rounds, "workers": options.workers}
            return composing(dataset, preset=preset, folder=folder, **counts)
        case _:
            shared = {"preset": preset, "sku": options.sku, "workers": options.workers, "effort": options.effort}
            return adding_a_product(dataset, folder=folder, renderer=options.renderer, **shared)


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = stage_arguments(__doc__)
    parser.add_argument("rows", nargs="*", choices=[*SHORT, *LONG, []], help="what is measured")
    parser.add_argument("--folder", default="", help="where runs and stores go; a temporary one when not given")
    parser.add_argument("--rounds", type=int, default=5, help="of noop and dask")
    parser.add_argument("--moments", type=int, default=20, help="of killed")
    parser.add_argument("--whole", type=int, default=2, help="of the moments of killed, these begin with nothing done")
    parser.add_argument("--small", action="store_true", help="every fourth exemplar, eight photos of each other split")
    parser.add_argument("--photos", type=int, default=4000, help="that dask composes")
    parser.add_argument("--sku", default="", help="the product that is added; the data set's last when not given")
    parser.add_argument("--renderer", default="", help="of product's runs; the preset's when not given")
    parser.add_argument("--effort", type=float, default=1.0, help="share of the preset's steps and composed photos")
    parser.set_defaults(preset="micro")
    options = parser.parse_args()
    dataset = dataset_root(options.dataset)
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
        for row in options.rows or SHORT:
            place = Path(folder).resolve()
            place.mkdir(parents=True, exist_ok=True)
            if options.small:
                dataset = small_copy(dataset_root(options.dataset), folder=place)
            result = measured(row, dataset=dataset, folder=place, options=options)
            print_result(result, as_json=options.json, title=f"{row}, {options.dataset}, preset {options.preset}")


if __name__ == "__main__":
    end_with_code(main)
