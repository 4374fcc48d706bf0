"""Standard streams as a parent may hand them over: closed, full, or a pipe whose reader has left.

In: descriptors 0 to 2. Out: three streams that can be written to, and an exit code that only results can change: what
is said on stderr is lost silently, results that a full disk does not take are no success, and a reader that has seen
enough (`imgpipe status | head -1`) is none of our failures. It knows no command.
"""

import io
import os
import select
import sys
from contextlib import suppress
from typing import Final, TextIO

from pipeline.errors import Exit

STANDARD: Final = (0, 1, 2)


class Unheard(io.TextIOWrapper):
    """A stream whose failures reach nobody: the first one ends it."""

    def write(self, text: str) -> int:
        """Write, or let it go."""
        with suppress(OSError):
            return super().write(text)
        mute(self)
        return len(text)

    def flush(self) -> None:
        """Flush, or let it go."""
        try:
            super().flush()
        except OSError:
            mute(self)


def settle() -> None:
    """Open what the parent closed, so that no other file gets its number, and let nobody stumble over stderr."""
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = _standard(0, "r")
    if sys.stdout is None:
        sys.stdout = _standard(1, "w")
    if sys.stderr is None:
        sys.stderr = _standard(2, "w")
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        sys.stderr = Unheard(
            sys.stderr.buffer, encoding=sys.stderr.encoding, errors=sys.stderr.errors, write_through=True
        )


def _standard(number: int, mode: str) -> TextIO:
    stream = os.fdopen(number, mode, encoding="utf-8", closefd=False)
    assert isinstance(stream, io.TextIOWrapper)
    return stream


def mute(stream: TextIO) -> None:
    """Let what is written to a stream, and what waits in it, go nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def has_reader_left() -> bool:
    """Say whether stdout is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no descriptor: a test's stream
        return False


def leave(exit_code: int) -> int:
    """Bring results out; return the exit code that then holds."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        mute(sys.stdout)
    except OSError as error:
        mute(sys.stdout)
        print(f"imgpipe: the results could not be written: {error.strerror}", file=sys.stderr)
        return Exit.STORAGE if exit_code == Exit.OK else exit_code
    return exit_code
