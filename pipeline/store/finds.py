"""What a start can find, as nouns: parts on disk, whose they are, and the account of what was done about them."""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from pipeline.model import Artifact, TaskState
from pipeline.store import rows
from pipeline.store.rejected import Rejected
from pipeline.store.sql import query
from pipeline.store.tree import Tree, split
from pipeline.store.writer import PART

_PART: Final = re.compile(re.escape(PART) + r"(?:([0-9a-f]{8})-)?(\d{1,18})-([0-9a-f]{64})")
SLACK_US: Final = 60_000_000  # by which the clocks of a file server and of this machine may differ
LISTED: Final = 20  # notes of one kind; beyond, they are only counted


@dataclass(slots=True, kw_only=True)
class Recovery:
    """What a start found and did."""

    done: int = 0  # tasks of this manifest that have their image
    recovered: int = 0  # images published without a request
    unknown: int = 0  # requests of a dead process whose outcome nobody knows
    unknown_microusd: int = 0
    torn: int = 0  # half-written parts, removed
    foreign: int = 0  # parts this ledger did not write, left
    missing: list[str] = field(default_factory=list)  # ids: done, and the file is gone
    changed: list[str] = field(default_factory=list)  # ids: done, and the file was edited
    conflicts: list[str] = field(default_factory=list)  # ids: an image is kept, its name is taken
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add something a person may want to know."""
        self.notes.append(rows.text(text))


class Claimant(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt a part belongs to, and its task as it stands; the columns of `claimant`."""

    attempt: int
    attempt_state: str
    fingerprint: str
    reserved_microusd: int
    cost_microusd: int
    received: str | None  # hash of an image that got its name by a rename
    kept: str | None  # and that name
    number: int
    sent_at: int
    ended_at: int | None
    task: int
    id: str
    manifest: str
    state: TaskState
    asked: str
    name: str
    attempts: int
    maker: int | None
    path: str | None
    sha256: str | None
    mime: str | None
    width: int | None
    height: int | None
    size_bytes: int | None
    mtime_ns: int | None

    @property
    def artifact(self) -> Artifact | None:
        return rows.artifact_of(
            (self.path, self.sha256, self.mime, self.width, self.height, self.size_bytes, self.mtime_ns)
        )

    @property
    def price_microusd(self) -> int:
        """What the image cost: the settled price, else the one that was reserved."""
        return self.cost_microusd if self.attempt_state in ("ok", "paid") else self.reserved_microusd


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One part on disk, in this or in an earlier output directory."""

    tree: Tree
    folder: str
    name: str
    ledger_id: str | None  # None: the older form, without it
    attempt: int
    sha256: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


def find_parts(
    outputs: Tree, besides: Path, *, foreign: Callable[[str], None], unreadable: Callable[[OSError], None]
) -> Iterator[Found]:
    """Walk an output directory, not `besides` (the state directory) and no links.

    `foreign` is told of files that are named like parts and are none.
    """
    for folder, folders, names in os.walk(outputs.root, onerror=unreadable):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name != besides]
        relative = "" if here == outputs.root else here.relative_to(outputs.root).as_posix()
        for name in names:
            if not name.startswith(PART):
                continue
            if match := _PART.fullmatch(name):
                yield Found(
                    tree=outputs,
                    folder=relative,
                    name=name,
                    ledger_id=match[1],
                    attempt=int(match[2]),
                    sha256=match[3],
                )
            else:
                foreign(f"{relative}/{name}".lstrip("/"))


def claimant_of(connection: sqlite3.Connection, attempt: int) -> Claimant | None:
    """Look up whose image an attempt brought; None: not in this ledger."""
    cursor = connection.execute(query("claimant"), {"attempt": attempt})
    row = cursor.fetchone()
    if row is None:
        return None
    return msgspec.convert(dict(zip((column[0] for column in cursor.description), row, strict=True)), Claimant)


def is_named_part(name: str) -> bool:
    """Say whether a file is a part that names the ledger which wrote it."""
    match = _PART.fullmatch(name)
    return match is not None and match[1] is not None


def written_by(part: Found, claimant: Claimant, ledger_id: str) -> bool:
    """Say whether a part holds the image of this attempt of this ledger.

    The older form has only a number, which another ledger over the same directory gave as well. Such a part counts if
    it lies beside the task's name, is what the attempt is known to have brought, and was written while it lasted.
    """
    if part.ledger_id is not None:
        return part.ledger_id == ledger_id
    if part.folder != split(claimant.name)[0] or claimant.received not in (None, part.sha256):
        return False
    with part.tree.directory(part.folder) as fd:
        written_at = part.tree.disk.stat(part.name, dir_fd=fd).st_mtime_ns // 1000
    latest = written_at if claimant.ended_at is None else claimant.ended_at
    return claimant.sent_at - SLACK_US <= written_at <= latest + SLACK_US


def kept_by(kept: Rejected, claimant: Claimant, ledger_id: str) -> bool:
    """Say whether a kept body answered this attempt of this ledger; the older form says whose it was in its facts."""
    if kept.ledger_id is not None:
        return kept.ledger_id == ledger_id
    if kept.facts is None:
        return claimant.received == kept.sha256
    return (kept.facts.manifest, kept.facts.task) == (claimant.manifest, claimant.id)
