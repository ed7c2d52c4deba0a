"""What a person sees while a run goes on: a bar with time left for the stage at work, a line for each that ended."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from storage.digest import JSON


class ProgressDisplay:
    """An event sink that draws. On a terminal it shows live bars; elsewhere only the lines of ended stages."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`."""
        self._console = console
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; lines that were printed stay."""
        self._progress.stop()

    def __call__(self, event: dict[str, JSON]) -> None:
        """Take one event of a stage. Called from several threads."""
        with self._lock:
            name = str(event.get("name", event.get("stage", "")))
            match event["kind"]:
                case "start" if not event["cached"]:
                    self._tasks[name] = self._progress.add_task(name, total=None, what="")
                case "progress" if name in self._tasks:
                    self._progress.update(
                        self._tasks[name], completed=event["done"], total=event["total"], what=event["what"]
                    )
                case "log":
                    self._console.print(f"  [dim]{name}:[/dim] {event['message']}", highlight=False)
                case "end":
                    self._end(name, event)

    def _end(self, name: str, event: dict[str, JSON]) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._progress.remove_task(task)
        how = "[dim]cached[/dim]" if event["cached"] else f"{event['seconds']:7.1f} s"
        bad = f", [yellow]{event['quarantined']} quarantined[/yellow]" if event["quarantined"] else ""
        self._console.print(f"[green]✓[/green] {name:<28} {event['rows']:>6} rows  {how}{bad}", highlight=False)
