"""What maps the items of a stage in a run: threads, processes, or a Dask cluster that is there or is started for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flows.options import RunOptions
from tasks.mapping import DASK, dask_cluster


@contextmanager
def mapped_by(options: RunOptions) -> Iterator[str]:
    """The runner for mapped stages as `tasks.context.StageContext` names it."""
    if options.task_runner != DASK:
        yield options.task_runner
    elif options.dask_address:
        yield f"{DASK}:{options.dask_address}"
    else:
        with dask_cluster(options.worker_count()) as address:
            yield f"{DASK}:{address}"
