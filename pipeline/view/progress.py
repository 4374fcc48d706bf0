"""The progress of a run (done, pace, time left, last failures): a few lines redrawn in place, plain lines, or nothing.

Rich refreshes ten times a second in its own thread, which only reads. Plain lines: one at most in `every_s` seconds,
written when something happens, so that an idle process stays silent. A terminal or stream that closes ends the view,
never the run. Spend is shown from the gauge.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pipeline.engine.events import (
    Event,
    Gauge,
    Halted,
    Paused,
    RetryScheduled,
    RunEnded,
    RunStarted,
    RunSummary,
    StagePlanned,
    TaskEnded,
)
from pipeline.errors import Exit
from pipeline.model import TaskState
from pipeline.text import clipped, count, duration, money, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text


_WINDOW_S = 60.0  # pace is that of the last minute, so that a slow start is soon forgotten
_FEWEST = 3  # images before a pace is shown at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One task that ended without an image, as the last failures show it."""

    task_id: str
    state: TaskState
    reason: str


def halt_text(event: Halted) -> str:
    """Say why a run stops, and what a second signal does."""
    is_signal = event.exit in (Exit.INTERRUPTED, Exit.TERMINATED)
    return f"{event.reason}; once more to stop waiting" if is_signal else event.reason


class ProgressCounts:
    """Counts of one run. `total` is replaced by what RunStarted says."""

    def __init__(self, total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._moments: deque[float] = deque()  # of settled tasks within the window
        self.total = total
        self.skipped = 0
        self.states: Counter[TaskState] = Counter()
        self.retries = 0
        self.retry_reason = ""  # of the last one
        self.pauses = 0
        self.budget_microusd: int | None = None
        self.is_play_money = False
        self.halt_reason: str | None = None
        self.summary: RunSummary | None = None
        self.troubles: deque[Trouble] = deque(maxlen=3)

    def __repr__(self) -> str:
        return f"<ProgressCounts {self.settled}/{self.total}, {self.retries} retries>"

    def take(self, event: Event) -> None:
        """Count one event."""
        match event:
            case RunStarted():
                self.total, self.skipped = event.total, event.total - event.due
                self.is_play_money, self.budget_microusd = event.is_play_money, event.budget_microusd
            case StagePlanned():
                self.total = max(self.total, event.total)
                self.skipped = self.total - event.due
            case RetryScheduled():
                self.retries, self.retry_reason = self.retries + 1, event.reason
            case TaskEnded():
                self._settle(event)
            case Paused():
                self.pauses += 1
            case Halted():
                self.halt_reason = self.halt_reason or halt_text(event)
            case RunEnded():
                self.summary = event.summary
            case _:
                pass

    def _settle(self, event: TaskEnded) -> None:
        self.states[event.state] += 1
        if event.state is TaskState.DONE:
            self._moments.append(self._clock())
        elif event.state is not TaskState.PENDING:
            self.troubles.append(Trouble(task_id=event.task_id, state=event.state, reason=event.reason))

    @property
    def settled(self) -> int:
        """Tasks that need nothing more from this run, those done before it included."""
        return self.skipped + sum(n for state, n in self.states.items() if state is not TaskState.PENDING)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the view was made."""
        return self._clock() - self._began

    @property
    def per_second(self) -> float | None:
        """Images a second over the last minute; None while there are too few to tell."""
        now = self._clock()
        while self._moments and self._moments[0] < now - _WINDOW_S:
            self._moments.popleft()
        span = min(now - self._began, _WINDOW_S)
        return len(self._moments) / span if len(self._moments) >= _FEWEST and span > 0 else None

    @property
    def left_s(self) -> float | None:
        """Seconds to go at the present pace; None while nobody can tell."""
        pace = self.per_second
        return None if pace is None else max(self.total - self.settled, 0) / pace


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class PlainProgress:
    """A listener that writes `progress: 120/1,000 ...` lines; without a stream it shows nothing."""

    def __init__(
        self,
        *,
        total: int,
        gauge: Callable[[], Gauge],
        stream: Stream | None,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 10.0,
    ) -> None:
        self._tally = ProgressCounts(total, clock)
        self._gauge = gauge
        self._stream = stream
        self._clock = clock
        self._every_s = every_s
        self._last = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, event: Event) -> None:
        self._tally.take(event)
        now = self._clock()
        if isinstance(event, RunStarted):
            self._last = now
        elif isinstance(event, RunEnded) or now - self._last >= self._every_s:
            self._last = now
            self._write(progress_line(self._tally, self._gauge()))

    def _write(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # the reader has gone, or the stream is closed: images matter more than lines
            self._stream = None


def progress_line(tally: ProgressCounts, gauge: Gauge) -> str:
    """Return `progress: 120/1,000, 4.1/s, 12 of 24 in flight, $4.68, 2 failed, 3 min 34 s to go`."""
    parts = [f"progress: {tally.settled:,}/{tally.total:,}"]
    if tally.per_second is not None:
        parts.append(f"{tally.per_second:.1f}/s")
    parts.append(f"{gauge.in_flight} of {gauge.limit} in flight")
    parts += worker_counts(gauge)
    parts.append(spend(tally, gauge))
    parts += trouble_lines(tally)
    if tally.retries:
        parts.append(retries(tally))
    if gauge.pause_reason is not None:
        parts.append(f"paused {duration(gauge.pause_left_s)}: {clipped(gauge.pause_reason, 80)}")
    if tally.halt_reason is not None:
        parts.append(f"stopping: {clipped(tally.halt_reason, 80)}")
    elif tally.left_s is not None and tally.settled < tally.total:
        parts.append(f"{duration(tally.left_s)} to go")
    return ", ".join(parts)


def worker_counts(gauge: Gauge) -> list[str]:
    """Return `3 of 4 workers, 2 lost` where workers send."""
    workers = gauge.workers
    if workers is None:
        return []
    lost = f", {workers.lost} lost" if workers.lost else ""
    return [f"{workers.ready} of {count(workers.started, 'worker')}{lost}"]


def spend(tally: ProgressCounts, gauge: Gauge) -> str:
    """Return what is spent, what may have been, and the ceiling: `$4.68 + $0.04 unknown of $20.00`."""
    text = money(gauge.spent_microusd, tally.is_play_money)
    if gauge.unknown_microusd:
        text += f" + {money(gauge.unknown_microusd)} unknown"
    if tally.budget_microusd is not None:
        text += f" of {money(tally.budget_microusd)}"
    return text


def trouble_lines(tally: ProgressCounts) -> list[str]:
    """Return the counts that are not zero of tasks that ended without an image."""
    states = (TaskState.FAILED, TaskState.REFUSED, TaskState.UNKNOWN, TaskState.CONFLICT)
    return [f"{tally.states[state]:,} {state.value}" for state in states if tally.states[state]]


def retries(tally: ProgressCounts) -> str:
    """Return `3 retries (last: HTTP 503)`."""
    return f"{count(tally.retries, 'retry', 'retries')} (last: {clipped(tally.retry_reason, 40)})"


_REFRESH_PER_SECOND = 10
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SLOWEST = 0.1  # images a second, below which the pace is told in images a minute


class LiveProgress:
    """A listener with a live view; `with` shows and ends it."""

    def __init__(
        self, *, total: int, gauge: Callable[[], Gauge], console: "Console", clock: Callable[[], float] = time.monotonic
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

        width = max(options.max_width - len("^C"), 1)  # which a terminal writes where the cursor stands
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
        ceiling = f"{gauge.limit}" + (f" (at most {gauge.concurrency})" if gauge.limit < gauge.concurrency else "")
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
        return PlainProgress(total=total, gauge=gauge, stream=None, clock=clock)
    if mode == "rich" or (mode == "auto" and console.is_terminal and not console.is_dumb_terminal):
        return LiveProgress(total=total, gauge=gauge, console=console, clock=clock)
    return PlainProgress(total=total, gauge=gauge, stream=console.file, clock=clock)
