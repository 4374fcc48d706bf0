"""The rules of the throttle one by one: canary, slow start, closures, probes, what they teach, giving up."""

import math

import pytest

from pipeline.engine.limit_search import Growth
from pipeline.engine.starts import Ticket
from pipeline.engine.throttle import Throttle
from pipeline.errors import Exit
from pipeline.model import Billed, Failure, Fault
from pipeline.settings import Limits, Retry
from tests.engine.fakes import failure


def answered(status: int, hint_s: float | None = None) -> Failure:
    fault = Fault.THROTTLED if status == 429 else Fault.OUTAGE
    return Failure(fault=fault, billed=Billed.NO, reason=f"HTTP {status}", status=status, hint_s=hint_s)


class Bench:
    """A throttle with a clock that is set by hand and a die that always shows `die`."""

    def __init__(self, *, die: float = 0.0, retry: Retry = Retry(), **limits: object) -> None:  # noqa: B008 - frozen
        self.now = 100.0
        settings = Limits(**{"concurrency": 100} | limits)  # type: ignore[arg-type]
        self.throttle = Throttle(settings, retry=retry, clock=lambda: self.now, random=lambda: die)

    def fill(self) -> list[Ticket]:
        """Start whatever may start now."""
        tickets = []
        while self.throttle.delay() == 0:
            tickets.append(self.throttle.started())
        return tickets

    def end(self, tickets: list[Ticket], outcome: Failure | None = None) -> None:
        for ticket in tickets:
            self.throttle.finished(ticket, outcome)

    def warm(self) -> None:
        """Serve the canary in a second."""
        canary = self.fill()
        self.now += 1.0
        self.end(canary)

    def run(self, seconds: float) -> list[Ticket]:
        """Let time pass; start what may start."""
        until, tickets = self.now + seconds, self.fill()
        while (delay := self.throttle.delay()) < until - self.now:
            self.now += delay
            tickets += self.fill()
        self.now = until
        return tickets

    def wait(self) -> float:
        """Let the time pass that the throttle asks for; return it."""
        began = self.now
        while 0 < (delay := self.throttle.delay()) < math.inf:
            self.now += delay
        return self.now - began


def test_canary_is_alone_until_it_is_answered() -> None:
    bench = Bench()
    canary = bench.fill()
    assert len(canary) == 1
    assert bench.throttle.delay() == math.inf
    bench.end(canary, failure(Fault.BAD_REQUEST))
    assert bench.throttle.limit == 32


@pytest.mark.parametrize(
    "outcome",
    [Fault.UNREACHABLE, Fault.SILENCE, Fault.INPUT, Fault.LINK, Fault.NO_IMAGE, Fault.BROKEN],
)
def test_canary_without_an_answer_is_followed_by_another(outcome: Fault) -> None:
    bench = Bench()
    bench.end(bench.fill(), failure(outcome))
    assert bench.throttle.limit == 1
    assert len(bench.fill()) == 1


@pytest.mark.parametrize(("limits", "first"), [({}, 32), ({"start": 4}, 4), ({"concurrency": 8}, 8)])
def test_slow_start_begins_at_32_or_where_a_person_said(limits: dict[str, int], first: int) -> None:
    bench = Bench(**limits)
    bench.warm()
    assert bench.throttle.limit == first


def test_slow_start_grows_by_every_start_that_is_not_refused_before_an_answer_comes() -> None:
    bench = Bench(concurrency=256)
    bench.warm()
    bench.run(3.0)
    assert bench.throttle.in_flight == 256


def test_next_start_keeps_its_distance_from_when_the_last_request_went_out() -> None:
    bench = Bench(concurrency=8)
    bench.warm()
    ticket = bench.throttle.started()
    apart_s = bench.throttle.delay()
    bench.now += 0.02  # its commit
    bench.throttle.sent(ticket)
    assert apart_s > 0.05
    assert bench.throttle.delay() == pytest.approx(apart_s)


def test_what_was_refused_is_tried_again_after_k_starts_and_more_after_twice_as_many() -> None:
    growth = Growth(97.0, 3.0, starts=50.0)
    values = []
    for _ in range(200):
        growth.grow()
        values.append(growth.value)
    assert [values[n - 1] for n in (50, 100, 150)] == pytest.approx([100.0, 106.0, 118.0], rel=0.01)


def test_queue_stops_growth() -> None:
    bench = Bench(concurrency=256)
    bench.warm()
    for _ in range(12):  # answers take six times as long as the canary's
        tickets = bench.fill()[:1]
        bench.now += 6.0
        bench.end(tickets)
    limit = bench.throttle.limit
    bench.run(5.0)
    assert bench.throttle.limit == limit < 256


