"""A model of a disk that loses power: the store's operations are recorded, every state a crash could leave is made.

Stricter than real file systems: after a crash any subset of directory entries that were not synced is there; the bytes
of a file that was not synced are there, gone, or garbage. A rename inside one directory is one entry change. The
ledger's commits are atomic and durable: that is SQLite's word with synchronous=FULL.
"""

import itertools
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.store.files import Disk
from tests.store.fakes import place_of

Tree = dict[str, "int | None"]  # relative path -> inode number of a file, None for a directory


@dataclass(frozen=True)
class Op:
    """One operation; `ledger` carries the committed ledger, `promise` marks where B4 is reached."""

    kind: str
    path: str = ""
    other: str = ""
    node: int = -1
    data: bytes = b""

    def __repr__(self) -> str:
        return f"{self.kind}({self.path or self.node}{' -> ' + self.other if self.other else ''})"


class RecordingDisk(Disk):
    """The real disk, and a list of what was done to it below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ops: list[Op] = []
        self.nodes: dict[str, int] = {}  # path -> our own inode number
        self._numbers = itertools.count(1)
        self._ledger = b""
        self._is_recording = False

    def start(self) -> None:
        """Take what is on disk as durable, and record from here on."""
        self.initial = {path: self._number(path) for path in self._walk()}
        self.contents = {node: (self.root / path).read_bytes() for path, node in self.initial.items()}
        self._ledger = self._committed()
        self.first_ledger = self._ledger
        self._is_recording = True

    def _walk(self) -> Iterator[str]:
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not path.name.startswith("ledger.sqlite"):
                yield path.relative_to(self.root).as_posix()

    def _number(self, path: str) -> int:
        return self.nodes.setdefault(path, next(self._numbers))

    def _committed(self) -> bytes:
        uri = f"file:{self.root}/state/ledger.sqlite?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection, closing(sqlite3.connect(":memory:")) as copy:
            connection.backup(copy)
            return copy.serialize()

    def _add(self, op: Op) -> None:
        if self._is_recording:
            self.look_at_ledger()
            self.ops.append(op)

    def look_at_ledger(self) -> None:
        """Note a commit that happened since the last operation."""
        committed = self._committed()
        if committed != self._ledger:
            self._ledger = committed
            self.ops.append(Op("ledger", data=committed))

    def _path(self, name: str, dir_fd: int) -> str:
        return (place_of(dir_fd) / name).relative_to(self.root).as_posix()

    def mkdir(self, name: str, *, dir_fd: int, mode: int = 0o777) -> None:
        self._add(Op("mkdir", self._path(name, dir_fd)))
        super().mkdir(name, dir_fd=dir_fd, mode=mode)

    def create(self, name: str, *, dir_fd: int, mode: int = 0o666) -> int:
        fd = super().create(name, dir_fd=dir_fd, mode=mode)
        path = self._path(name, dir_fd)
        self.nodes[path] = next(self._numbers)
        self._add(Op("create", path, node=self.nodes[path]))
        return fd

    def _node(self, fd: int) -> int:
        return self.nodes[place_of(fd).relative_to(self.root).as_posix()]

    def write(self, fd: int, data: memoryview) -> int:
        written = super().write(fd, data)
        self._add(Op("write", node=self._node(fd), data=bytes(data[:written])))
        return written

    def fsync(self, fd: int) -> None:
        self._add(Op("fsync", place_of(fd).relative_to(self.root).as_posix(), node=self._node(fd)))
        super().fsync(fd)

    def fsync_dir(self, fd: int) -> None:
        place = place_of(fd)
        if place.is_relative_to(self.root):
            self._add(Op("fsync_dir", place.relative_to(self.root).as_posix()))
        super().fsync_dir(fd)

    def link(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        super().link(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)
        old, new = self._path(name, dir_fd), self._path(new_name, new_dir_fd)
        self.nodes[new] = self.nodes[old]
        self._add(Op("link", old, new, node=self.nodes[old]))

    def rename_exclusive(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        super().rename_exclusive(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)
        old, new = self._path(name, dir_fd), self._path(new_name, new_dir_fd)
        self.nodes[new] = self.nodes.pop(old)
        self._add(Op("rename", old, new, node=self.nodes[new]))

    def unlink(self, name: str, *, dir_fd: int) -> None:
        super().unlink(name, dir_fd=dir_fd)
        self._add(Op("unlink", self._path(name, dir_fd)))


Change = tuple[tuple[str, "int | None"], ...]  # entries set (inode) or removed (None) as one


@dataclass
class Platter:
    """What is durable, and what only hangs in memory, after some operations."""

    entries: dict[str, int] = field(default_factory=dict)  # durable names of files
    folders: set[str] = field(default_factory=set)  # durable directories
    pending: dict[str, list[Change]] = field(default_factory=dict)  # directory -> changes since its last sync
    made: set[str] = field(default_factory=set)  # directories whose own entry is pending
    current: dict[int, bytes] = field(default_factory=dict)
    unsynced: set[int] = field(default_factory=set)
    ledger: bytes = b""
    is_promised: bool = False

    def apply(self, op: Op) -> None:
        folder = os.path.dirname(op.path)  # noqa: PTH120 - model paths, not files
        match op.kind:
            case "create":
                self.current[op.node] = b""
                self.unsynced.add(op.node)
                self._change(folder, ((op.path, op.node),))
            case "write":
                self.current[op.node] += op.data
                self.unsynced.add(op.node)
            case "fsync":
                self.unsynced.discard(op.node)
            case "mkdir":
                self._change(folder, ((op.path + "/", -1),))
            case "link":
                self._change(os.path.dirname(op.other), ((op.other, op.node),))  # noqa: PTH120
            case "rename":
                self._change(folder, ((op.path, None), (op.other, op.node)))
            case "unlink":
                self._change(folder, ((op.path, None),))
            case "fsync_dir":
                for change in self.pending.pop(op.path, []):
                    self._settle(self.entries, self.folders, change)
            case "ledger":
                self.ledger = op.data
            case "promise":
                self.is_promised = True
            case _:
                raise AssertionError(op.kind)

    def _change(self, folder: str, change: Change) -> None:
        self.pending.setdefault(folder, []).append(change)

    @staticmethod
    def _settle(entries: dict[str, int], folders: set[str], change: Change) -> None:
        for path, node in change:
            if path.endswith("/"):
                folders.add(path[:-1])
            elif node is None:
                entries.pop(path, None)
            else:
                entries[path] = node

    def crashes(self) -> "Iterator[Crash]":
        """Yield every state the disk may be in if the power goes now."""
        changes = [change for folder in self.pending.values() for change in folder]
        for chosen in itertools.product((False, True), repeat=len(changes)):
            entries, folders = dict(self.entries), set(self.folders)
            for change in itertools.compress(changes, chosen):
                self._settle(entries, folders, change)
            reachable = {path: node for path, node in entries.items() if _is_reachable(path, folders)}
            doubtful = sorted(self.unsynced & set(reachable.values()))
            for variant in itertools.product(("whole", "empty", "garbage", "half"), repeat=len(doubtful)):
                bytes_of = self.current | {
                    node: _after_crash(self.current[node], kind) for node, kind in zip(doubtful, variant, strict=True)
                }
                found = tuple(sorted((path, bytes_of[node], node) for path, node in reachable.items()))
                yield Crash(found, frozenset(folders), self.ledger, self.is_promised)


def _is_reachable(path: str, folders: set[str]) -> bool:
    parents = path.split("/")[:-1]
    return all("/".join(parents[: count + 1]) in folders for count in range(len(parents)))


def _after_crash(data: bytes, kind: str) -> bytes:
    return {"whole": data, "empty": b"", "garbage": bytes(len(data)), "half": data[: len(data) // 2]}[kind]


@dataclass(frozen=True)
class Crash:
    """One disk as it is found after the power came back."""

    files: tuple[tuple[str, bytes, int], ...]
    folders: frozenset[str]
    ledger: bytes
    is_promised: bool

    def write(self, root: Path) -> None:
        """Make it real."""
        for folder in sorted(self.folders | {"out", "state"}):
            (root / folder).mkdir(parents=True, exist_ok=True)
        written: dict[int, Path] = {}
        for path, data, node in self.files:
            if not (root / path).parent.is_dir():
                continue
            if node in written:
                (root / path).hardlink_to(written[node])
            else:
                (root / path).write_bytes(data)
                written[node] = root / path
        (root / "state/ledger.sqlite").write_bytes(self.ledger)

    def __repr__(self) -> str:
        names = ", ".join(f"{path} ({len(data)} bytes)" for path, data, _ in self.files)
        return f"<Crash {'after' if self.is_promised else 'before'} B4: {names or 'nothing'}>"


def crashes_of(disk: RecordingDisk, ops: list[Op], *, unsynced: set[str] = frozenset()) -> list[Crash]:
    """Return every distinct crash state of a sequence of operations.

    `unsynced`: files and directories that were there at the start without having been synced, bytes and entry.
    """
    platter = Platter(ledger=disk.first_ledger, current=dict(disk.contents))
    platter.folders = {"out", "state"} | {
        parent.as_posix() for path in disk.initial for parent in Path(path).parents if parent != Path()
    }
    for path in unsynced & platter.folders:
        platter.folders.discard(path)
        platter._change(os.path.dirname(path), ((path + "/", -1),))  # noqa: PTH120
    for path, node in disk.initial.items():
        if path in unsynced:
            platter.unsynced.add(node)
            platter._change(os.path.dirname(path), ((path, node),))  # noqa: PTH120
        else:
            platter.entries[path] = node
    states = dict.fromkeys(platter.crashes())
    for op in ops:
        platter.apply(op)
        states |= dict.fromkeys(platter.crashes())
    return list(states)
