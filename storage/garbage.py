"""Garbage collection: artifacts that no kept run, champion or catalog version reaches, once they are old enough.

A manifest is reached from a run, a champion or a catalog that names it, from a manifest that was made from it, and from
one whose rows refer to its files. Folders without a manifest, left by killed runs, are garbage too. What is younger
than a day or so, or was taken from the store by a run since, stays with all that it reaches: a run that goes on may be
about to use it.

Others may work in the store meanwhile. A result is first made invisible, then looked at once more: who took it before
has marked it (`Store.take`) and gets it back; who comes later doesn't find it and computes it. What refers to others
goes before them, so that one that comes back keeps what it reaches.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from storage.catalogs import catalog_names, catalog_versions
from storage.champions import champion_catalogs, champion_history
from storage.manifest import decode_references
from storage.roots import KeptRun, forget_run, kept_runs
from storage.store import MANIFEST_NAME, QUARANTINE, Store

Place = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """A folder that can go: `artifacts/<stage>/<key>`, unfinished work in `scratch/<stage>/<key>`, or what was damaged
    in `quarantine/<stage>/<key>`.

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
    """Stage and key of every folder in `artifacts/` that the manifests at `roots` reach; a lost one keeps nothing.

    Raises:
        ValueError: a manifest on the way is broken: nobody knows what it keeps.
    """
    waiting, seen, places = list(roots), set[str](), set[Place]()
    while waiting:
        url = waiting.pop()
        place = _place_of(store, url)
        if place is None or url in seen:
            continue
        seen.add(url)
        try:
            references = decode_references(store.read_manifest(url), url=url)
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise ValueError(f"{error}; `tally verify --quarantine` sets it aside") from error
        places.add(place)
        places |= {found for one in references.files if (found := _place_of(store, one))}
        waiting += references.inputs
    return places


def find_garbage(store: Store, *, older_than: float, now: float) -> list[Garbage]:
    """What can go: not reached and, like unfinished work, not touched for `older_than` seconds before `now`."""
    folders = list(_folders(store, area="artifacts"))
    young = [_manifest_url(store, one) for one in folders if now - one.changed < older_than]
    places = reached(store, [*kept_manifests(store), *young])
    found = [one for one in folders if (one.stage, one.key) not in places]
    # Logs and locks are small, and somebody may hold them.
    scratch = [one for one in _folders(store, area="scratch") if one.stage not in ("logs", "locks")]
    aside = _folders(store, area=QUARANTINE)
    return [one for one in (*found, *scratch, *aside) if now - one.changed >= older_than]


def sweep(
    store: Store, garbage: Sequence[Garbage], *, before: Callable[[Garbage], object] = lambda one: None
) -> list[Garbage]:
    """Remove garbage but what somebody uses since it was found; returns what was removed.

    Runs whose folders are gone are forgotten. `before` hears of each folder, and may end it by raising.
    """
    removed, spared = [], set[Place]()
    for one in _referrers_first(store, garbage):
        before(one)
        if one.area == "artifacts" and (one.stage, one.key) in spared:
            continue
        with store.lock(one.stage, key=one.key, wait=False) as free:
            if free and _removed(store, one):
                removed.append(one)
            elif one.area == "artifacts":
                spared |= reached(store, [_manifest_url(store, one)])
    for run in gone_runs(store):
        forget_run(store, run)
    return removed


def _removed(store: Store, one: Garbage) -> bool:
    """Remove a folder, its manifest before its files, unless something in it was touched since it was found."""
    folder, url = f"{store.url}/{one.area}/{one.stage}/{one.key}", _manifest_url(store, one)
    data = store.read_manifest(url) if one.area == "artifacts" and store.exists(url) else None
    if data is not None:
        store.withdraw(one.stage, key=one.key)
    if any(changed > one.changed for _, _, changed in store.walk(folder)):
        if data is not None:
            store.create_file(url, data)
        return False
    try:
        store.remove_folder(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise
        # Somebody has marked or cleared it in this moment: the next collection finds what is left.
    return True


def _referrers_first(store: Store, garbage: Sequence[Garbage]) -> list[Garbage]:
    """Garbage in an order in which every manifest comes before those that it refers to."""
    by_place = {(one.stage, one.key): one for one in garbage if one.area == "artifacts"}
    order: TopologicalSorter[Place] = TopologicalSorter(dict.fromkeys(by_place, ()))
    for place, one in by_place.items():
        for other in _referred(store, one):
            if other in by_place and other != place:
                order.add(other, place)
    others = [one for one in garbage if one.area != "artifacts"]
    return [by_place[place] for place in order.static_order()] + others


def _referred(store: Store, one: Garbage) -> set[Place]:
    url = _manifest_url(store, one)
    try:
        references = decode_references(store.read_manifest(url), url=url)
    except (FileNotFoundError, ValueError):
        # Garbage that is not whole refers to nothing that would be missed.
        return set()
    return {found for other in (*references.files, *references.inputs) if (found := _place_of(store, other))}


def _manifest_url(store: Store, one: Garbage) -> str:
    return store.manifest_url(one.stage, key=one.key)


def gone_runs(store: Store) -> list[KeptRun]:
    """Runs that are noted and whose folders are no longer there."""
    return [run for run in kept_runs(store) if run.gone]


def _folders(store: Store, *, area: str) -> list[Garbage]:
    # A store may have millions of files and has few folders: only these are held.
    found: dict[Place, Garbage] = {}
    for path, size, changed in store.walk(f"{store.url}/{area}"):
        stage, _, rest = path.partition("/")
        key, _, name = rest.partition("/")
        if not name:
            continue
        one = found.get((stage, key)) or Garbage(
            area=area, stage=stage, key=key, files=0, bytes=0, changed=changed, reason=_reason(area)
        )
        found[stage, key] = replace(
            one,
            files=one.files + 1,
            bytes=one.bytes + size,
            changed=max(one.changed, changed),
            reason="nothing reaches it" if area == "artifacts" and name == MANIFEST_NAME else one.reason,
        )
    return [one for _, one in sorted(found.items())]


def _reason(area: str) -> str:
    return {"artifacts": "never finished", "scratch": "unfinished work"}.get(area, "damaged, set aside")


def _place_of(store: Store, url: str) -> Place | None:
    root = f"{store.url}/artifacts/"
    if not url.startswith(root):
        return None
    stage, key = url.removeprefix(root).split("/")[:2]
    return stage, key
