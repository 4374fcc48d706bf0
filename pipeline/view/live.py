"""Progress on a terminal: a few lines redrawn in place, and the choice between them, plain lines and nothing.

Rich refreshes ten times a second in its own thread, which only reads. The last screen stays. A terminal that closes
ends the view, never the run.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pipeline.engine.events import Event, Gauge
from pipeline.model import TaskState
from pipeline.text import clipped, duration, visible
from pipeline.view.progress import PlainProgress, ProgressCounts, retries, spend, trouble_lines, worker_counts

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text


_REFRESH_PER_SECOND = 10
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SLOWEST = 0.1  # images a second, below which the pace is told in images a minute


class LiveProgress:
    """A listener with a live view; `with` shows and ends it."""

    def __init__(
        self,
        *,
        total: int,
        gauge: Callable[[], Gauge],
        console: "Console",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.live import Live as View

        self._tally = ProgressCounts(total, clock)
        self._gauge = gauge
        self._view = View(
            self,
            console=console,
            refresh_per_second=_REFRESH_PER_SECOND,
            redirect_stdout=False,  # results are for pipes
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._view.stop()
        except (OSError, ValueError, SystemExit):  # rich exits on a broken pipe: the view is over, the run is not
            self._view.console.quiet = True

    def __call__(self, event: Event) -> None:
        self._tally.take(event)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        width = max(
            options.max_width - len("^C"), 1
        )  # a terminal writes that where the cursor stands: at our last sign
        for line in screen(self._tally, self._gauge(), width):
            line.truncate(width, overflow="ellipsis")
            line.no_wrap = True
            yield line if line else Text(" ")


def screen(tally: ProgressCounts, gauge: Gauge, width: int) -> Iterator["Text"]:
    """Yield the lines of one picture: bar, pace and money, what holds it up, the last failures."""
    from rich.text import Text

    yield _bar(tally, width)
    yield _pace(tally, gauge)
    if gauge.pause_reason is not None:
        reason = clipped(gauge.pause_reason, 200)
        yield Text.assemble(("  paused ", "yellow"), f"{duration(gauge.pause_left_s)}: {reason}")
    if tally.halt_reason is not None and tally.summary is None:
        reason = clipped(tally.halt_reason, 200)
        yield Text.assemble(("  stopping ", "yellow"), f"({gauge.in_flight} in flight are awaited): {reason}")
    for trouble in tally.troubles:
        style = "yellow" if trouble.state is TaskState.REFUSED else "red"
        reason = clipped(trouble.reason, 200)
        yield Text.assemble((f"  {trouble.state.value} ", style), visible(trouble.task_id), (f"  {reason}", "dim"))


def _bar(tally: ProgressCounts, width: int) -> "Text":
    """`⠹ ━━━━━━━━───── 412/1,000  41 %  1 min 20 s to go`; the bar takes what room is left, from 8 cells on."""
    from rich.text import Text

    share = tally.settled / tally.total if tally.total else 1.0
    figures = f" {tally.settled:,}/{tally.total:,}  {int(share * 100)} %"
    if tally.summary is not None:
        figures += f"  in {duration(tally.summary.seconds)}"
    elif tally.left_s is not None:
        figures += f"  {duration(tally.left_s)} to go"
    else:
        figures += f"  {duration(tally.elapsed_s)}"
    room = min(width - len(figures) - 2, 40)
    text = Text.assemble((_sign(tally) + " ", "bold"))
    if room >= 8:
        full = int(room * min(share, 1.0))
        text.append("━" * full, style="green" if tally.summary is not None else "cyan")
        text.append("─" * (room - full), style="dim")
    text.append(figures)
    return text


def _sign(tally: ProgressCounts) -> str:
    if tally.summary is None:
        return _SPINNER[int(tally.elapsed_s * _REFRESH_PER_SECOND) % len(_SPINNER)]
    return "✓" if int(tally.summary.exit) == 0 else "!"


def _pace(tally: ProgressCounts, gauge: Gauge) -> "Text":
    """`  $4.68 of $20.00 · 4.1/s · 12 of 24 in flight · 2 failed · 3 retries (last: …)`, the most wanted first."""
    from rich.text import Text

    parts = [Text(spend(tally, gauge), style="bold")]
    pace = tally.per_second
    if pace is not None:
        parts.append(Text(f"{pace:.1f}/s" if pace >= _SLOWEST else f"{pace * 60:.1f}/min"))
    if tally.summary is None:
        ceiling = (
            f"{gauge.limit} (at most {gauge.concurrency})" if gauge.limit < gauge.concurrency else f"{gauge.limit}"
        )
        parts.append(Text(f"{gauge.in_flight} of {ceiling} in flight"))
        parts += map(Text, worker_counts(gauge))
    parts += [Text(part, style="red") for part in trouble_lines(tally)]
    if tally.retries:
        parts.append(Text(retries(tally), style="yellow"))
    line = Text("  ")
    for part in parts:
        line.append(" · " if line.plain.strip() else "", style="dim").append_text(part)
    return line


Mode = Literal["auto", "rich", "plain", "none"]


class Progress(AbstractContextManager["Progress"], Protocol):
    """A listener that is shown while its `with` block lasts."""

    def __call__(self, event: Event, /) -> None: ...


class SilentProgress:
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
        return SilentProgress()
    if mode == "rich" or (mode == "auto" and console.is_terminal and not console.is_dumb_terminal):
        return LiveProgress(total=total, gauge=gauge, console=console, clock=clock)
    return PlainProgress(total=total, gauge=gauge, stream=console.file, clock=clock)
