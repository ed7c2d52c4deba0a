"""Verification: every manifest, artifact and record of a store is read and compared with its digest or seal.

Reads, and changes nothing; `set_aside` then moves what is damaged into quarantine, where running again remakes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from storage.catalogs import FOLDER as CATALOGS
from storage.catalogs import catalog_names, catalog_versions
from storage.champions import FOLDER as CHAMPIONS
from storage.champions import champion_catalogs
from storage.digest import digest_bytes
from storage.garbage import Place, kept_manifests, reached
from storage.journal import record_numbers
from storage.manifest import columns_of
from storage.reviews import FOLDER as REVIEWS
from storage.reviews import decode_decisions
from storage.roots import FOLDER as ROOTS
from storage.seal import open_record
from storage.store import MANIFEST_NAME, DamagedArtifactError, Store

_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file that is missing, unreadable or not what was written. `remade`: a run makes it again."""

    url: str
    problem: str
    remade: bool


@dataclass(kw_only=True)
class Verification:
    """What was looked at in a store, and what is wrong there.

    `unfinished`: folders without a manifest, which killed runs leave; they are garbage and no damage. `referred`: URLs
    of the manifests in this store whose files others refer to.
    """

    store: str
    manifests: int = 0
    files: int = 0
    bytes: int = 0
    records: int = 0
    unfinished: int = 0
    referred: set[str] = field(default_factory=set)
    damage: list[Damage] = field(default_factory=list)


class _File(NamedTuple):
    """What a row says of its file."""

    item_id: str
    url: str
    bytes: int
    digest: str


