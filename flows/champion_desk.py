"""Champions promoted and brought back by a person: recorded in the store, and put to use in the folder of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.promotion import challenger_figures, checkpoint_in, install, judged_inputs, kept_stages
from flows.runs import now
from storage.champions import ChampionRecord, current_champion, record_decision, roll_back
from storage.digest import JSON
from storage.store import Store


@dataclass(frozen=True)
class ChampionDesk:
    """Makes models of the runs in `runs` the champion."""

    store: Store
    runs: Path

    def promote(self, run: Mapping[str, JSON], *, rung: str, reason: str) -> str:
        """Make the model of a rung of a finished run (its run.json) the champion; returns what was done.

        Raises:
            ValueError: the run has no such model, or it is the champion already.
        """
        stages = {str(one["name"]): one for one in run.get("stages") or []}
        checkpoint = checkpoint_in(run, rung=rung)
        if checkpoint is None:
            raise ValueError(f"rung: expected one that run {run.get('name')} trained, got {rung!r}")
        catalog = str(run.get("catalog") or run.get("name"))
        present = current_champion(self.store, catalog=catalog)
        if present and present.checkpoint_digest == checkpoint["content_digest"]:
            raise ValueError(f"{rung} of {run.get('name')} is the champion already")
        record = ChampionRecord(
            catalog=catalog,
            catalog_version=int(run.get("catalog_version") or 0),
            action="promoted",
            time=now(),
            run=str(run.get("name")),
            rung=rung,
            preset=str(run.get("preset") or ""),
            checkpoint=self.store.manifest_url(str(checkpoint["stage"]), key=str(checkpoint["key"])),
            checkpoint_digest=str(checkpoint["content_digest"]),
            inputs=judged_inputs({name: str(one["content_digest"]) for name, one in stages.items()}),
            stages=kept_stages({name: str(one["manifest"]) for name, one in stages.items()}),
            replaced=present.number if present else 0,
            reasons=(reason,),
            figures=_figures(run, rung=rung),
        )
        return self._put_to_use(record_decision(self.store, record))

    def roll_back(self, catalog: str, *, to: int, reason: str) -> str:
        """Make the champion of record `to` the champion again; returns what was done.

        Raises:
            ValueError: there is no such champion, or it is the present one.
        """
        return self._put_to_use(roll_back(self.store, catalog=catalog, to=to, time=now(), reason=reason))

    def _put_to_use(self, record: ChampionRecord) -> str:
        install(record, store=self.store, runs=self.runs)
        return f"{record.rung} of run {record.run} is the champion of {record.catalog} (record {record.number})"


def _figures(run: Mapping[str, JSON], *, rung: str) -> dict[str, JSON]:
    """What the run measured of the model, on val and on test, by level."""
    measured = {"val": run.get("val_ladder") or {}, "test": run.get("ladder") or {}}
    return {split: challenger_figures(ladder.get(rung, {})) for split, ladder in measured.items()}
