"""The `tally` command: run the pipeline, predict shopping lists, evaluate results, look at runs.

Exit codes: 0 done, 1 a stage, a disk or a service failed, 2 the input or the command is wrong, 3 `tally verify` found
damage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import metadata
from pathlib import Path
from threading import Event
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import automation_commands, catalog_commands, champion_commands
from flows.endings import EXIT_DAMAGED, end_with_code
from flows.execution import execute_run, explain_run
from flows.explain import Verdict
from flows.interruption import end_on_signals
from flows.options import MAX_WORKERS, GcOptions, RetrainOptions, RunOptions, VerifyOptions
from flows.progress import ProgressDisplay
from flows.refusals import MAX_PORT, require_within
from flows.runs import last_run, read_run
from flows.summary import summary_lines
from flows.time_limit import time_limit
from flows.token_file import read_token
from storage.digest import JSON, canonical_json

_GC, _RETRAIN, _VERIFY = GcOptions(), RetrainOptions(), VerifyOptions()
_HELP = """From catalog photos and unlabelled checkout photos to a model that reads shopping lists off checkout photos.

Start with `tally run --dataset sample --preset demo`, then look at `runs/demo/report.html`.
Every command explains itself with `--help`. Exit codes: 0 done, 1 a stage, a disk or a service failed, 2 the input or
the command is wrong, 3 damage was found (verify), 130 interrupted.
"""

app = App(
    name="tally",
    version=lambda: metadata.version("tally-checkout"),
    help=_HELP,
    help_format="markdown",
    result_action="return_value",
    # Else it ends the process itself, before anybody is told how to go on.
    suppress_keyboard_interrupt=False,
)
app.command(catalog_commands.app)
app.command(champion_commands.app)
app.command(automation_commands.app)


@app.command
def run(options: Annotated[RunOptions, Parameter(name="*")], *, explain: bool = False) -> None:
    """Run the whole method on a data set: what is cached is taken from the store, only the rest is computed.

    `tally run --dataset DIR --preset cpu` reads DIR (RPC layout, or catalog/SKU/ folders with pool/ and val/),
    keeps artifacts in ./store and writes runs/cpu/ with report.html, metrics.json, the champion and shopping lists.
    Interrupt it whenever you like: the same command goes on from there.

    Args:
        explain: tell of every stage whether it is cached, and if not what has changed since the last run; run nothing.
    """
    console = Console()
    if explain or options.dry_run:
        _print_verdicts(explain_run(options), console=console, all_stages=explain)
        return
    end_on_signals()
    with ProgressDisplay(console) as display:
        record = execute_run(options, events=display)
    for line in summary_lines(record, folder=options.folder):
        console.print(line, highlight=False, soft_wrap=True)


def _print_verdicts(verdicts: list[Verdict], *, console: Console, all_stages: bool) -> None:
    """One line a stage: hit, miss or depends, and why; without `all_stages` only those that would or may run."""
    colours = {"hit": "green", "miss": "red", "depends": "yellow"}
    for one in verdicts:
        if all_stages or one.verdict != "hit":
            line = f"[{colours[one.verdict]}]{one.verdict:<8}[/] {one.name:<32} {escape(one.reason)}"
            console.print(line.rstrip(), highlight=False, soft_wrap=True)
    counts = {kind: sum(one.verdict == kind for one in verdicts) for kind in colours}
    console.print(
        f"{counts['hit']} cached, {counts['miss']} to compute, {counts['depends']} depend on what comes out",
        highlight=False,
    )


@app.command
def retrain(options: Annotated[RetrainOptions, Parameter(name="*")] = _RETRAIN) -> None:
    """Let the champion follow its catalog and pool: only what changed is cut out, composed and learnt.

    New products are learnt from the champion on, products that left are taken out of it; the challenger becomes
    champion if it is better on val. Nothing happens while nothing has changed. Where no model was promoted yet, in this
    store and for this catalog, the whole pipeline runs.
    """
    from flows.retrain_run import execute_retraining

    console = Console()
    end_on_signals()
    with ProgressDisplay(console) as display:
        record = execute_retraining(options, events=display)
    for line in summary_lines(record, folder=Path(options.runs) / record.name):
        console.print(line, highlight=False, soft_wrap=True)


@app.command
def predict(
    photos: str,
    *,
    model: str = "champion",
    runs: Path = Path("runs"),
    out: Path = Path("shopping_lists"),
    threshold: float | None = None,
    products: Path | None = None,
    review: float | None = None,
    draw: bool = True,
    watch: bool = False,
    workers: int = 0,
) -> None:
    """Read shopping lists off photos: shopping_lists.csv, .json and .parquet, and photos with the products drawn in.

    A list that is in doubt says needs-review and why; prices in the catalog give each a receipt's total.
    An .onnx file of `tally export` is the fastest model on a processor.

    Args:
        photos: a photo, a folder of photos, or a quoted glob such as "counter/*.jpg".
        model: champion (the promoted model), the name of a run, a champion's folder, or an exported .onnx file.
        runs: folder of the runs.
        out: where the lists and photos/ go.
        threshold: least score of an item; the model's own, chosen on val, when not given.
        products: JSON file like the catalog's products.json with newer names and prices than the training's.
        review: lists of less confidence than this (0 to 1) need a review; when not given, the confidence from which
            99 % of val's lists were right.
        draw: write the photos with the products drawn in; large ones are drawn smaller.
        watch: go on reading photos that come into the folder, until Ctrl-C; what has a list in `out` is not read again.
        workers: photos read at once; 0: one a processor.
    """
    from flows.champion import resolve_model
    from flows.options import processors
    from flows.predict_photos import find_photos, predict_photos, refreshing, watch_photos
    from flows.serving import Served, open_reader
    from tasks.list_reader import ListReader
    from tasks.photo_lists import PhotoLister

    require_within("threshold", threshold, least=0, most=1)
    require_within("review", review, least=0, most=1)
    require_within("workers", workers, least=0, most=MAX_WORKERS)
    workers = workers or processors()
    console = Console()

    def load(path: Path) -> ListReader:
        return open_reader(path, workers=workers, products=products)

    def lister_of(reader: ListReader) -> PhotoLister:
        return PhotoLister(reader, threshold=threshold, review=review, draw=draw, workers=workers)

    with ProgressDisplay(console) as display:
        lister = lister_of(load(resolve_model(model, runs=runs)))
        if watch:
            served = Served(find=lambda: resolve_model(model, runs=runs), load=load)
            console.print(f"Watching {photos}/ (Ctrl-C ends it); lists go to {out}/", highlight=False)
            refreshed = refreshing(served, lister_of=lister_of)
            done = watch_photos(Path(photos), refreshed=refreshed, out=out, events=display, stop=_stop_on_signals())
        else:
            done = predict_photos(find_photos(photos), lister=lister, out=out, events=display)
    console.print(f"{done.summary}; see {out}/", highlight=False)
    if not watch and not done.lists:
        raise ValueError(f"photos: expected readable JPEG or PNG photos in {photos!r}, got none")


def _stop_on_signals() -> Event:
    """An event that Ctrl-C or a request to end sets, for work that has no other end."""
    stop = Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda number, frame: stop.set())
    return stop


@app.command
def export(
    *,
    photos: str,
    model: str = "champion",
    runs: Path = Path("runs"),
    format: Literal["onnx", "torchscript"] = "onnx",
    precision: Literal["float32", "int8", "bf16"] = "float32",
    out: Path | None = None,
) -> None:
    """Write a model as one file with pre- and post-processing, and check that it reads photos as the model does.

    docs/examples/read_list.py reads a shopping list with the ONNX file, onnxruntime and numpy alone.

    Args:
        photos: real checkout photos for the check (and to calibrate int8): a photo, a folder or a quoted glob.
        model: champion (the promoted model), the name of a run, or a champion's folder.
        runs: folder of the runs.
        format: onnx or torchscript.
        precision: float32; int8 (onnx) and bf16 (torchscript) are faster on some processors and not exactly the same.
        out: the file; model.onnx or model.pt when not given.
    """
    from flows.champion import resolve_checkpoint

    folder = resolve_checkpoint(model, runs=runs)
    # PyTorch comes with it: a wrong model is refused without that wait.
    from flows.export_model import export_model

    target = out or Path("model.onnx" if format == "onnx" else "model.pt")
    found = export_model(folder, file_format=format, precision=precision, photos=photos, out=target)
    Console().print(
        f"{target}: {found.lists} of {found.photos} photos have the same list; boxes within {found.box:.2g} px, "
        f"scores within {found.score:.1g}",
        highlight=False,
    )


@app.command
def serve(
    *,
    model: str = "champion",
    runs: Path = Path("runs"),
    host: str = "127.0.0.1",
    port: int = 8421,
    token_file: Path | None = None,
    products: Path | None = None,
    workers: int = 0,
) -> None:
    """Answer HTTP requests: POST /v1/checkout with a photo as the body gives its shopping list.

    /docs describes the interface, /health and /ready tell how it is. A model that changes is loaded without a stop.

    Args:
        model: champion (the promoted model), the name of a run, a champion's folder, or an exported .onnx file.
        runs: folder of the runs.
        host: address to listen on; loopback unless you say otherwise, beyond it only with a token file.
        port: port to listen on.
        token_file: file with the token that requests must bear (Authorization: Bearer …); without it none is asked for.
        products: JSON file like the catalog's products.json with newer names and prices than the training's.
        workers: photos that an .onnx file reads at once; 0: one a processor.
    """
    import uvicorn

    from flows.champion import resolve_model
    from flows.options import processors
    from flows.serve_app import Limits, create_app
    from flows.serving import Served, open_reader
    from inspector.access import require_token

    require_within("port", port, least=1, most=MAX_PORT)
    require_within("workers", workers, least=0, most=MAX_WORKERS)
    token = read_token(token_file)
    require_token(token, host=host)
    resolve_model(model, runs=runs)
    workers = workers or processors()
    served = Served(
        find=lambda: resolve_model(model, runs=runs),
        load=lambda path: open_reader(path, workers=workers, products=products),
    )
    served.refresh()
    if served.reader is None:
        raise ValueError(served.problem)
    web = create_app(served, token=token, limits=Limits())
    Console().print(f"Checkout: http://{host}:{port}/v1/checkout  (Ctrl-C ends it)")
    uvicorn.run(web, host=host, port=port, log_level="warning")


@app.command
def evaluate(
    *,
    results: str,
    annotations: str,
    val_results: str = "",
    val_annotations: str = "",
    protocol: Literal["honest", "compat", "both"] = "both",
    threshold: float | None = None,
    target_protocol: str = "unknown",
    out: Path | None = None,
    photos: Path | None = None,
    json: bool = False,
) -> None:
    """Print RPC's metrics of detections against annotations, as rpctool's markdown tables.

    The honest table is the one to trust: every photo counts, at one threshold that was chosen on val (give the files of
    val, or the threshold). The compat table is what rpctool prints, tuned on test, to compare with published tables.

    Args:
        results: detections in COCO result format (image_id, category_id, bbox [x, y, width, height], score), or a
            manifest of predictions (.parquet).
        annotations: RPC annotations (instances_test2019.json), or the manifest of the photos.
        val_results: detections on val: the threshold is chosen on them.
        val_annotations: annotations of val.
        protocol: honest (every photo counts, one threshold), compat (as rpctool prints: tuned on test), or both.
        threshold: score threshold of the honest protocol, as frozen on val; 0.5 when neither it nor val is given.
        target_protocol: what the model saw of the checkout; printed beside the figures.
        out: folder for tables (Parquet), plots (SVG) and pictures of what went wrong.
        photos: folder of the annotated photos, for the pictures.
        json: print one JSON object in place of tables.
    """
    from flows.evaluate_files import Files, photo_reader, printed, read_files, report_of, write_analysis

    require_within("threshold", threshold, least=0, most=1)
    if bool(val_results) != bool(val_annotations):
        raise ValueError("val: expected both --val-results and --val-annotations, got one of them")
    files = Files(results=results, annotations=annotations)
    val = Files(results=val_results, annotations=val_annotations) if val_results else None
    evaluated = read_files(files, val=val)
    report = report_of(evaluated, protocol=protocol, threshold=threshold, target_protocol=target_protocol)
    if out is not None:
        report = write_analysis(evaluated, report=report, out=out, read=photo_reader(files, photos=photos))
    print(printed(report, as_json=json), end="")


@app.command
def status(*, run: str = "", runs: Path = Path("runs"), json: bool = False) -> None:
    """Tell what the last run (or the named one) did: every stage with its key and where its manifest lies.

    Args:
        run: name of the run; the last one when not given.
        runs: folder of the runs.
        json: print run.json in place of a table.
    """
    record = read_run(runs / run if run else last_run(runs))
    if json:
        sys.stdout.buffer.write(canonical_json(record) + b"\n")
        return
    Console().print(_status_table(record))


def _status_table(record: dict[str, JSON]) -> Table:
    title = f"{record['name']}: {record['state']}, preset {record['preset']}, {record['target_protocol']}"
    table = Table(title=title, caption=record["error"] or f"store {record['store']}")
    for heading in ("stage", "rows", "seconds", "key", "manifest"):
        table.add_column(heading, overflow="fold")
    for one in record["stages"]:
        seconds = "cached" if one["cached"] else f"{one['seconds']:.1f}"
        table.add_row(one["name"], str(one["rows"]), seconds, one["key"][:12], one["manifest"])
    return table


@app.command
def inspect(
    *,
    runs: Path = Path("runs"),
    store: str = "store",
    host: str = "127.0.0.1",
    port: int = 8420,
    token_file: Path | None = None,
    prefect_url: str = os.environ.get("PREFECT_API_URL", ""),
    cache: Path | None = None,
) -> None:
    """Open web pages over the runs and the artifact store: what the pipeline did, and why.

    Pages only read. What changes something (review decisions, reruns, champions) asks for the token; without a file a
    new one is printed. Elsewhere than on loopback every page needs it.

    Args:
        runs: folder of the runs.
        store: folder or URL of the artifact store.
        host: address to listen on; loopback unless you say otherwise, beyond it only with a token file.
        port: port to listen on.
        token_file: file with the token, 16 characters at least.
        prefect_url: Prefect's API, such as http://127.0.0.1:4200/api, for reruns and links; PREFECT_API_URL when not
            given. PREFECT_API_AUTH_STRING is used where it is set.
        cache: folder for small pictures; inside a local store when not given.
    """
    import uvicorn

    from flows.champion_desk import ChampionDesk
    from inspector.app import create_app
    from inspector.prefect_api import PrefectApi
    from storage.store import Store

    require_within("port", port, least=1, most=MAX_PORT)
    auth = os.environ.get("PREFECT_API_AUTH_STRING")
    web = create_app(
        runs_folder=runs,
        store_url=store,
        host=host,
        token=read_token(token_file),
        cache=cache,
        prefect=PrefectApi(prefect_url, auth=auth) if prefect_url else None,
        champion_desk=ChampionDesk(Store.open(store), runs),
    )
    console = Console()
    console.print(f"Inspector: http://{host}:{port}/  (Ctrl-C ends it)", highlight=False)
    if token_file is None:
        console.print(f"Actions ask for this token: {web.state.token}", highlight=False, markup=False)
    uvicorn.run(web, host=host, port=port, log_level="warning")


@app.command
def gc(options: Annotated[GcOptions, Parameter(name="*")] = _GC) -> None:
    """Tell which artifacts no kept run, champion or catalog version reaches, and with --delete remove them.

    A run is kept as long as its folder is there.
    """
    from flows.gc import collect, collection_table
    from storage.store import Store

    # An operator who misspells the folder should not read that it has no garbage.
    Store.open_existing(options.store)
    console = Console()
    with ProgressDisplay(console) as display, time_limit(options.time_limit, events=display) as events:
        found = collect(options, events=events)
    if found.garbage:
        console.print(collection_table(found))
    console.print(found.summary(deleted=options.delete), highlight=False)


@app.command
def verify(options: Annotated[VerifyOptions, Parameter(name="*")] = _VERIFY, *, json: bool = False) -> None:
    """Read every manifest, artifact and record of a store and compare each with its digest.

    Exit codes: 0 all is sound, 3 damage was found (also when it was set aside), 1 the store can't be read, 2 the
    command is wrong. With --quarantine what is damaged is moved to quarantine/ in the store, and the next `tally run`
    makes it again; what belongs to a version of a catalog stays where it is: restore that from a copy.

    Args:
        json: print one JSON object in place of the table.
    """
    from flows.verify import damage_table, verify_store

    console = Console()
    with ProgressDisplay(console) as display:
        found = verify_store(options, events=display)
    if json:
        sys.stdout.buffer.write(canonical_json(found.to_json()) + b"\n")
    else:
        if found.damage:
            console.print(damage_table(found))
        console.print(found.summary(quarantined=options.quarantine), highlight=False, soft_wrap=True)
    if found.damage:
        sys.exit(EXIT_DAMAGED)


def main() -> None:
    """Entry point."""
    end_with_code(lambda: app(exit_on_error=False, print_error=False))


if __name__ == "__main__":
    main()
