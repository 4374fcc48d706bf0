"""Standard streams, encoding and signals of the process, as its parent set them up; results printed as JSON.

Encoding: names and prompts are UTF-8 whatever the locale says. Python does that by itself for C and POSIX; for every
other locale the command is started again, once, in Python's UTF-8 mode. So a file gets the same name from a terminal
and from cron.

Streams: descriptors 0 to 2 may be closed, full, or a pipe whose reader has gone. Lost output on stderr is ignored, and
what its reader leaves in the pipe during a run is dropped; results that a full disk does not take are an error; a
reader that closed early (`imgpipe status | head -1`) is none.

Signals: before a run has its own handlers, Ctrl-C ends the process without a traceback, but never in the middle of an
import (the C code of some modules swallows the exception or makes another one of it); after a run, signals do not
interrupt Python's shutdown, which joins threads that still work.
"""

import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final, NoReturn, TextIO

from pipeline.errors import Exit
from pipeline.text import visible


def ensure_utf8() -> None:
    """Start this very command again in UTF-8 mode where file names would not be UTF-8; does not return then."""
    if sys.getfilesystemencoding().lower().replace("-", "") != "utf8" and not sys.flags.utf8_mode:
        command = [sys.executable, "-P", "-X", "utf8", "-m", "pipeline", *sys.argv[1:]]
        os.execv(sys.executable, list(map(os.fsencode, command)))  # noqa: S606 - ourselves


ROOM_MS: Final = 200  # that the reader of stderr has before a line is dropped
TERMINAL_TAKES, PIPE_TAKES = 40, 600  # characters, of up to 6 bytes, that are written at once where there is any room
STANDARD: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}  # descriptors 0, 1, 2


class SilencedStream(io.TextIOWrapper):
    """A stream whose failures are ignored: the first one ends its output."""

    patience_ms: int | None = None  # None: a line waits until it is read

    def write(self, text: str) -> int:
        """Write text, with `patience_ms` only as much as there is room for. Raises TypeError for bytes."""
        with suppress(OSError):
            if self.patience_ms is None or not text:  # click writes b"" and expects a TypeError of a text stream
                return super().write(text)
            most = TERMINAL_TAKES if self.isatty() else PIPE_TAKES
            for start in range(0, len(text), most):
                if start > 0:
                    super().flush()
                if not self._has_room():
                    break
                super().write(text[start : start + most])
            return len(text)
        mute(self)
        return len(text)

    def _has_room(self) -> bool:
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        has_room = bool(poll.poll(self.patience_ms))
        self.patience_ms = ROOM_MS if has_room else 0
        return has_room

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            mute(self)


def repair_streams() -> None:
    """Open what the parent closed, so that no other file gets its number; ignore failures of stderr."""
    for number, (name, mode) in enumerate(STANDARD.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        sys.stderr = SilencedStream(
            sys.stderr.buffer, encoding=sys.stderr.encoding, errors=sys.stderr.errors, write_through=True
        )


@contextmanager
def dropping_unread() -> Iterator[None]:
    """Meanwhile, drop what nobody reads of stderr: a full pipe or a stopped terminal would hold up run and signals."""
    stream = sys.stderr
    if isinstance(stream, SilencedStream):
        stream.patience_ms = ROOM_MS
    try:
        yield
    finally:
        if isinstance(stream, SilencedStream):
            stream.patience_ms = None


def mute(stream: TextIO) -> None:
    """Discard what is written to a stream from here on, and what its buffer holds."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def has_reader_left() -> bool:
    """Say whether stdout is a pipe whose reader has closed it."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no descriptor: a test's stream
        return False


def flush_results(exit_code: int) -> int:
    """Write out buffered results; return the exit code that then holds."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        mute(sys.stdout)
    except OSError as error:
        mute(sys.stdout)
        print(f"imgpipe: the results could not be written: {error.strerror}", file=sys.stderr)
        return Exit.STORAGE if exit_code == Exit.OK else exit_code
    return exit_code


def print_json(document: object) -> None:
    """Write one JSON document on one line to stdout; what JSON does not have (a path) as text."""
    import msgspec

    try:
        text = msgspec.json.encode(document, enc_hook=str).decode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: escaped, as JSON may
        import json

        text = json.dumps(document, default=partial(msgspec.to_builtins, enc_hook=str), separators=(",", ":"))
    print(text)


def print_left(left: Iterable[tuple[str, str]]) -> None:
    """Write what was left undone, each with its reason, to stderr."""
    for name, reason in left:
        print(f"left: {visible(name)}: {visible(reason)}", file=sys.stderr)


NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPORTS: Final = "<frozen importlib._bootstrap>"
PATIENCE_S: Final = 0.5


def handle_interrupts() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, except while something is imported: then it ends the process."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # the parent has it ignored
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTS:
            os._exit(Exit.INTERRUPTED)  # nothing was sent: a run has handlers of its own by then
        frame = frame.f_back
    raise KeyboardInterrupt


def end_on_next_signal(code: int) -> None:
    """From here on a signal ends the process with `code`, at once: only output is left, which may be stuck.

    A signal that the parent had ignored stays ignored.
    """
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: os._exit(code))


def end_process(code: int) -> NoReturn:
    """End the process without Python's shutdown, which takes 6 ms and in which a thread that still works would crash.

    By now everything that lasts is written. Threads that are about to end get `PATIENCE_S`; one that waits for a name
    server may take minutes, and one that a signal kept from starting never ends.
    """
    deadline = time.monotonic() + PATIENCE_S
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.is_alive() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    sys.stderr.flush()
    os._exit(code)