def verify(
    store: Store,
    *,
    photos: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Read a whole store and say what is wrong with it.

    `photos`: also the data sets' photos, which lie outside the store. `progress(done, total)` hears of every manifest.
    """
    found = Verification(store=store.url)
    _verify_records(store, found)
    kept = _irreplaceable(store)
    folders = _result_folders(store)
    found.unfinished = sum(not finished for _, finished in folders)
    urls = [f"{folder}/{MANIFEST_NAME}" for folder, finished in folders if finished]
    with ThreadPoolExecutor(workers) as threads:
        for done, url in enumerate(urls, start=1):
            _verify_result(
                store, url, into=found, photos=photos, threads=threads, remade=_place(store, url) not in kept
            )
            progress(done, len(urls))
    known = {one.url for one in found.damage}
    found.damage += _missing(store, present=set(urls) | known, referred=found.referred, kept=kept)
    return found


def may_be_made_again(store: Store, url: str) -> bool:
    """Whether running a stage again makes the file at `url`: not where it belongs to a version of a catalog."""
    return _place(store, url) not in _irreplaceable(store)


def set_aside(store: Store, damage: Sequence[Damage]) -> int:
    """Move damaged files that a run makes again into quarantine; returns how many."""
    return sum(store.quarantine(one.url, problem=one.problem) for one in damage if one.remade)


def _place(store: Store, url: str) -> Place:
    stage, key = url.removeprefix(f"{store.url}/artifacts/").split("/")[:2]
    return stage, key


def _irreplaceable(store: Store) -> set[Place]:
    """Stage and key of what catalog versions are made of: copies of photos that may be nowhere else."""
    places: set[Place] = set()
    for name in catalog_names(store):
        try:
            manifests = [version.manifest for version in catalog_versions(store, catalog=name)]
            places |= reached(store, manifests) | {_place(store, url) for url in manifests}
        except ValueError:
            # A version that can't be read, or whose manifest can't: it may hold every product that was ingested.
            places |= {_place(store, f"{folder}/") for folder, _ in _result_folders(store) if "/ingest/" in folder}
    return places


def _result_folders(store: Store) -> list[tuple[str, bool]]:
    """The folders under `artifacts/`, and whether each has a manifest."""
    found: dict[str, bool] = {}
    for path, _, _ in store.walk(f"{store.url}/artifacts"):
        stage, key, *rest = path.split("/")
        folder = f"{store.url}/artifacts/{stage}/{key}"
        found[folder] = found.get(folder, False) or rest == [MANIFEST_NAME]
    return sorted(found.items())


def _verify_result(
    store: Store, url: str, *, into: Verification, photos: bool, threads: ThreadPoolExecutor, remade: bool
) -> None:
    """Compare a manifest with its seal, and its files with their digests."""
    try:
        manifest = store.load(url)
    except FileNotFoundError:
        # Collected or replaced in this moment.
        return
    except (ValueError, OSError) as error:
        into.damage.append(Damage(url=url, problem=str(error), remade=remade))
        return
    into.manifests += 1
    rows = columns_of(manifest.rows, "item_id", "path", "bytes", "digest")
    into.referred |= {_manifest_of(store, path) for _, path, _, _ in rows if path.startswith(f"{store.url}/artifacts/")}
    files = _files_to_read(store, rows, folder=url.rsplit("/", 1)[0], photos=photos)
    # Not all at once: of a million files each would wait in memory.
    while some := list(islice(files, _AT_ONCE)):
        for one, problem in zip(some, threads.map(partial(_problem, store), some), strict=True):
            into.files, into.bytes = into.files + 1, into.bytes + one.bytes
            if problem and store.exists(url):
                own = one.url.startswith(f"{store.url}/")
                into.damage.append(Damage(url=one.url, problem=f"{one.item_id}: {problem}", remade=remade and own))


def _files_to_read(store: Store, rows: Iterable[tuple[Any, ...]], *, folder: str, photos: bool) -> Iterator[_File]:
    """A manifest's own files, and those elsewhere that no manifest of this store vouches for."""
    for item_id, path, size, digest in rows:
        own, outside = "://" not in path, not path.startswith(f"{store.url}/artifacts/")
        if path and (own or (photos and outside)):
            yield _File(item_id, f"{folder}/{path}" if own else path, size, digest)


def _problem(store: Store, row: _File) -> str:
    """What is wrong with a row's file, empty when it is what was written. Never answered from a cache."""
    try:
        data = store.read_url(row.url)
    except DamagedArtifactError as error:
        return error.problem
    except OSError as error:
        return f"can't be read ({error})"
    return "" if digest_bytes(data) == row.digest else "its bytes are not what was written"


def _missing(store: Store, *, present: set[str], referred: set[str], kept: set[Place]) -> Iterator[Damage]:
    """Manifests that a kept run, a champion, a catalog version or another manifest names and that are not there."""
    try:
        named = {url for url in kept_manifests(store) if url.startswith(f"{store.url}/artifacts/")}
    except ValueError:
        # A broken record, which is damage of its own.
        named = set()
    for url in sorted((named | referred) - present):
        if not store.exists(url):
            who = "a run, a champion or a catalog version names it" if url in named else "another refers to its files"
            problem = f"the manifest is missing, and {who}"
            yield Damage(url=url, problem=problem, remade=_place(store, url) not in kept)


def _manifest_of(store: Store, url: str) -> str:
    stage, key = _place(store, url)
    return store.manifest_url(stage, key=key)


def _verify_records(store: Store, found: Verification) -> None:
    """Read every record of the store: notes of runs, catalog versions, champions, review decisions."""
    journals = [f"{CATALOGS}/{name}" for name in catalog_names(store)]
    journals += [f"{CHAMPIONS}/{name}" for name in champion_catalogs(store)]
    for folder in (ROOTS, *journals, REVIEWS):
        names = store.list_files(f"{store.url}/{folder}")
        found.records += len(names)
        checked = {f"{store.url}/{folder}/{name}": partial(_check_record, store, folder, name) for name in names}
        if folder in journals:
            checked[f"{store.url}/{folder}"] = partial(_check_numbers, store, folder)
        for url, check in checked.items():
            try:
                check()
            except (ValueError, OSError, DamagedArtifactError) as error:
                text = f"{str(error).removeprefix(f'{url}: ')}; restore it from a copy of the store"
                found.damage.append(Damage(url=url, problem=text, remade=False))


def _check_record(store: Store, folder: str, name: str) -> None:
    url = f"{store.url}/{folder}/{name}"
    data = store.read_url(url)
    if name.endswith(".json"):
        open_record(data, url=url)
    else:
        decode_decisions(data, url=url)


def _check_numbers(store: Store, folder: str) -> None:
    """Records are numbered from 1 without a gap."""
    numbers = record_numbers(store, folder)
    lost = sorted(set(range(1, len(numbers) + 1)) - set(numbers))
    if lost:
        raise ValueError(f"{store.url}/{folder}: expected the records 1 to {max(numbers)}, got none numbered {lost[0]}")
