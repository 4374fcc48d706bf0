"""Writes an image in memory to a file under its final name; earlier images move to `superseded/` (P6).

A file that is not ours is never replaced, and nothing is deleted; moves work across file systems too. What must be
recorded between two steps is a callback, so this module does not depend on the ledger. Synchronous: one call runs in
one thread from end to end, so that cancelling the caller stops nothing.
"""

import contextlib
import errno
import itertools
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from pipeline.errors import ClosedFolder, Conflict, StorageError
from pipeline.failpoint import reach
from pipeline.model import PART, SIDECAR, Artifact, Image, Sidecar
from pipeline.store import files, rows
from pipeline.store.files import FileComparison
from pipeline.store.integrity import compare_files
from pipeline.store.rejected import Facts, RejectedFolder
from pipeline.store.tree import DiskReserve, Tree, join, split
from pipeline.text import name_key

FOLDER: Final = "superseded"
SUPERSEDED_NAME: Final = re.compile(r"(\d+)(?:\.\d+)?-.+")  # see `superseded_names`


def supersede(outputs: Tree, state: Tree, path: str, *, maker: int | None, name: str | None = None) -> str:
    """Move an image out of the way; return `superseded/<attempt>-<name>` (None: the name it has).

    Durable there before it is removed here, so that no power loss takes both. Its time becomes that of the move, from
    which `prune` counts its age. Raises OSError.
    """
    with outputs.at(path) as (source, old_name), state.directory(FOLDER, create=True) as target:
        for new_name in superseded_names(name or old_name, maker):
            try:
                _keep(outputs, old_name, new_name, source=source, target=target)
            except FileExistsError:
                if not _is_same(outputs, old_name, new_name, source=source, target=target):
                    continue
            break
        state.sync(target)
        outputs.disk.unlink(old_name, dir_fd=source)
        with contextlib.suppress(OSError):  # a share may refuse it
            state.disk.touch(new_name, dir_fd=target)
    return f"{FOLDER}/{new_name}"


def superseded_names(name: str, maker: int | None) -> Iterator[str]:
    """Yield the names that a superseded image may have, the best one first."""
    stem = f"{maker or 0}-{name}"
    return itertools.chain([stem], (f"{maker or 0}.{count}-{name}" for count in itertools.count(2)))


def _keep(outputs: Tree, name: str, new_name: str, *, source: int, target: int) -> None:
    disk = outputs.disk
    try:
        disk.link(name, new_name, dir_fd=source, new_dir_fd=target)
    except OSError as error:
        if error.errno not in files.NO_LINKS | {errno.EXDEV}:
            raise
        files.write_new(disk, new_name, files.read_all(disk, name, dir_fd=source), dir_fd=target, mode=0o666)


def _is_same(outputs: Tree, name: str, new_name: str, *, source: int, target: int) -> bool:
    """Say whether an earlier move of this very file was cut short after it arrived.

    Equal bytes count as well: sshfs and others number the links of a file as several files.
    """
    disk = outputs.disk
    old, new = files.status_of(disk, name, dir_fd=source), files.status_of(disk, new_name, dir_fd=target)
    if old is None or new is None or old.st_size != new.st_size:
        return False
    if files.is_same_file(old, new):
        return True
    return files.sha256_of(disk, name, dir_fd=source) == files.sha256_of(disk, new_name, dir_fd=target)


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One image on its way, and how far it came."""

    ledger_id: str
    attempt: int
    image: Image
    name: str  # output name without extension
    facts: Facts  # for rejected/, should it come to that
    previous: Artifact | None = None  # the task's image so far
    previous_maker: int | None = None
    received: Callable[[str], None] = lambda _: None  # called with the final path before a rename gives up the part
    is_part_whole: bool = False  # step 6 is behind it
    is_renamed: bool = False  # step 7 is, and the part is gone with it

    @property
    def part(self) -> str:
        return part_name(self.ledger_id, self.attempt, self.image.sha256)

    @property
    def path(self) -> str:
        return self.name + self.image.suffix

    @property
    def part_path(self) -> str:
        return join(split(self.path)[0], self.part)


def part_name(ledger_id: str, attempt: int, sha256: str) -> str:
    """Return the name of a part: in the target's own directory, says whose it is and what must be in it."""
    return f"{PART}{ledger_id}-{attempt}-{sha256}"


def keep(rejected: RejectedFolder, delivery: Delivery) -> str:
    """Keep an image in rejected/; return its path there. Raises StorageError."""
    try:
        return rejected.keep(delivery.image.data, delivery.image.suffix, delivery.facts)
    except OSError as error:
        why = error.strerror or error
        raise StorageError(
            f"{delivery.facts.task}: {delivery.path} could not be put, nor kept in rejected/: {why}"
        ) from error


