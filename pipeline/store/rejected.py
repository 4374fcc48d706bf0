"""`rejected/` in the state directory: bytes that were paid for and could not be published (P2).

`<ledger>-<attempt>-<sha256>.<ext>` and `<same>.facts.json`, mode 0600; the facts contain no secrets.

A worker that does not see the state directory has a `rejected/` of its own: in a shared output directory, from where
`collect` moves it; or on its machine, from where each file is put into the bucket at once. A file `workers` in the
state directory says that there may be something: it stays when a run ends, and the next start collects and removes it.
"""

import contextlib
import errno
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from pipeline.buckets import Bucket, BucketError, ObjectExists
from pipeline.store.files import read_all, write_new
from pipeline.store.tree import DiskReserve, Tree

FOLDER: Final = "rejected"
FACTS: Final = ".facts.json"
_NAME: Final = re.compile(r"(?:([0-9a-f]{8})-)?(\d+)-([0-9a-f]{64})(\.[a-z0-9]+)")
WORKERS_MARK: Final = "workers"  # in the state directory: workers of a run may have kept something
APART: Final = ".kept-"  # how the folder of a ledger in the output begins
_APART_NAME: Final = re.compile(r"[0-9a-f]{8}-\d{1,18}-[0-9a-f]{64}\.[a-z0-9]{1,8}(" + re.escape(FACTS) + ")?")


def apart_dir(output_dir: Path, ledger_id: str) -> Path:
    """Return where workers that do not see the state directory keep what they cannot publish."""
    return output_dir / f"{APART}{ledger_id}"


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of some rejected bytes; no key, no header, no prompt."""

    attempt: int
    manifest: str
    task: str
    at: str  # RFC 3339, UTC
    reason: str
    is_image: bool = False  # whole, judged so before; recovery publishes it
    name: str = ""  # output name it should have had
    mime: str = ""
    fault: str = ""
    status: int | None = None
    code: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One kept body. `facts` None: its small file beside is missing."""

    ledger_id: str | None  # None: kept by a version that did not write it down
    attempt: int
    sha256: str
    suffix: str
    name: str  # in rejected/
    path: Path
    size_bytes: int
    facts: Facts | None


