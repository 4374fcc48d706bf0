"""A terminal of our own: the command on a pseudo-terminal, and the screen that a person would see.

`Screen` understands what a live view writes (text, returns, cursor up, erased lines) and nothing more: a sequence it
does not know fails the test. It remembers every line that was ever written past the right edge.
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e import forked
from tests.e2e.conftest import BARE, COMMAND

_PIECE = re.compile(
    r"\x1b\[(?P<args>[?0-9;]*)(?P<verb>[A-Za-z])|(?P<plain>[^\x1b\r\n\x08]+)|(?P<sign>[\r\n\x08])", re.DOTALL
)
_IGNORED = frozenset("mhl")  # colours; cursor shown and hidden


@dataclass
class Screen:
    """Lines as they stand now, the scrolled ones included; it does not reflow when the width changes."""

    columns: int
    lines: list[str] = field(default_factory=lambda: [""])
    wrapped: list[str] = field(default_factory=list)  # text that did not fit on its line
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            piece = _PIECE.match(text, at)
            assert piece is not None, f"an unknown sequence: {text[at : at + 20]!r}"
            at = piece.end()
            if piece["plain"] is not None:
                self._write(piece["plain"])
            elif piece["sign"] is not None:
                self._move(piece["sign"])
            elif piece["verb"] not in _IGNORED:
                self._obey(piece["verb"], piece["args"])

    def _write(self, text: str) -> None:
        if self.column + len(text) > self.columns:
            self.wrapped.append(text)
        for sign in text:
            if self.column >= self.columns:
                self._move("\r")
                self._move("\n")
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + sign + line[self.column + 1 :]
            self.column += 1

    def _move(self, sign: str) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\x08":
            self.column = max(0, self.column - 1)
        else:
            self.row += 1
            self.lines += [""] * (self.row + 1 - len(self.lines))

    def _obey(self, verb: str, args: str) -> None:
        if verb == "A":
            self.row = max(0, self.row - int(args or 1))
        elif verb == "K":
            assert args == "2", f"erase of another kind: {args}"
            self.lines[self.row] = ""
        else:
            raise AssertionError(f"an unknown sequence: CSI {args} {verb}")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


@dataclass
class Terminal:
    """The command on a terminal of `columns`; what it writes reaches `screen` as it comes.

    It is forked where its start proves nothing: see `tests/e2e/forked.py`.
    """

    args: tuple[str | Path, ...]
    columns: int = 80
    env: Mapping[str, str] = field(default_factory=dict)
    is_forked: bool = False
    raw: str = ""

    def __post_init__(self) -> None:
        self.screen = Screen(self.columns)
        self._master, slave = pty.openpty()
        self.resize(self.columns)
        self.process = self._forked(slave) if self.is_forked else self._started(slave)
        os.close(slave)

    @property
    def _environ(self) -> dict[str, str]:
        return {**BARE, "TERM": "xterm-256color", **self.env}

    def _forked(self, slave: int) -> forked.Process:
        return forked.Process(forked.start(self.args, self._environ, (slave, slave, slave)))

    def _started(self, slave: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [str(COMMAND), *map(str, self.args)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self._environ,
            cwd="/",
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, columns: int) -> None:
        self.screen.columns = columns
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, condition: Callable[[str], bool], *, timeout: float = 30.0) -> None:
        """Read until `condition` holds for everything that was written so far."""
        deadline = time.monotonic() + timeout
        while not condition(self.raw):
            assert time.monotonic() < deadline, f"it did not come; the screen:\n{self.screen.text}"
            assert self._read() or condition(self.raw), f"it ended before; the screen:\n{self.screen.text}"

    def end(self, *, timeout: float = 30.0) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + timeout
        while self._read():
            assert time.monotonic() < deadline, f"it does not end; the screen:\n{self.screen.text}"
        os.close(self._master)
        return self.process.wait(timeout=10)

    def close(self) -> None:
        """End what still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.end()

    def _read(self) -> bool:
        """Take what has come within a tenth of a second; False at the end."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._master, 2**16)
        except OSError:  # Linux: the last one has closed the other end
            return False
        text = self._decode(data)
        self.raw += text
        self.screen.feed(text)
        return bool(data)

    def _decode(self, data: bytes) -> str:
        """Decode what is whole; halves of a letter or of a sequence wait for the rest."""
        data = self._left + data
        whole = len(data)
        found = re.search(rb"(\x1b(\[[?0-9;]*)?|[\xc0-\xff][\x80-\xbf]*)\Z", data)
        if found is not None and not _is_whole(found.group()):
            whole = found.start()
        self._left = data[whole:]
        return data[:whole].decode()

    _left: bytes = b""


def _is_whole(tail: bytes) -> bool:
    try:
        tail.decode()
    except UnicodeDecodeError:
        return False
    return not tail.startswith(b"\x1b")
