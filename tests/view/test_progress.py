import io

import pytest
from rich.console import Console

from pipeline.engine.events import Halted, Paused, RetryScheduled, RunEnded, StagePlanned
from pipeline.errors import Exit
from pipeline.model import TaskState
from pipeline.view.progress import Mode, ProgressCounts, ProgressLines, progress, screen


class ClosedStream(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


def console(width: int = 100, *, is_terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=width, color_system=None, legacy_windows=False)


def seen(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_tally_knows_pace_and_time_to_go(clock, started, ended) -> None:
    tally = ProgressCounts(clock=clock)
    tally.take(started())
    assert tally.per_second is None
    for _ in range(20):
        clock.now += 0.5
        tally.take(ended())
    assert (tally.settled, tally.per_second, tally.left_s) == (60, 2.0, 20.0)


def test_tally_counts_the_tasks_of_later_stages_when_they_are_planned(clock, started, ended) -> None:
    tally = ProgressCounts(clock=clock)
    tally.take(started(total=3, due=3))
    for _ in range(3):
        tally.take(ended())
    tally.take(StagePlanned(total=8, due=7))
    assert (tally.settled, tally.total, tally.retries) == (4, 8, 0)


def test_tally_forgets_a_slow_start(clock, started, ended) -> None:
    tally = ProgressCounts(clock=clock)
    tally.take(started())
    clock.now += 600
    for _ in range(30):
        clock.now += 1
        tally.take(ended())
    assert tally.per_second == pytest.approx(0.5)


def test_a_pending_task_is_not_settled(clock, started, ended) -> None:
    tally = ProgressCounts(clock=clock)
    tally.take(started())
    tally.take(ended(TaskState.PENDING))
    assert tally.settled == 40
    assert not tally.troubles


def test_plain_writes_a_line_every_so_often(clock, started, ended, gauge) -> None:
    stream = io.StringIO()
    plain = ProgressLines(ProgressCounts(clock=clock), gauge, stream)
    plain(started())
    for _ in range(45):
        clock.now += 0.5
        plain(ended())
    lines = stream.getvalue().splitlines()
    assert lines[0] == "progress: 60/100, 2.0/s, 12 of 16 in flight, $0.62 of $20.00, 20 s to go"
    assert len(lines) == 2


def test_plain_ends_with_a_line(clock, started, ended, gauge, summary) -> None:
    stream = io.StringIO()
    plain = ProgressLines(ProgressCounts(clock=clock), gauge, stream)
    for event in (started(), ended(), ended(TaskState.FAILED), RunEnded(summary=summary())):
        plain(event)
    assert stream.getvalue() == "progress: 42/100, 12 of 16 in flight, $0.62 of $20.00, 1 failed\n"


def test_r18_a_closed_stream_ends_the_lines_and_not_the_run(clock, started, summary, gauge) -> None:
    plain = ProgressLines(ProgressCounts(clock=clock), gauge, ClosedStream())
    plain(RunEnded(summary=summary()))
    plain(RunEnded(summary=summary()))
    assert plain._stream is None


def test_live_shows_what_holds_the_run_up(clock, started, ended, gauge) -> None:
    terminal = console()
    paused = gauge(pause_reason="Retry-After", pause_left_s=37.0)
    with progress("rich", total=100, gauge=lambda: paused, console=terminal, clock=clock) as view:
        view(started(is_play_money=True))
        view(ended(TaskState.REFUSED, "posters/oslo", "IMAGE_SAFETY"))
        view(RetryScheduled(task_id="a", number=1, wait_s=1.0, reason="outage"))
        view(Paused(reason="Retry-After", seconds=37.0))
        view(Halted(exit=Exit.TRY_LATER, reason="quota used up"))
    text = seen(terminal)
    for part in (
        "41/100",
        "play $0.62 of $20.00",
        "12 of 16 (at most 24) in flight",
        "1 refused",
        "1 retry (last: outage)",
    ):
        assert part in text
    assert "paused 37 s: Retry-After" in text
    assert "stopping (12 in flight are awaited): quota used up" in text
    assert "refused posters/oslo  IMAGE_SAFETY" in text


def test_live_leaves_its_last_screen_as_the_summary(clock, started, gauge, summary) -> None:
    terminal = console()
    with progress("rich", total=100, gauge=gauge, console=terminal, clock=clock) as view:
        view(started())
        view(RunEnded(summary=summary()))
    last = "\n".join(seen(terminal).splitlines()[-3:])
    assert "✓" in last
    assert "in 1 min 12 s" in last
    assert "in flight" not in last


@pytest.mark.parametrize("width", [20, 40, 79, 200])
def test_live_never_writes_wider_than_the_terminal(clock, started, ended, gauge, width: int) -> None:
    counts = ProgressCounts(clock=clock)
    counts.take(started())
    counts.take(ended(TaskState.FAILED, "posters/" + "x" * 300, "no\n\x1b[2J" * 40))
    terminal = console(width)
    terminal.print(*screen(counts, gauge(), width), sep="\n")
    lines = seen(terminal).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= width


def test_r18_a_terminal_that_goes_away_ends_the_view_and_not_the_run(clock, gauge) -> None:
    terminal = console()
    with progress("rich", total=1, gauge=gauge, console=terminal, clock=clock):
        terminal.file = ClosedStream()
    assert terminal.quiet


@pytest.mark.parametrize(("mode", "lines"), [("rich", 2), ("plain", 1), ("none", 0)])
def test_progress_follows_its_flag(gauge, summary, mode: Mode, lines: int) -> None:
    terminal = console(is_terminal=False)
    with progress(mode, total=1, gauge=gauge, console=terminal) as view:
        view(RunEnded(summary=summary()))
    assert len(seen(terminal).splitlines()) == lines