class RejectedFolder:
    """Keeps bytes, finds them again, removes them."""

    def __init__(self, state: Tree, reserve: DiskReserve, *, ledger_id: str, onward: Bucket | None = None) -> None:
        """`onward`: where each file is moved to at once, as the state directory is one of this machine alone."""
        self._state = state
        self._reserve = reserve
        self._ledger_id = ledger_id
        self._onward = onward

    def keep(self, data: bytes, suffix: str, facts: Facts) -> str:
        """Write bytes durably; return `rejected/<name>`. Once more with freed space. Raises OSError."""
        name = f"{self._ledger_id}-{facts.attempt}-{hashlib.sha256(data).hexdigest()}{suffix}"
        try:
            self._keep_once(name, data, facts)
        except OSError:
            self._reserve.give_up()
            self._keep_once(name, data, facts)
        if self._onward is not None:
            self._send_on(name, self._onward)
        return f"{FOLDER}/{name}"

    def _send_on(self, name: str, bucket: Bucket) -> None:
        """Move a file and its facts into the bucket; its bytes stay here where that does not take them."""
        with self._state.directory(FOLDER) as fd:
            for each in (name + FACTS, name):  # a body is never there without its facts
                path = f"{APART}{self._ledger_id}/{each}"
                try:
                    with contextlib.suppress(ObjectExists):
                        bucket.put_new(path, read_all(self._state.disk, each, dir_fd=fd), {})
                except BucketError as error:
                    where = f"{error}; it is on {socket.gethostname()} in {self._state.root}/{FOLDER}/{name}"
                    raise OSError(errno.EIO, where) from error
                self._state.disk.unlink(each, dir_fd=fd)

    def collect(self, outputs: Tree | Bucket, *, attempt: int | None = None, are_gone: bool = False) -> None:
        """Take in what workers kept in the output. Raises OSError, BucketError.

        `attempt`: only that of one, whose call has returned: others are being written. `are_gone`: no worker is left
        that could write to the folder, so it goes too.
        """
        begin = "" if attempt is None else f"{self._ledger_id}-{attempt}-"
        if isinstance(outputs, Bucket):
            self._collect_objects(outputs, begin)
            return
        self._collect_files(outputs, begin)
        if are_gone:
            folder = apart_dir(outputs.root, self._ledger_id)
            for each in (folder / FOLDER, folder):
                with contextlib.suppress(OSError):  # it is not there, or somebody uses it
                    each.rmdir()

    def _collect_objects(self, bucket: Bucket, begin: str) -> None:
        for found in list(bucket.listing(f"{APART}{self._ledger_id}")):
            name = found.path.rpartition("/")[2]
            is_named = name.startswith(begin) and _APART_NAME.fullmatch(name) is not None
            data = bucket.read(found.path) if is_named else None
            if data is not None:
                self._take_in(name, data)
                bucket.delete(found.path)

    def _collect_files(self, outputs: Tree, begin: str) -> None:
        folder = f"{APART}{self._ledger_id}/{FOLDER}"
        with contextlib.suppress(FileNotFoundError), outputs.directory(folder) as fd:
            for name in os.listdir(fd):  # noqa: PTH208 - of a descriptor
                if not name.startswith(begin) or not _APART_NAME.fullmatch(name):
                    continue
                data = read_all(outputs.disk, name, dir_fd=fd)
                if name.endswith(FACTS) or hashlib.sha256(data).hexdigest() in name:  # else it is torn
                    self._take_in(name, data)
                    outputs.disk.unlink(name, dir_fd=fd)

    def _take_in(self, name: str, data: bytes) -> None:
        """Write a file that a worker kept elsewhere, under its name there."""
        with self._state.directory(FOLDER, create=True) as fd:
            self._write(fd, name, data)
            self._state.sync(fd)

    def find_image(self, attempt: int) -> Rejected | None:
        """Return the whole image that an attempt brought and that waits here for its name."""
        begin, folder = f"{self._ledger_id}-{attempt}-", self._state.root / FOLDER
        names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - others may go while we look
        for name in names:
            if name.startswith(begin) and _NAME.fullmatch(name):
                kept = _described(self._state.root / FOLDER / name)
                if kept.facts is not None and kept.facts.is_image:
                    return kept
        return None

    def _keep_once(self, name: str, data: bytes, facts: Facts) -> None:
        with self._state.directory(FOLDER, create=True) as fd:
            self._write(fd, name, data)
            self._write(fd, name + FACTS, msgspec.json.format(msgspec.json.encode(facts)))
            self._state.sync(fd)

    def _write(self, dir_fd: int, name: str, data: bytes) -> None:
        disk = self._state.disk
        with contextlib.suppress(FileNotFoundError):
            if read_all(disk, name, dir_fd=dir_fd) == data:
                return  # kept by an earlier start; what is safe is not touched
            disk.unlink(name, dir_fd=dir_fd)  # our own, half written: the name is the hash of what it should be
        write_new(disk, name, data, dir_fd=dir_fd, mode=0o600)

    def drop(self, name: str) -> None:
        """Remove a body and its facts; recovery has published it."""
        with self._state.directory(FOLDER) as fd:
            for each in (name, name + FACTS):
                with contextlib.suppress(FileNotFoundError):
                    self._state.disk.unlink(each, dir_fd=fd)


def list_rejected(state_dir: Path) -> Iterator[Rejected]:
    """Walk what was kept, oldest attempt first; other files there are passed over."""
    try:
        paths = [path for path in (state_dir / FOLDER).iterdir() if _NAME.fullmatch(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from sorted(map(_described, paths), key=lambda kept: (kept.attempt, kept.name))


def _described(path: Path) -> Rejected:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return Rejected(
        ledger_id=match[1],
        attempt=int(match[2]),
        sha256=match[3],
        suffix=match[4],
        name=path.name,
        path=path,
        size_bytes=path.lstat().st_size,
        facts=_facts(path.with_name(path.name + FACTS)),
    )


def _facts(path: Path) -> Facts | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Facts)
    except (OSError, msgspec.DecodeError):
        return None
