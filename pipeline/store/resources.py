"""Opens and checks everything a store is made of, in order, from directories and settings.

On an error everything is closed again. Raises InputError for what a person must change before anything is sent,
StorageError and LedgerError for errors of the disk.
"""

import contextlib
import logging
import os
import secrets
import shlex
import sqlite3
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pipeline import __version__
from pipeline.buckets import Bucket, open_bucket
from pipeline.errors import InputError
from pipeline.model import Artifact, BucketUrl, Image, Sidecar
from pipeline.store import ledger_file, rows
from pipeline.store.bucket_writer import BucketWriter
from pipeline.store.files import Disk, closing
from pipeline.store.ledger import Ledger
from pipeline.store.ledger_file import Clock, query, to_us, utc_now
from pipeline.store.lock import make_private, read_mountinfo, refuse_network, unusable
from pipeline.store.rejected import RejectedFolder
from pipeline.store.tree import RESERVE_BYTES, DiskReserve, Tree, Warn
from pipeline.store.writer import Writer

_log: Final = logging.getLogger(__name__)
BUCKET_WORKERS: Final = 32  # images put at once: each waits for the service, not for a CPU
Beside = Callable[[Mapping[str, Any], Image], Sidecar | None]  # the record of a request, its image -> what lies beside
ImageCheck = Callable[[Mapping[str, Any], Image], tuple[Mapping[str, str], str]]  # the same -> `Artifact.flags`, `look`


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where a store lies and how it behaves. Directories are absolute and resolved; images may go to a bucket."""

    output_dir: Path | BucketUrl
    state_dir: Path
    manifest: str
    is_play_money: bool
    force: bool = False  # replace images of ours that were edited since (they go to superseded/)
    disk: Disk = field(default_factory=Disk)
    clock: Clock = utc_now
    warn: Warn = _log.warning
    reserve_bytes: int = RESERVE_BYTES
    busy_s: float = 30.0  # how long another program may lock the ledger
    workers: int = 8  # threads that write images to a folder
    bucket: Callable[[BucketUrl], Bucket] = open_bucket
    mountinfo: Callable[[], str] = read_mountinfo
    beside: Beside = lambda _record, _image: None
    check: ImageCheck = lambda _record, _image: ({}, "")

    @property
    def threads(self) -> int:
        """How many images are written at once."""
        return max(self.workers, BUCKET_WORKERS) if isinstance(self.output_dir, BucketUrl) else self.workers

    @property
    def manifest_row(self) -> dict[str, object]:
        """The manifest, and where its images are, as the ledger has them."""
        return {"manifest": self.manifest, "output": rows.relative_bytes(self.output_dir, self.state_dir)}

    def now_us(self) -> int:
        """Return the time as the ledger has it."""
        return to_us(self.clock())


@dataclass(slots=True, kw_only=True)
class ImageResources:
    """What is open where images are written: in a run's own process, or in a worker, which has no ledger."""

    settings: StoreSettings
    outputs: Tree | Bucket
    state: Tree
    reserve: DiskReserve
    ledger_id: str  # eight hex digits, in the name of every part
    onward: Bucket | None = None  # where a worker moves what it keeps
    rejected: RejectedFolder = field(init=False)
    writer: Writer | BucketWriter = field(init=False)

    def __post_init__(self) -> None:
        is_forced = self.settings.force
        self.rejected = RejectedFolder(self.state, self.reserve, ledger_id=self.ledger_id, onward=self.onward)
        if isinstance(self.outputs, Bucket):
            self.writer = BucketWriter(self.outputs, rejected=self.rejected, force=is_forced)
        else:
            reserve = self.reserve
            self.writer = Writer(self.outputs, self.state, reserve=reserve, rejected=self.rejected, force=is_forced)

    def checked(self, record: Mapping[str, Any], image: Image, artifact: Artifact) -> Artifact:
        """Do what the sender of a published image did not come to: write its sidecar, look for flags."""
        if (sidecar := self.settings.beside(record, image)) is not None:
            self.writer.write_beside(artifact, sidecar)
        flags, look = self.settings.check(record, image)
        return replace(artifact, flags=flags, look=look)

    def close_directories(self) -> None:
        """Close the directories."""
        if isinstance(self.outputs, Tree):
            self.outputs.close()
        self.state.close()


@dataclass(slots=True, kw_only=True)
class StoreResources(ImageResources):
    """What is open while a store is."""

    ledger: Ledger

    def close(self) -> None:
        """Close everything; what was handed to the ledger is committed first."""
        self.ledger.close()
        self.reserve.give_up()
        self.close_directories()


Fill = Callable[[sqlite3.Connection], object]


