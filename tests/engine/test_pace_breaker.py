"""The breaker: when it opens, how long, who may probe, and when it gives up."""

import math

import pytest

from pipeline.engine.breaker import Breaker
from pipeline.engine.pace import Pace
from pipeline.errors import Exit
from pipeline.model import Fault
from pipeline.settings import Limits


class Bench:
    """A breaker asked at a time set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.breaker = Breaker()

    def tries(self, *outcomes: Fault | None) -> None:
        for outcome in outcomes:
            ticket = object()
            self.breaker.started(ticket)
            self.breaker.finished(ticket, outcome, started_at=self.now, now=self.now)

    def open(self) -> None:
        self.tries(*[Fault.OUTAGE] * 10)

    def delay(self) -> float:
        return self.breaker.delay(self.now)


@pytest.mark.parametrize("fault", [Fault.OUTAGE, Fault.UNREACHABLE, Fault.SILENCE])
def test_ten_failures_open_it_for_30_seconds(fault: Fault) -> None:
    bench = Bench()
    bench.tries(*[fault] * 9)
    assert bench.delay() == 0
    bench.tries(fault)
    assert bench.delay() == 30


def test_half_of_twenty_open_it_less_do_not() -> None:
    bench = Bench()
    bench.tries(*[None] * 10, *[Fault.OUTAGE] * 9)
    assert bench.delay() == 0
    bench.tries(Fault.OUTAGE)
    assert bench.delay() == 30


def test_only_the_last_twenty_count() -> None:
    bench = Bench()
    bench.tries(*[Fault.OUTAGE] * 9, *[None] * 20, *[Fault.OUTAGE] * 9)
    assert bench.delay() == 0


@pytest.mark.parametrize("fault", [Fault.THROTTLED, Fault.REFUSED, Fault.BAD_REQUEST, Fault.NO_IMAGE])
def test_an_answer_is_no_failure(fault: Fault) -> None:
    bench = Bench()
    bench.tries(*[fault] * 20)
    assert bench.delay() == 0


def test_one_probe_and_nobody_else_until_it_is_judged() -> None:
    bench = Bench()
    bench.open()
    bench.now += 30
    assert bench.delay() == 0
    probe = object()
    bench.breaker.started(probe)
    assert bench.delay() == math.inf
    bench.breaker.finished(probe, None, started_at=bench.now, now=bench.now)
    assert bench.delay() == 0
    assert repr(bench.breaker) == "<Breaker closed, 0 of 0 down, 0 openings>"


def test_probe_that_was_never_sent_lets_another_probe() -> None:
    bench = Bench()
    bench.open()
    bench.now += 30
    probe = object()
    bench.breaker.started(probe)
    bench.breaker.abandoned(probe)
    assert bench.delay() == 0


def test_failed_probes_open_it_longer_and_the_fifth_gives_up() -> None:
    bench = Bench()
    bench.open()
    waits = []
    while bench.breaker.verdict is None:
        waits.append(bench.delay())
        bench.now += bench.delay()
        bench.tries(Fault.UNREACHABLE)  # H24
    assert waits == [30, 60, 90, 120]
    assert bench.breaker.verdict.exit is Exit.TRY_LATER
    assert "5 pauses in 5 minutes" in bench.breaker.verdict.reason


def test_success_between_openings_starts_the_count_anew() -> None:
    bench = Bench()
    for _ in range(8):
        bench.open()
        assert bench.delay() == 30
        bench.now += 30
        bench.tries(None)
    assert bench.breaker.verdict is None


def test_push_back_of_a_probe_closes_it_but_is_no_success() -> None:
    bench = Bench()
    bench.open()
    bench.now += 30
    bench.tries(Fault.THROTTLED)
    assert bench.delay() == 0
    bench.open()
    assert bench.delay() == 60


def test_what_was_sent_before_it_opened_is_old_news() -> None:
    bench = Bench()
    bench.open()
    bench.now += 31
    bench.tries(None)  # the probe
    for _ in range(15):
        bench.breaker.finished(object(), Fault.SILENCE, started_at=-1.0, now=bench.now)
    assert bench.delay() == 0


def test_pace_tells_why_and_how_long() -> None:
    now = 0.0
    pace = Pace(Limits(concurrency=4), clock=lambda: now, random=lambda: 0.0)
    for _ in range(10):
        pace.finished(pace.started(), Fault.UNREACHABLE, None)
    assert (pace.pause_reason, pace.pause_left_s, pace.delay()) == ("the provider is down", 30, 30)
    assert pace.verdict is None