@pytest.mark.parametrize("die", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("outcome", [Fault.THROTTLED, Fault.OUTAGE, Fault.SILENCE])
def test_P11_named_delay_holds_everyone_for_it_and_up_to_a_tenth_more(outcome: Fault, die: float) -> None:
    bench = Bench(die=die)
    bench.warm()
    bench.end(bench.run(0.1)[:1], failure(outcome, 30.0))  # H08
    assert bench.throttle.pause_reason == "the server asked for 30 s"
    assert bench.wait() == pytest.approx(30 * (1 + 0.1 * die))


def test_P11_longer_delay_wins_over_a_shorter_one_that_comes_later() -> None:
    bench = Bench()
    bench.warm()
    one, two, *_ = bench.run(0.1)
    bench.end([one], answered(429, 50.0))
    bench.end([two], answered(429, 3.0))
    assert bench.throttle.pause_left_s == pytest.approx(50)


@pytest.mark.parametrize("hint_s", [0.0, -1.0, math.nan], ids=["H10-zero", "H10-negative", "H10-nan"])
def test_senseless_delay_is_as_good_as_none(hint_s: float) -> None:
    bench = Bench()
    bench.warm()
    bench.end(bench.run(0.1)[:1], answered(429, hint_s))
    assert bench.throttle.pause_left_s == pytest.approx(0.25)


def test_one_probe_at_a_time_in_gaps_that_grow() -> None:
    bench = Bench()
    bench.warm()
    bench.end(bench.run(0.1), answered(429))
    gaps = []
    for _ in range(5):  # H07
        gaps.append(bench.wait())
        probe = bench.fill()
        assert len(probe) == 1
        bench.end(probe, answered(429))
    assert gaps == sorted(gaps)
    assert gaps[0] == pytest.approx(0.25, abs=0.1)
    assert gaps[-1] > 5


@pytest.mark.parametrize("status", [429, 503])
def test_H07_until_a_request_is_taken_a_probe_asks_every_five_seconds_for_a_minute(status: int) -> None:
    bench = Bench()
    bench.end(bench.fill(), answered(status))
    gaps = []
    while sum(gaps) < 90:
        gaps.append(bench.wait())
        bench.end(bench.fill(), answered(status))
    assert gaps[8] == pytest.approx(5.0)
    assert sum(gaps[:9]) < 40
    assert gaps[-1] > 5


def test_probe_gaps_are_no_longer_than_the_wait_a_person_set() -> None:
    bench = Bench(retry=Retry(wait_initial_s=0.1, wait_max_s=0.4))
    bench.warm()
    bench.end(bench.run(0.1), answered(429))
    for _ in range(5):
        assert bench.wait() <= 0.6
        bench.end(bench.fill(), answered(429))


def test_probe_that_is_not_refused_in_twice_the_time_of_a_refusal_opens_the_gate() -> None:
    bench = Bench()
    bench.warm()
    refused = bench.run(0.1)[-1]
    bench.now += 0.2
    bench.end([refused], answered(429))
    bench.wait()
    probe = bench.fill()
    assert len(probe) == 1
    assert "closed" in repr(bench.throttle)
    bench.now = probe[0].at + 2 * (0.2 + 0.1)
    bench.throttle.delay()
    assert "closed" not in repr(bench.throttle)


def test_requests_sent_before_a_closure_are_held_back_and_the_probe_is_not() -> None:
    bench = Bench()
    bench.warm()
    *_, waiting, refused = bench.run(0.2)
    bench.end([refused], answered(429))
    assert bench.throttle.is_held_back(waiting)
    bench.wait()
    (probe,) = bench.fill()
    assert not bench.throttle.is_held_back(probe)


def test_starts_per_window_are_learned_from_when_refusals_begin_and_end() -> None:
    bench = Bench(concurrency=24)
    bench.warm()
    began = bench.now
    taken = bench.run(0.3)
    bench.end(taken[:-1])
    bench.end(taken[-1:], answered(429, 59.9 - (bench.now - began)))  # a minute after the first of them
    bench.wait()
    bench.end(bench.fill())
    assert f"{len(taken)} in 60 s" in repr(bench.throttle)


def test_requests_in_flight_are_learned_when_the_gate_opens_as_one_ends() -> None:
    bench = Bench()
    bench.warm()
    *taken, refused = bench.run(0.3)
    bench.end([refused], answered(429))
    bench.wait()
    bench.end(bench.fill(), answered(429))  # time alone does not help
    bench.end(taken[:1])
    bench.wait()
    bench.end(bench.fill())  # what has ended does
    assert bench.throttle.limit == len(taken)


def test_fixed_ceiling_is_neither_cut_nor_learned() -> None:
    bench = Bench(concurrency=6, adaptive=False)
    bench.warm()
    bench.end(bench.fill(), answered(429, 2.0))
    assert bench.throttle.limit == 6
    assert bench.wait() == pytest.approx(2.0)


def test_single_5xx_closes_nothing_and_five_of_twenty_do() -> None:
    bench = Bench()
    bench.warm()
    tickets = bench.run(0.2)
    for ticket in tickets[:5]:
        assert bench.throttle.pause_reason is None
        bench.end([ticket], answered(502))
    assert bench.throttle.pause_reason == "the provider is down"


def test_outage_teaches_nothing_about_the_limit() -> None:
    bench = Bench()
    bench.warm()
    tickets = bench.run(0.5)
    limit = bench.throttle.limit
    bench.end(tickets[:5], answered(502))
    bench.end(tickets[5:])
    bench.wait()
    bench.end(bench.fill())
    assert bench.throttle.limit >= limit
    assert " in " not in repr(bench.throttle).replace(" in flight", "")


def test_fast_503s_in_a_row_are_refusals_and_no_attempts_of_their_tasks() -> None:
    bench = Bench()
    bench.warm()
    judged = [bench.throttle.finished(ticket, answered(503)) for ticket in bench.run(0.2)[-5:]]
    faults = [failure.fault for failure in judged if failure is not None]
    assert faults == [*[Fault.OUTAGE] * 3, *[Fault.THROTTLED] * 2]
    assert bench.throttle.pause_reason == "the server is throttling"


def test_slow_503_is_an_outage() -> None:
    bench = Bench()
    bench.warm()
    *_, one, two = bench.run(0.2)
    bench.now += 5
    for ticket in (one, two):
        judged = bench.throttle.finished(ticket, answered(503))
        assert judged is not None
        assert judged.fault is Fault.OUTAGE


def test_a_missing_model_keeps_the_canary_and_is_asked_for_again_after_a_pause() -> None:
    bench = Bench(start=8)  # H05
    waits = []
    for _ in range(3):
        bench.end(bench.fill(), failure(Fault.MODEL_MISSING))
        waits.append(bench.wait())
    assert waits == pytest.approx([0.5, 1.0, 2.0])
    assert len(bench.fill()) == 1


@pytest.mark.parametrize("status", [502, 503])
def test_H72_ten_minutes_of_outage_without_an_image_end_the_run(status: int) -> None:
    bench = Bench()
    bench.warm()
    bench.end(bench.run(0.2), answered(status))
    began = bench.now
    while bench.throttle.verdict is None:
        bench.wait()
        bench.end(bench.fill(), answered(status))
    assert 600 <= bench.now - began < 660
    assert bench.throttle.verdict.exit is Exit.TRY_LATER


def test_nobody_reached_for_a_minute_since_the_run_began_ends_it() -> None:
    bench = Bench()
    began = bench.now
    while bench.throttle.verdict is None:
        bench.end(bench.fill(), failure(Fault.UNREACHABLE))
        bench.wait()
        bench.now += 0.01
    assert 60 <= bench.now - began < 90
    assert bench.throttle.verdict.exit is Exit.TRY_LATER


def test_who_was_reached_once_is_not_given_up_after_a_minute() -> None:
    bench = Bench()
    bench.warm()
    began = bench.now
    while bench.now - began < 120:
        bench.end(bench.fill(), failure(Fault.UNREACHABLE))
        bench.wait()
        bench.now += 0.01
    assert bench.throttle.verdict is None


def test_abandoned_slot_is_free_again_and_teaches_nothing() -> None:
    bench = Bench(requests_per_minute=1)
    bench.throttle.abandoned(bench.fill()[0])
    assert bench.throttle.in_flight == 0
    assert bench.throttle.limit == 1
    assert bench.wait() == pytest.approx(61)


def test_ticket_given_back_twice_is_a_bug() -> None:
    bench = Bench()
    ticket = bench.throttle.started()
    bench.end([ticket])
    with pytest.raises(KeyError):
        bench.end([ticket])


def test_repr_shows_the_state() -> None:
    bench = Bench()
    bench.warm()
    tickets = bench.run(0.05)
    bench.end(tickets[:1], answered(429, 3.0))
    assert (
        repr(bench.throttle) == f"<Throttle {len(tickets) - 1} in flight, limit 32, closed: the server asked for 3 s>"
    )


def test_a_rate_is_learned_where_a_single_start_was_taken() -> None:
    """It has no gap to another one: the rate became 0, and the run ended in a traceback."""
    bench = Bench(concurrency=8)
    bench.warm()
    for gap_s, seconds, outcome in [(0.005, 0.022, None), (0.3, 0.022, 429), (0.3, 0.5, 429), (1.0, 0.5, 200)]:
        bench.now += gap_s
        ticket = bench.throttle.started()
        bench.now += seconds
        if outcome is not None:
            bench.end([ticket], answered(outcome) if outcome == 429 else None)
    assert bench.throttle.delay() < 1
