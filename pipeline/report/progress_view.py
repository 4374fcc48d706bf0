"""Which progress a run shows.

In: the flags and what the terminal can do. Out: one listener that is also a context manager: a live view, plain lines
or nothing.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pipeline.engine.events import Event, Gauge
from pipeline.report.live import Live
from pipeline.report.plain import Plain

if TYPE_CHECKING:
    from rich.console import Console

Mode = Literal["auto", "rich", "plain", "none"]


class Progress(AbstractContextManager["Progress"], Protocol):
    """A listener that is shown while its `with` block lasts."""

    def __call__(self, event: Event, /) -> None: ...


class Silent:
    """No progress at all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event) -> None:
        pass


def progress(
    mode: Mode,
    *,
    total: int,
    gauge: Callable[[], Gauge],
    console: "Console",
    clock: Callable[[], float] = time.monotonic,
    is_quiet: bool = False,
) -> Progress:
    """Return the view for `--progress`; `auto` is rich on a terminal and plain elsewhere, `is_quiet` is none.

    `gauge` is read from another thread and must only read. `console` writes to stderr.
    """
    if is_quiet or mode == "none":
        return Silent()
    if mode == "rich" or (mode == "auto" and console.is_terminal and not console.is_dumb_terminal):
        return Live(total=total, gauge=gauge, console=console, clock=clock)
    return Plain(total=total, gauge=gauge, stream=console.file, clock=clock)
