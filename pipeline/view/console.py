"""The console, and what is printed on it: sentences, lines as they are, tables.

It is part of no view, as every view and the verbs of `cli` print through it.

Words and commands to copy are never broken between lines; where there is no terminal, no line is.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeVar

from pipeline.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

T = TypeVar("T")

QUIET_S: Final = 2.0  # how long reading may take before it is counted on a terminal
COUNT_EVERY_S: Final = 0.5
_COMMAND = re.compile(r"imgpipe (?:[^\s),;`]+ ?)+")  # up to the sign that ends its part of the sentence
_GLUE = "\0"  # no text on a terminal has one: `visible` writes it out


def open_console(*, is_stderr: bool = False) -> "Console":
    """Return a console. NO_COLOR (https://no-color.org) takes bold and dim away too, not only colours."""
    from rich.console import Console

    color_system: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    if is_stderr:
        return Console(stderr=True, color_system=color_system)
    return Console(file=sys.stdout, color_system=color_system)


def is_redrawable() -> bool:
    """Say whether lines may be drawn over on stderr: a terminal, not a pipe that FORCE_COLOR takes for one."""
    is_dumb = os.environ.get("TERM") in ("dumb", "unknown")
    return sys.stderr is not None and sys.stderr.isatty() and not is_dumb and not os.environ.get("NO_COLOR")


def counted(tasks: Iterable[T], file: IO[str], clock: Callable[[], float] = time.monotonic) -> Iterator[T]:
    """Pass tasks on and count them on a line of a terminal: hashing 20,000 photographs on a network takes minutes.

    The line is gone when the stream ends, fails or is closed.
    """
    next_at, is_drawn = clock() + QUIET_S, False
    try:
        for number, task in enumerate(tasks, 1):
            if (now := clock()) >= next_at:
                next_at, is_drawn = now + COUNT_EVERY_S, True
                _draw(f"\rreading tasks: {number:,} so far", file)
            yield task
    finally:
        if is_drawn:
            _draw("\r\x1b[K", file)


def _draw(text: str, file: IO[str]) -> None:
    with suppress(OSError):  # a terminal that closes ends nothing
        print(text, end="", file=file, flush=True)


def wrapped(text: str, width: int) -> str:
    """Return `text` in lines of at most `width`, the second and later ones of a paragraph indented.

    What is longer than a line and may not be broken (a command, a path) is left to the terminal.
    """
    import textwrap

    glued = _COMMAND.sub(lambda match: match[0].rstrip().replace(" ", _GLUE) + match[0][len(match[0].rstrip()) :], text)
    lines = [
        line
        for paragraph in glued.splitlines()
        for line in textwrap.wrap(
            paragraph, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        or [""]
    ]
    return "\n".join(lines).replace(_GLUE, " ")


def say(text: str, console: "Console") -> None:
    """Print text as sentences; files and pipes get each paragraph on one line."""
    shown = wrapped(text, console.width) if console.is_terminal else text
    console.print(shown, highlight=False, markup=False, soft_wrap=True)


def show_line(text: str, console: "Console", style: str = "") -> None:
    """Print one line, unbroken however long it is, with hidden characters written out."""
    from rich.text import Text

    console.print(Text(visible(text), style), soft_wrap=True)


def table_of(*columns: tuple[str, bool], **options: Any) -> "Table":
    """Return an empty table; True: a column of numbers, to the right and never broken."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, **options)
    for header, is_number in columns:
        table.add_column(header, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table