def open_resources(settings: StoreSettings, *, fill: Fill = lambda _: None) -> StoreResources:
    """Open directories, ledger and reserve. `fill` fills a ledger that did not exist, before it has its name."""
    refuse_network(settings.state_dir, mountinfo=settings.mountinfo)
    with contextlib.ExitStack() as undo:
        outputs, state = _trees(settings, undo)
        _prepare_ledger(state, settings, fill)
        reserve = DiskReserve(state, size_bytes=settings.reserve_bytes)
        ledger = Ledger(state.root / ledger_file.NAME, busy_s=settings.busy_s, relieve=reserve.give_up)
        undo.callback(ledger.close)
        _check_money(ledger, settings)
        reserve.load(settings.warn)
        (ledger_id,) = ledger.first("ledger_id")
        undo.pop_all()
    return StoreResources(
        settings=settings, outputs=outputs, state=state, reserve=reserve, ledger=ledger, ledger_id=ledger_id
    )


def open_worker_resources(settings: StoreSettings, *, ledger_id: str, is_apart: bool) -> ImageResources:
    """Open what a worker writes images with, for the ledger of another process, which holds the lock.

    `is_apart`: the state directory is not that of the run; what is kept there for a bucket is moved into it.
    """
    with contextlib.ExitStack() as undo:
        outputs, state = _trees(settings, undo)
        reserve = DiskReserve(state)
        reserve.share()
        onward = outputs if is_apart and isinstance(outputs, Bucket) else None
        undo.pop_all()
    return ImageResources(
        settings=settings, outputs=outputs, state=state, reserve=reserve, ledger_id=ledger_id, onward=onward
    )


def _trees(settings: StoreSettings, undo: contextlib.ExitStack) -> tuple[Tree | Bucket, Tree]:
    outputs: Tree | Bucket
    if isinstance(settings.output_dir, BucketUrl):
        outputs = settings.bucket(settings.output_dir)
    else:
        outputs = _tree(settings.output_dir, settings)
        undo.callback(outputs.close)
    make_private(settings.state_dir)
    state = _tree(settings.state_dir, settings, dir_mode=0o700)
    others = stat.S_IMODE(os.fstat(state.fd).st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    if others:
        settings.warn(
            f"{settings.state_dir} can be written by others, who could change what was paid and what is kept;"
            f" run: chmod go-w {shlex.quote(str(settings.state_dir))}"
        )
    undo.callback(state.close)
    return outputs, state


def _tree(root: Path, settings: StoreSettings, *, dir_mode: int = 0o777) -> Tree:
    """Make and open a directory, its own entry durable, and find out whether it can be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sync_entry(root, settings.disk)
        tree = Tree(root, settings.disk, warn=settings.warn, dir_mode=dir_mode)
    except OSError as error:
        raise unusable(root, error) from error
    try:
        probe = f".imgpipe-probe-{secrets.token_hex(4)}"  # workers look at once
        settings.disk.close(settings.disk.create(probe, dir_fd=tree.fd, mode=0o600))
        settings.disk.unlink(probe, dir_fd=tree.fd)
    except OSError as error:
        tree.close()
        raise unusable(root, error) from error
    return tree


def _sync_entry(root: Path, disk: Disk) -> None:
    """Make the directory's own name durable, as far as its parent lets us."""
    with contextlib.suppress(OSError), closing(disk, disk.open_dir(root.parent)) as fd:
        disk.fsync_dir(fd)


def _prepare_ledger(state: Tree, settings: StoreSettings, fill: Fill) -> None:
    version = ledger_file.check(state.root / ledger_file.NAME, busy_s=settings.busy_s)
    if version is None:
        try:
            ledger_file.create(state, lambda connection: _fill(connection, settings, fill))
        except OSError as error:
            raise unusable(settings.state_dir, error) from error
    elif (backup := ledger_file.migrate(state, version, busy_s=settings.busy_s)) is not None:
        settings.warn(f"the ledger was migrated; the old one is kept as {backup}")


def _fill(connection: sqlite3.Connection, settings: StoreSettings, fill: Fill) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    values = {"is_play_money": settings.is_play_money, "now": settings.now_us(), "version": __version__}
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(query("set_meta"), values)
    fill(connection)
    connection.execute("COMMIT")


def _check_money(ledger: Ledger, settings: StoreSettings) -> None:
    """Keep play money and real money apart for good."""
    (is_play_money,) = ledger.first("is_play_money")
    if bool(is_play_money) != settings.is_play_money:
        theirs, ours = ("play", "real") if is_play_money else ("real", "play")
        raise InputError(
            f"{settings.state_dir} keeps {theirs} money and this run would spend {ours} money; give it an output_dir"
            " and state_dir of its own"
        )
