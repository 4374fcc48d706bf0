"""The progress of a run (done, pace, time left, last failures): a few lines redrawn in place, plain lines, or nothing.

Rich refreshes ten times a second in its own thread, which only reads. Plain lines: one at most every `EVERY_S`, written
when something happens, so that an idle process stays silent. A terminal or stream that closes ends the view, never the
run. Spend is that of the gauge.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, Literal

from pipeline.engine import events
from pipeline.errors import Exit
from pipeline.model import TaskState
from pipeline.text import clipped, count, duration, money, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

EVERY_S: Final = 10.0  # between plain lines
_WINDOW_S: Final = 60.0  # pace is that of the last minute, so that a slow start is soon forgotten
_FEWEST: Final = 3  # images before a pace is shown at all
_SLOWEST: Final = 0.1  # images a second, below which the pace is shown in images a minute
_REFRESH_PER_SECOND: Final = 10
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def halt_text(event: events.Halted) -> str:
    """Say why a run stops, and what a second signal does."""
    is_signal = event.exit in (Exit.INTERRUPTED, Exit.TERMINATED)
    return f"{event.reason}; a second signal stops waiting" if is_signal else event.reason


class ProgressCounts:
    """Counts of one run. `total` is replaced by what RunStarted says."""

    def __init__(self, total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._moments: deque[float] = deque()  # of images within the window
        self.total = total
        self.skipped = 0
        self.states: Counter[TaskState] = Counter()
        self.retries = 0
        self.retry_reason = ""  # of the last one
        self.budget_microusd: int | None = None
        self.is_play_money = False
        self.halt_reason: str | None = None
        self.summary: events.RunSummary | None = None
        self.troubles: deque[events.TaskEnded] = deque(maxlen=3)  # the last tasks that ended without an image

    def take(self, event: events.Event) -> None:
        """Count one event."""
        match event:
            case events.RunStarted():
                self.total, self.skipped = event.total, event.total - event.due
                self.is_play_money, self.budget_microusd = event.is_play_money, event.budget_microusd
            case events.StagePlanned():
                self.total = max(self.total, event.total)
                self.skipped = self.total - event.due
            case events.RetryScheduled():
                self.retries, self.retry_reason = self.retries + 1, event.reason
            case events.TaskEnded():
                self.states[event.state] += 1
                if event.state is TaskState.DONE:
                    self._moments.append(self._clock())
                elif event.state is not TaskState.PENDING:
                    self.troubles.append(event)
            case events.Halted():
                self.halt_reason = self.halt_reason or halt_text(event)
            case events.RunEnded():
                self.summary = event.summary
            case _:
                pass

    @property
    def settled(self) -> int:
        """Tasks that need nothing more from this run, those done before it included."""
        return self.skipped + self.states.total() - self.states[TaskState.PENDING]

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
        """Seconds to go at the present pace; None while it is not known."""
        pace = self.per_second
        return None if pace is None else max(self.total - self.settled, 0) / pace


# -- what is shown, in parts --------------------------------------------------------------------------------------


def _pace(counts: ProgressCounts) -> list[str]:
    pace = counts.per_second
    if pace is None:
        return []
    return [f"{pace:.1f}/s" if pace >= _SLOWEST else f"{pace * 60:.1f}/min"]


def _workers(gauge: events.Gauge) -> list[str]:
    """Return `3 of 4 workers, 2 lost` where workers send."""
    if (workers := gauge.workers) is None:
        return []
    lost = f", {workers.lost} lost" if workers.lost else ""
    return [f"{workers.ready} of {count(workers.started, 'worker')}{lost}"]


def _spend(counts: ProgressCounts, gauge: events.Gauge) -> str:
    """Return what is spent, what may have been, and the ceiling: `$4.68 + $0.04 unknown of $20.00`."""
    text = money(gauge.spent_microusd, counts.is_play_money)
    if gauge.unknown_microusd:
        text += f" + {money(gauge.unknown_microusd)} unknown"
    if counts.budget_microusd is not None:
        text += f" of {money(counts.budget_microusd)}"
    return text


def _troubles(counts: ProgressCounts) -> list[str]:
    """Return the counts that are not zero of tasks that ended without an image."""
    states = (TaskState.FAILED, TaskState.REFUSED, TaskState.UNKNOWN, TaskState.CONFLICT)
    return [f"{counts.states[state]:,} {state}" for state in states if counts.states[state]]


def _retries(counts: ProgressCounts) -> list[str]:
    """Return `3 retries (last: HTTP 503)`."""
    if not counts.retries:
        return []
    return [f"{count(counts.retries, 'retry', 'retries')} (last: {clipped(counts.retry_reason, 40)})"]


# -- plain lines --------------------------------------------------------------------------------------------------


class ProgressLines:
    """A listener that writes `progress: 120/1,000 ...` lines."""

    def __init__(self, counts: ProgressCounts, gauge: Callable[[], events.Gauge], stream: IO[str]) -> None:
        self._counts = counts
        self._gauge = gauge
        self._stream: IO[str] | None = stream
        self._last_s = counts.elapsed_s

    def __call__(self, event: events.Event) -> None:
        self._counts.take(event)
        now_s = self._counts.elapsed_s
        if isinstance(event, events.RunStarted):
            self._last_s = now_s
        elif isinstance(event, events.RunEnded) or now_s - self._last_s >= EVERY_S:
            self._last_s = now_s
            self._write(progress_line(self._counts, self._gauge()))

    def _write(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # the reader has gone, or the stream is closed: images matter more than lines
            self._stream = None


def progress_line(counts: ProgressCounts, gauge: events.Gauge) -> str:
    """Return `progress: 120/1,000, 4.1/s, 12 of 24 in flight, $4.68, 2 failed, 3 min 34 s to go`."""
    parts = [f"progress: {counts.settled:,}/{counts.total:,}", *_pace(counts)]
    parts += [f"{gauge.in_flight} of {gauge.limit} in flight", *_workers(gauge), _spend(counts, gauge)]
    parts += [*_troubles(counts), *_retries(counts)]
    if gauge.pause_reason is not None:
        parts.append(f"paused {duration(gauge.pause_left_s)}: {clipped(gauge.pause_reason, 80)}")
    if counts.halt_reason is not None:
        parts.append(f"stopping: {clipped(counts.halt_reason, 80)}")
    elif counts.left_s is not None and counts.settled < counts.total:
        parts.append(f"{duration(counts.left_s)} to go")
    return ", ".join(parts)


# -- lines redrawn in place ---------------------------------------------------------------------------------------


@contextmanager
def _redrawn(counts: ProgressCounts, gauge: Callable[[], events.Gauge], console: "Console") -> Iterator[None]:
    from rich.console import Group
    from rich.live import Live

    view = Live(
        console=console,
        get_renderable=lambda: Group(*screen(counts, gauge(), console.width)),
        refresh_per_second=_REFRESH_PER_SECOND,
        redirect_stdout=False,  # results are for pipes
        vertical_overflow="crop",
    )
    view.start()
    try:
        yield
    finally:
        try:
            view.stop()
        except (OSError, ValueError, SystemExit):  # rich exits on a broken pipe: the view is over, the run is not
            console.quiet = True


def screen(counts: ProgressCounts, gauge: events.Gauge, width: int) -> "Iterator[Text]":
    """Yield the lines of one picture, none wider than the terminal: bar, figures, what delays it, the last failures."""
    from rich.text import Text

    room = max(width - len("^C"), 1)  # which a terminal writes at the cursor
    for parts in ([*_bar(counts, room)], _figures(counts, gauge), *_delays(counts, gauge), *_failures(counts)):
        line = Text.assemble(*parts, no_wrap=True)
        line.truncate(room, overflow="ellipsis")
        yield line


Styled = tuple[str, str]  # a text and its style


def _bar(counts: ProgressCounts, width: int) -> Iterator[Styled]:
    """`⠹ ━━━━━━━━───── 412/1,000  41 %  1 min 20 s to go`; the bar takes the space that is left, from 8 cells on."""
    summary = counts.summary
    share = counts.settled / counts.total if counts.total else 1.0
    figures = f" {counts.settled:,}/{counts.total:,}  {int(share * 100)} %  "
    if summary is not None:
        sign, figures = "✓" if summary.exit is Exit.OK else "!", f"{figures}in {duration(summary.seconds)}"
    else:
        sign = _SPINNER[int(counts.elapsed_s * _REFRESH_PER_SECOND) % len(_SPINNER)]
        left_s = counts.left_s
        figures += duration(counts.elapsed_s) if left_s is None else f"{duration(left_s)} to go"
    yield f"{sign} ", "bold"
    cells = min(width - len(figures) - 2, 40)
    if cells >= 8:
        full = int(cells * min(share, 1.0))
        yield "━" * full, "cyan" if summary is None else "green"
        yield "─" * (cells - full), "dim"
    yield figures, ""


def _figures(counts: ProgressCounts, gauge: events.Gauge) -> list[Styled]:
    """`  $4.68 of $20.00 · 4.1/s · 12 of 24 in flight · 2 failed · 3 retries (last: …)`, the most wanted first."""
    parts = [(_spend(counts, gauge), "bold"), *((text, "") for text in _pace(counts))]
    if counts.summary is None:
        most = f" (at most {gauge.concurrency})" if gauge.limit < gauge.concurrency else ""
        parts += [(text, "") for text in (f"{gauge.in_flight} of {gauge.limit}{most} in flight", *_workers(gauge))]
    parts += [(text, "red") for text in _troubles(counts)]
    parts += [(text, "yellow") for text in _retries(counts)]
    line: list[Styled] = [("  ", "")]
    for part in parts:
        line += [part] if len(line) == 1 else [(" · ", "dim"), part]
    return line


def _delays(counts: ProgressCounts, gauge: events.Gauge) -> Iterator[list[Styled]]:
    if gauge.pause_reason is not None:
        reason = clipped(gauge.pause_reason, 200)
        yield [("  paused ", "yellow"), (f"{duration(gauge.pause_left_s)}: {reason}", "")]
    if counts.halt_reason is not None and counts.summary is None:
        reason = clipped(counts.halt_reason, 200)
        yield [("  stopping ", "yellow"), (f"({gauge.in_flight} in flight are awaited): {reason}", "")]


def _failures(counts: ProgressCounts) -> Iterator[list[Styled]]:
    for event in counts.troubles:
        style = "yellow" if event.state is TaskState.REFUSED else "red"
        reason = clipped(event.reason, 200)
        yield [(f"  {event.state} ", style), (visible(event.task_id), ""), (f"  {reason}", "dim")]


Mode = Literal["rich", "plain", "none"]


@contextmanager
def progress(
    mode: Mode,
    *,
    total: int,
    gauge: Callable[[], events.Gauge],
    console: "Console",
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[events.Listener]:
    """Show a run while the block lasts; its events go to the listener that is given.

    `gauge` is read from another thread and must only read. `console` writes to stderr.
    """
    counts = ProgressCounts(total, clock)
    match mode:
        case "rich":
            with _redrawn(counts, gauge, console):
                yield counts.take
        case "plain":
            yield ProgressLines(counts, gauge, console.file)
        case "none":
            yield counts.take
