"""Verification of a store as an operator sees it: what was read, what is damaged, what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from rich.table import Table

from flows.options import VerifyOptions, worker_count
from storage.digest import JSON
from storage.store import Store
from storage.verify import Damage, Verification, set_aside, verify
from tasks.context import EventSink

_STAGE = "verify"


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """What `tally verify` tells; `moved`: how many damaged files were set aside."""

    found: Verification
    moved: int

    @property
    def damage(self) -> list[Damage]:
        """What is wrong."""
        return self.found.damage

    def to_json(self) -> dict[str, JSON]:
        """The report as a JSON object."""
        told = {name: value for name, value in asdict(self.found).items() if name != "referred"}
        return {**told, "sound": not self.damage, "moved": self.moved}

    def summary(self, *, quarantined: bool) -> str:
        """One line: what was read, what is wrong, and what to do next."""
        one = self.found
        read = f"{one.manifests} manifests, {one.files} files ({one.bytes / 1e6:.1f} MB) and {one.records} records"
        if not one.damage:
            return f"{one.store}: {read} are sound"
        wrong = f"{one.store}: {len(one.damage)} damaged among {read}"
        if quarantined:
            return f"{wrong}; {self.moved} set aside, the next `tally run` makes them again"
        return f"{wrong}; --quarantine sets aside what can be made again"


def verify_store(options: VerifyOptions, *, events: EventSink) -> StoreReport:
    """Verify a store, and set aside what is damaged if the options say so.

    Raises:
        ValueError: there is no such store.
    """
    store = Store.open_existing(options.store)

    def progress(done: int, total: int) -> None:
        events({"kind": "progress", "stage": _STAGE, "what": "manifests", "done": done, "total": total})

    events({"kind": "start", "stage": _STAGE, "cached": False})
    found = verify(store, photos=options.photos, workers=worker_count(options.workers), progress=progress)
    return StoreReport(found=found, moved=set_aside(store, found.damage) if options.quarantine else 0)


def damage_table(report: StoreReport) -> Table:
    """What is damaged, a line each."""
    table = Table("file", "problem", "a run makes it again")
    for one in report.damage:
        where = one.url.removeprefix(f"{report.found.store}/")
        table.add_row(where, one.problem, "yes" if one.remade else "no")
    return table
