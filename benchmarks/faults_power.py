"""What a disk may hold after a power cut in the middle of a piece of work, out of the operations that it did.

The model is POSIX's, which promises less than any file system keeps: data is there when its file was synced afterwards,
a name (made, moved or removed) when its folder was synced afterwards; whatever else was done may be there or not, each
on its own, and unsynced data may be missing, cut off or zeros. Nothing that was never done is there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from benchmarks.faults_files import Operation

# With more loose operations than this their subsets are sampled.
_EXHAUSTIVE = 7
_SAMPLES = 60
Tree = dict[str, bytes | None]


@dataclass(kw_only=True)
class _Inode:
    """A file's data as it would be synced now, and as it was when it was last synced."""

    data: bytes = b""
    durable: bytes | None = None


@dataclass(kw_only=True)
class _Disk:
    """Files by number, and the changes of names in their order, each with whether it is durable."""

    inodes: dict[int, _Inode] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[Operation, int]] = field(default_factory=list)
    durable: set[int] = field(default_factory=set)

    def do(self, operation: Operation) -> None:
        """Follow one operation."""
        match operation.kind:
            case "sync":
                self._sync(operation.path)
                return
            case "write":
                self.inodes[self.now[operation.path]].data += operation.data
                return
            case "create":
                number = self.now[operation.path] = len(self.inodes)
                self.inodes[number] = _Inode()
            case "link":
                self.now[operation.other] = self.now[operation.path]
            case "rename":
                self.now[operation.other] = self.now.pop(operation.path)
            case "unlink":
                self.now.pop(operation.path, None)
        self.changes.append((operation, self.now.get(operation.other or operation.path, -1)))

    def _sync(self, path: str) -> None:
        if path in self.now:
            inode = self.inodes[self.now[path]]
            inode.durable = inode.data
            return
        for number, (operation, _) in enumerate(self.changes):
            if path in {_parent(one) for one in (operation.path, operation.other) if one}:
                self.durable.add(number)


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)


def crash_states(start: Tree, operations: Sequence[Operation], *, seed: int = 0) -> Iterator[tuple[int, Tree]]:
    """Trees that a disk may hold after a cut behind each operation: (operations done, path → data, None a folder).

    `start`: what was there, and durable, before the first one. States that are equal come once, with the largest
    number.
    """
    draw = random.Random(seed)
    seen: dict[tuple[tuple[str, bytes | None], ...], tuple[int, Tree]] = {}
    for done in range(len(operations) + 1):
        disk = _Disk()
        for path, data in start.items():
            if data is not None:
                number = disk.now[path] = len(disk.inodes)
                disk.inodes[number] = _Inode(data=data, durable=data)
        for operation in operations[:done]:
            disk.do(operation)
        for tree in _trees(start, disk, draw=draw):
            seen[tuple(sorted(tree.items()))] = done, tree
    yield from seen.values()


def _trees(start: Tree, disk: _Disk, *, draw: random.Random) -> Iterator[Tree]:
    loose = [number for number in range(len(disk.changes)) if number not in disk.durable]
    for kept in _subsets(loose, draw=draw):
        names = _names(start, disk, done=disk.durable | kept)
        unsynced = sorted(
            {one for one in names.values() if one >= 0 and disk.inodes[one].durable != disk.inodes[one].data}
        )
        for choice in _data_choices(unsynced, draw=draw):
            yield {
                path: None if one < 0 else _data(disk.inodes[one], choice.get(one, "all"))
                for path, one in names.items()
            }


def _subsets(loose: Sequence[int], *, draw: random.Random) -> Iterator[set[int]]:
    if len(loose) <= _EXHAUSTIVE:
        for size in range(len(loose) + 1):
            yield from map(set, itertools.combinations(loose, size))
        return
    yield from (set(loose[:end]) for end in range(len(loose) + 1))
    yield from (set(loose) - {one} for one in loose)
    yield from ({one for one in loose if draw.random() < 0.5} for _ in range(_SAMPLES))


def _data_choices(unsynced: Sequence[int], *, draw: random.Random) -> Iterator[dict[int, str]]:
    kinds = ("all", "none", "half", "zeros")
    if len(unsynced) <= 2:
        yield from (
            dict(zip(unsynced, chosen, strict=True)) for chosen in itertools.product(kinds, repeat=len(unsynced))
        )
        return
    yield from (dict.fromkeys(unsynced, kind) for kind in kinds)
    yield from ({one: draw.choice(kinds) for one in unsynced} for _ in range(4))


def _data(inode: _Inode, choice: str) -> bytes:
    before = inode.durable or b""
    added = inode.data[len(before) :]
    kept = {"all": added, "none": b"", "half": added[: len(added) // 2], "zeros": bytes(len(added))}[choice]
    return before + kept


def _names(start: Tree, disk: _Disk, *, done: set[int]) -> dict[str, int]:
    """Path → number of the file, -1 for a folder, after the changes `done`; what hangs in no folder is lost."""
    files = iter(range(len(start)))
    names = {path: -1 if data is None else next(files) for path, data in start.items()}
    for number, (operation, inode) in enumerate(disk.changes):
        if number not in done:
            continue
        if operation.kind in ("rename", "unlink", "rmdir"):
            names.pop(operation.path, None)
        if operation.kind == "mkdir":
            names[operation.path] = -1
        elif operation.kind in ("create", "link", "rename"):
            names[operation.other or operation.path] = inode
    return {path: one for path, one in names.items() if all(names.get(up, -2) == -1 for up in _inside(path, start))}


def _inside(path: str, start: Tree) -> list[str]:
    """The folders of a path but for those that hold everything, which the work did not make."""
    return [str(up) for up in PurePosixPath(path).parents if str(up) in start or _below_all(str(up), start)]


def _below_all(path: str, start: Tree) -> bool:
    roots = [one for one, data in start.items() if data is None]
    return any(path.startswith(f"{root}/") for root in roots)


def read_tree(root: Path) -> Tree:
    """Everything under a folder, itself included."""
    paths = [root, *sorted(root.rglob("*"))]
    return {str(path): None if path.is_dir() else path.read_bytes() for path in paths}


def write_tree(tree: Tree) -> None:
    """Make a tree's folders and files."""
    for path, data in sorted(tree.items()):
        if data is None:
            Path(path).mkdir(parents=True, exist_ok=True)
        else:
            Path(path).write_bytes(data)
