"""Garbage collection: artifacts that no kept run, champion or catalog version reaches, once they are old enough.

A manifest is reached from a run, a champion or a catalog that names it, from a manifest that was made from it, and from
one whose rows refer to its files. Folders without a manifest, left by killed runs, are garbage too. What is younger
than a day or so stays: a run that goes on may be about to use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storage.catalogs import catalog_names, catalog_versions
from storage.champions import champion_catalogs, champion_history
from storage.manifest import decode_references
from storage.roots import KeptRun, forget_run, kept_runs
from storage.store import MANIFEST_NAME, Store

Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A folder that can go: `artifacts/<stage>/<key>`, or unfinished work in `scratch/<stage>/<key>`.

    `changed`: when its newest file was written, in seconds since 1970.
    """

    area: str
    stage: str
    key: str
    files: int
    bytes: int
    changed: float
    reason: str


def kept_manifests(store: Store) -> Iterator[str]:
    """URLs of all manifests that a kept run, a champion or a catalog version names."""
    for run in kept_runs(store):
        if not run.gone:
            yield from run.manifests
    for catalog in champion_catalogs(store):
        for record in champion_history(store, catalog=catalog):
            # A rejected challenger is history, not something to go back to.
            if record.action != "rejected":
                yield from (record.checkpoint, *record.stages.values())
    for name in catalog_names(store):
        yield from (version.manifest for version in catalog_versions(store, catalog=name))


def reached(store: Store, roots: Iterable[str]) -> set[Place]:
    """Stage and key of every folder in `artifacts/` that the manifests at `roots` reach."""
    waiting, seen, places = list(roots), set[str](), set[Place]()
    while waiting:
        url = waiting.pop()
        place = _place_of(store, url)
        if place is None or url in seen:
            continue
        seen.add(url)
        try:
            references = decode_references(store.read_manifest(url), url=url)
        except (FileNotFoundError, ValueError):
            # Gone or broken already: it keeps nothing.
            continue
        places.add(place)
        places |= {found for one in references.files if (found := _place_of(store, one))}
        waiting += references.inputs
    return places


def find_garbage(store: Store, *, older_than: float, now: float) -> list[Garbage]:
    """What can go: not reached and, like unfinished work, not touched for `older_than` seconds before `now`."""
    places = reached(store, kept_manifests(store))
    found = [one for one in _folders(store, area="artifacts") if (one.stage, one.key) not in places]
    # Logs and locks are small, and somebody may hold them.
    scratch = [one for one in _folders(store, area="scratch") if one.stage not in ("logs", "locks")]
    return [one for one in (*found, *scratch) if now - one.changed >= older_than]


def sweep(store: Store, garbage: Iterable[Garbage]) -> None:
    """Remove garbage, each folder's manifest before its files; runs whose folders are gone are forgotten."""
    for one in garbage:
        folder = f"{store.url}/{one.area}/{one.stage}/{one.key}"
        store.remove_file(f"{folder}/{MANIFEST_NAME}")
        store.remove_folder(folder)
    for run in gone_runs(store):
        forget_run(store, run)


def gone_runs(store: Store) -> list[KeptRun]:
    """Runs that are noted and whose folders are no longer there."""
    return [run for run in kept_runs(store) if run.gone]


def _folders(store: Store, *, area: str) -> list[Garbage]:
    grouped: dict[Place, list[tuple[str, int, float]]] = {}
    for path, size, changed in store.walk(f"{store.url}/{area}"):
        stage, _, rest = path.partition("/")
        key, _, name = rest.partition("/")
        if name:
            grouped.setdefault((stage, key), []).append((name, size, changed))
    return [
        Garbage(
            area=area,
            stage=stage,
            key=key,
            files=len(files),
            bytes=sum(size for _, size, _ in files),
            changed=max(changed for _, _, changed in files),
            reason=_reason(area, names={name for name, _, _ in files}),
        )
        for (stage, key), files in sorted(grouped.items())
    ]


def _reason(area: str, *, names: set[str]) -> str:
    if area == "scratch":
        return "unfinished work"
    return "nothing reaches it" if MANIFEST_NAME in names else "never finished"


def _place_of(store: Store, url: str) -> Place | None:
    root = f"{store.url}/artifacts/"
    if not url.startswith(root):
        return None
    stage, key = url.removeprefix(root).split("/")[:2]
    return stage, key
