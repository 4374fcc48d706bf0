"""What can go wrong, sorted by what the reader does next.

ImgpipeError
 ├── InputError          fix the manifest, an input or the command line: exit 2, nothing was sent
 ├── StorageError        free space, fix the disk or the ledger: exit 5
 │    ├── LedgerError    the ledger is corrupt, foreign or newer: exit 5, the file is left as it is
 │    ├── Conflict       a file that may not be replaced is in the way of one image: that task only, the run goes on
 │    └── ClosedFolder   a directory may not be written to any more: what belongs below it waits, the run goes on
 ├── AccountError        a person must act on key, credit, address or TLS: exit 7
 └── TryLater            another run holds the lock, a quota is used up, the provider is down: exit 75

Anything else that escapes is a bug and keeps its traceback: exit 1.
"""

import copyreg
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every verb. `SEVERITY` says which one is used when several apply."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    STORAGE = 5
    ACCOUNT = 7
    BUDGET = 8
    MAX_DURATION = 10
    WORK_DUE = 20  # only `plan --detailed-exitcode`
    TRY_LATER = 75
    INTERRUPTED = 130
    TERMINATED = 143


SEVERITY: Sequence[Exit] = (
    Exit.INTERRUPTED,
    Exit.TERMINATED,
    Exit.STORAGE,
    Exit.ACCOUNT,
    Exit.BUG,
    Exit.TRY_LATER,
    Exit.BUDGET,
    Exit.MAX_DURATION,
    Exit.SOME_FAILED,
    Exit.OK,
)


def most_severe(codes: Sequence[Exit]) -> Exit:
    """Return the one exit code that is used when several apply; `Exit.OK` for none."""
    return min(codes, key=SEVERITY.index, default=Exit.OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in something a person wrote, with its place: `file:line:column: what; instead`.

    line and column count from 1; None where the source has none (a flag, a folder).
    """

    what: str
    instead: str = ""
    file: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part not in ("", None))
        line = (f"{place}: " if place else "") + self.what + (f"; {self.instead}" if self.instead else "")
        if line.isprintable():
            return line
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)  # one line stays one line


class ImgpipeError(Exception):
    """An expected failure; its text says what happened and what to do next."""

    exit_code: Exit = Exit.BUG

    def __reduce__(self) -> tuple[object, ...]:
        """Be the same error in another process (a pool, a task queue), whatever its constructor asks for."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InputError(ImgpipeError):
    """Something a person wrote is wrong; every problem found is listed, nothing was sent."""

    exit_code = Exit.USAGE

    def __init__(self, *problems: Problem | str, instead: str = "", file: object = "") -> None:
        """`instead` and `file`: what to write, and where, of a problem that is a text."""
        self.problems = tuple(
            p if isinstance(p, Problem) else Problem(what=p, instead=instead, file=str(file)) for p in problems
        )
        super().__init__("\n".join(str(p) for p in self.problems))


class StorageError(ImgpipeError):
    """The local disk did not do what was asked."""

    exit_code = Exit.STORAGE


class LedgerError(StorageError):
    """The ledger cannot be trusted or read; it was left byte for byte as it is."""


class Conflict(StorageError):  # noqa: N818 - the word of the contract
    """A file that may not be replaced is in the way of one image, which was paid for and is kept.

    `kept` is where it was kept: relative to the output directory, or `rejected/...` in the state directory.
    """

    def __init__(self, text: str, *, kept: str) -> None:
        self.kept = kept
        super().__init__(text)


class ClosedFolder(StorageError):  # noqa: N818 - as above
    """A directory below the output directory may not be written to; an image for it was paid for and is kept."""

    def __init__(self, text: str, *, folder: str) -> None:
        self.folder = folder  # relative to the output directory
        super().__init__(text)


class AccountError(ImgpipeError):
    """Key, credit, address or TLS: a person must act."""

    exit_code = Exit.ACCOUNT


class TryLater(ImgpipeError):  # noqa: N818 - reads as what to do
    """Nothing is wrong here; the same command works later."""

    exit_code = Exit.TRY_LATER

    def __init__(self, text: str, *, not_before: datetime | None = None) -> None:
        self.not_before = not_before  # when the provider may be asked again, where it said so
        super().__init__(text)