class Writer:
    """Puts images into one output directory. Thread-safe."""

    def __init__(
        self, outputs: Tree, state: Tree, *, reserve: DiskReserve, rejected: RejectedFolder, force: bool = False
    ) -> None:
        """`force`: an image of ours that was edited since makes way too (to superseded/)."""
        self._outputs = outputs
        self._state = state
        self._disk = outputs.disk
        self._reserve = reserve
        self._rejected = rejected
        self._force = force
        self._lock = ReadWriteLock()

    def publish(self, delivery: Delivery) -> Artifact:
        """Give an image its final name durably (B3, B4); its part stays until `drop_part`.

        Raises Conflict: something that may not be replaced has the name. StorageError: the disk failed twice. Both say
        where the image was kept.
        """
        try:
            with self._lock.together():
                return self._publish_once(delivery)
        except OSError as error:
            self._reserve.give_up()
            with self._lock.alone():
                return self._second_try(delivery, error)

    def _second_try(self, delivery: Delivery, error: OSError) -> Artifact:
        """Once more with what was given up, else keep the bytes; alone, so that nobody else takes it."""
        try:
            if error.errno not in files.IN_THE_WAY:
                return self._publish_once(delivery)
        except OSError as second:
            error = second
        raise self._kept_aside(delivery, error) from error

    def drop_part(self, ledger_id: str, attempt: int, artifact: Artifact) -> None:
        """Remove the part (step 9); one that stays behind is removed by the next start."""
        with contextlib.suppress(OSError), self._outputs.at(artifact.path) as (fd, _):
            self._disk.unlink(part_name(ledger_id, attempt, artifact.sha256), dir_fd=fd)

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare a file with its record."""
        ((_, _, found),) = compare_files(self._outputs, [(None, artifact)])
        return found

    def write_beside(self, artifact: Artifact, sidecar: Sidecar) -> None:
        """Write a sidecar; somebody else's is left alone. What cannot be written stands in the ledger all the same."""
        disk = self._disk
        with contextlib.suppress(OSError), self._outputs.at(artifact.path + SIDECAR) as (fd, name):
            if files.status_of(disk, name, dir_fd=fd) is not None:
                if sidecar.mark not in files.read_all(disk, name, dir_fd=fd):
                    return
                disk.unlink(name, dir_fd=fd)
            files.write_new(disk, name, sidecar.data, dir_fd=fd, mode=0o666)

    def link(self, artifact: Artifact, new: str) -> Artifact:
        """Give an image a second name, durably. Raises FileExistsError: it is taken. OSError."""
        self._link(artifact.path, new)
        return replace(artifact, path=new)

    def unlink(self, path: str, *, renamed: str | None = None) -> None:
        """Take a name away; one that is not there is no error. `renamed`: the file's new name, which stays."""
        with self._outputs.at(path) as (fd, name):
            if files.status_of(self._disk, name, dir_fd=fd) is None:
                return
            if renamed is None or not self._is_one_entry(fd, name, renamed):
                self._disk.unlink(name, dir_fd=fd)

    def _is_one_entry(self, dir_fd: int, name: str, renamed: str) -> bool:
        """Say whether both names are one entry of a directory, on a file system that ignores case (macOS, SMB)."""
        with self._outputs.at(renamed) as (new_fd, new_name):
            if name_key(name) != name_key(new_name):
                return False
            if not files.is_same_file(self._disk.stat(".", dir_fd=dir_fd), self._disk.stat(".", dir_fd=new_fd)):
                return False
            return name == new_name or not {name, new_name} <= set(os.listdir(dir_fd))

    def move_beside(self, old: str, new: str) -> None:
        """Take a sidecar along where its new name is free."""
        with contextlib.suppress(OSError):
            self._link(old, new)
            self.unlink(old, renamed=new)

    def _link(self, old: str, new: str) -> None:
        disk = self._disk
        outputs = self._outputs
        with outputs.at(old) as (source, old_name), outputs.at(new, create=True) as (target, new_name):
            try:
                files.link_or_rename(disk, old_name, new_name, dir_fd=source, new_dir_fd=target)
            except FileExistsError:
                there = files.status_of(disk, new_name, dir_fd=target)
                if not files.is_same_file(there, files.status_of(disk, old_name, dir_fd=source)):
                    raise
                disk.rename(old_name, new_name, dir_fd=source, new_dir_fd=target)  # its case; two links stay two
            self._outputs.sync(target)

    def _publish_once(self, delivery: Delivery) -> Artifact:
        with self._outputs.at(delivery.path, create=True) as (fd, name):
            if not (delivery.is_part_whole and self._is_published(fd, delivery, name)):
                if not delivery.is_part_whole:
                    self._write_part(fd, delivery)
                self._make_way(fd, delivery)
                self._give_name(fd, delivery, name)
            reach("link")
            self._outputs.sync(fd)
            reach("dirsync")
            return rows.artifact(delivery.image, delivery.path, self._disk.stat(name, dir_fd=fd).st_mtime_ns)

    def _write_part(self, dir_fd: int, delivery: Delivery) -> None:
        """Steps 5 and 6. A descriptor whose sync failed is never synced again: its file is given up."""
        fd = self._disk.create(delivery.part, dir_fd=dir_fd)
        try:
            with files.closing(self._disk, fd):
                data = memoryview(delivery.image.data)
                files.write_all(self._disk, fd, data[: len(data) // 2])
                reach("mid-write")
                files.write_all(self._disk, fd, data[len(data) // 2 :])
                reach("write")
                self._disk.fsync(fd)
                reach("fsync")
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.unlink(delivery.part, dir_fd=dir_fd)
            raise
        delivery.is_part_whole = True

    def _is_published(self, dir_fd: int, delivery: Delivery, name: str) -> bool:
        """Say whether the final name is this part already: an earlier try came that far."""
        if files.status_of(self._disk, delivery.part, dir_fd=dir_fd) is None:
            return delivery.is_renamed and files.status_of(self._disk, name, dir_fd=dir_fd) is not None
        return _is_same(self._outputs, delivery.part, name, source=dir_fd, target=dir_fd)

    def _make_way(self, dir_fd: int, delivery: Delivery) -> None:
        """Move the task's own earlier image to superseded/, whatever its extension was."""
        old = delivery.previous
        if old is None or not self._may_be_moved(old):
            return
        self._outputs.sync(dir_fd)  # the new image is durable as a part before the old one is moved
        supersede(self._outputs, self._state, old.path, maker=delivery.previous_maker)

    def _may_be_moved(self, old: Artifact) -> bool:
        """Say whether a plain file stands there that was not edited; over one that was, the link fails."""
        try:
            with self._outputs.at(old.path) as (fd, name):
                if not stat.S_ISREG(self._disk.stat(name, dir_fd=fd).st_mode):
                    return False
                return self._force or files.sha256_of(self._disk, name, dir_fd=fd) == old.sha256
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _give_name(self, dir_fd: int, delivery: Delivery, name: str) -> None:
        """Step 7: link, or a no-replace rename where the file system has no links."""
        try:
            delivery.is_renamed |= files.link_or_rename(
                self._disk,
                delivery.part,
                name,
                dir_fd=dir_fd,
                new_dir_fd=dir_fd,
                before_rename=lambda: delivery.received(delivery.path),
            )
        except FileExistsError:
            self._outputs.sync(dir_fd)  # what is promised as kept is
            kept = delivery.part_path
            raise Conflict(
                f"{delivery.facts.task}: {delivery.path} is in the way and may not be replaced; the image was kept as"
                f" {kept}. Move that file away and run this again: the image is published without a request",
                kept=kept,
            ) from None

    def _kept_aside(self, delivery: Delivery, error: OSError) -> StorageError:
        """Keep the bytes in rejected/ and return the error to raise."""
        what = f"{delivery.facts.task}: {delivery.path} could not be written: {error.strerror or error}"
        folder, _ = split(delivery.path)
        closed = files.closed_folder(self._outputs.root, folder)
        try:
            kept = self._rejected.keep(delivery.image.data, delivery.image.suffix, delivery.facts)
        except OSError as second:
            if delivery.is_part_whole:
                return StorageError(f"{what}; the image was kept as {delivery.part} beside its place")
            return StorageError(f"{what}; it could not be kept in rejected/ either: {second.strerror or second}")
        if error.errno in files.IN_THE_WAY:
            return Conflict(
                f"{what}; a link or a file stands where a directory belongs. The image is in {kept}", kept=kept
            )
        what = f"{what}; the image is in {kept} and is published by the next run, without a request"
        if closed is None and isinstance(error, PermissionError):
            closed = folder  # some network file systems say so only when asked to write
        if not closed or closed == ".":
            return StorageError(what)
        return ClosedFolder(what, folder=closed)


class ReadWriteLock:
    """A lock for a resource that can be used in a shared or exclusive way; exclusive waiters have precedence.

    A thread whose first try failed waits to be alone, and gets everything that the others gave up.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._many = 0
        self._waiting = 0
        self._is_alone = False

    def __repr__(self) -> str:
        holders = "one alone" if self._is_alone else f"{self._many} at once"
        return f"<ReadWriteLock {holders}, {self._waiting} waiting to be alone>"

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and self._waiting == 0)
            self._many += 1
        try:
            yield
        finally:
            with self._changed:
                self._many -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work when nobody else does; never from inside `together`."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._is_alone and self._many == 0)
            self._waiting -= 1
            self._is_alone = True
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()
