"""What keeps artifacts alive besides champions and catalogs: the runs that are kept, noted in the store they used.

A note says which run folder on which machine refers to which manifests, so that garbage collection anywhere knows of
runs everywhere. A run whose folder was removed is no longer kept: the machine it was on finds that out.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.digest import digest_json
from storage.seal import open_record, seal_record
from storage.store import Store

FOLDER = "roots"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """A run's note: its folder on the machine `host`, the manifests it refers to, and when that was noted."""

    host: str
    folder: str
    manifests: tuple[str, ...]
    time: str

    @property
    def name(self) -> str:
        """The note's file name: one a run."""
        return f"{Path(self.folder).name}-{digest_json([self.host, self.folder])[:12]}.json"

    @property
    def gone(self) -> bool:
        """Whether the run's folder was on this machine and is no longer there.

        One whose folder of runs is not there either may lie on a disk that is not mounted.
        """
        folder = Path(self.folder)
        return self.host == socket.gethostname() and folder.parent.is_dir() and not folder.is_dir()


def note_run(store: Store, *, folder: Path, manifests: Sequence[str], time: str) -> None:
    """Note, or note anew, which manifests a run refers to."""
    run = KeptRun(host=socket.gethostname(), folder=str(folder.resolve()), manifests=tuple(manifests), time=time)
    store.put_file(f"{store.url}/{FOLDER}/{run.name}", seal_record(asdict(run)))


def kept_runs(store: Store) -> Iterator[KeptRun]:
    """The runs that are noted in a store.

    Raises:
        ValueError: a note is broken; nobody knows then what it keeps.
    """
    for name in store.list_files(f"{store.url}/{FOLDER}"):
        url = f"{store.url}/{FOLDER}/{name}"
        try:
            body = open_record(store.read_url(url), url=url)
            yield KeptRun(**{**body, "manifests": tuple(body["manifests"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{url}: expected the note of a run, got broken text ({error}); remove it if none is lost"
            ) from error


def forget_run(store: Store, run: KeptRun) -> None:
    """Take a run's note away: what nothing else reaches is garbage from now on."""
    store.remove_file(f"{store.url}/{FOLDER}/{run.name}")
