"""The rules of a pace one by one: canary, slow start, increase and decrease, pauses, ramp."""

import math

import pytest

from pipeline.engine.pace import Pace, Ticket
from pipeline.model import Fault
from pipeline.settings import Limits, Retry


class Bench:
    """A pace with a clock that is set by hand and a die that always shows `die`."""

    def __init__(self, *, die: float = 0.5, **limits: object) -> None:
        self.now = 100.0
        self.die = die
        settings = Limits(**{"concurrency": 100} | limits)  # type: ignore[arg-type]
        self.pace = Pace(settings, clock=lambda: self.now, random=lambda: self.die)

    def fill(self) -> list[Ticket]:
        """Start whatever may start now."""
        tickets = []
        while self.pace.delay() == 0:
            tickets.append(self.pace.started())
        return tickets

    def end(self, tickets: list[Ticket], outcome: Fault | None = None, hint_s: float | None = None) -> None:
        for ticket in tickets:
            self.pace.finished(ticket, outcome, hint_s)

    def warm(self, rounds: int) -> None:
        """Serve so many full rounds: the limit is 2 ** rounds after it."""
        for _ in range(rounds):
            tickets = self.fill()
            self.now += 1
            self.end(tickets)

    def pause(self, seconds: float) -> None:
        """Serve a full round but for one request, with which the server names a delay; let it pass."""
        first, *rest = self.fill()
        self.end([first], Fault.OUTAGE, seconds)
        self.end(rest)
        self.wait()

    def wait(self) -> float:
        """Let the time pass that the pace asks for; return it."""
        began = self.now
        while 0 < (delay := self.pace.delay()) < math.inf:
            self.now += delay
        return self.now - began


def test_canary_flies_alone_until_it_is_answered() -> None:
    bench = Bench(start=8)
    canary = bench.fill()
    assert len(canary) == 1
    assert bench.pace.delay() == math.inf
    bench.end(canary, Fault.BAD_REQUEST)
    assert len(bench.fill()) == 8


@pytest.mark.parametrize("outcome", [Fault.UNREACHABLE, Fault.SILENCE, Fault.INPUT])
def test_canary_without_an_answer_is_followed_by_another(outcome: Fault) -> None:
    bench = Bench(start=8)
    bench.end(bench.fill(), outcome)
    assert len(bench.fill()) == 1


def test_a_missing_model_keeps_the_canary_and_is_asked_for_again_after_a_pause() -> None:
    bench = Bench(start=8, die=0.0)  # H05
    waits = []
    for _ in range(3):
        bench.end(bench.fill(), Fault.MODEL_MISSING)
        waits.append(bench.wait())
    assert waits == [0.5, 1.0, 2.0]
    assert len(bench.fill()) == 1


def test_slow_start_doubles_per_round_up_to_the_ceiling() -> None:
    bench = Bench(concurrency=20)
    rounds = []
    for _ in range(6):
        tickets = bench.fill()
        rounds.append(len(tickets))
        bench.end(tickets)
    assert rounds == [1, 2, 4, 8, 16, 20]


def test_limit_that_is_not_used_up_does_not_grow() -> None:
    bench = Bench()
    bench.warm(3)
    for _ in range(20):
        bench.end([bench.pace.started()])
    assert bench.pace.limit == 8


def test_push_back_cuts_to_seven_tenths_once_per_round() -> None:
    bench = Bench()
    bench.warm(4)
    first, second, *rest = bench.fill()
    bench.end([first, second], Fault.THROTTLED)
    assert bench.pace.limit == 11  # 16 x 0.7
    bench.end(rest, Fault.THROTTLED)
    assert bench.pace.limit == 11
    bench.wait()
    bench.end([bench.pace.started()], Fault.THROTTLED)
    assert bench.pace.limit == 7


def test_limit_past_a_push_back_grows_by_one_per_round() -> None:
    bench = Bench(die=0.0)
    bench.warm(4)
    *rest, last = bench.fill()
    bench.end([last], Fault.THROTTLED)  # it took 15 in flight, not 16
    bench.end(rest)
    for _ in range(100):  # the hold is over when 45 starts might have been taken: after 90 s
        bench.end(bench.fill())
        bench.now += 0.95
    limits = []
    for _ in range(4):
        bench.end(bench.fill())
        limits.append(bench.pace.limit)
    assert limits == sorted(limits)
    assert limits[-1] - limits[0] in (3, 4)


def test_limit_stays_below_the_level_that_was_pushed_back() -> None:
    bench = Bench(die=0.0)
    bench.warm(4)
    tickets = bench.fill()
    bench.end(tickets[-1:], Fault.THROTTLED)
    bench.end(tickets[:-1])
    for _ in range(20):
        bench.end(bench.fill())
        bench.now += 1
    assert bench.pace.limit == 15


@pytest.mark.parametrize("trouble", [Fault.OUTAGE, Fault.SILENCE])
def test_trouble_pauses_growth_and_cuts_nothing(trouble: Fault) -> None:
    bench = Bench()
    bench.warm(3)
    first, *rest = bench.fill()
    bench.end([first], trouble)
    bench.end(rest)
    assert bench.pace.limit == 8
    bench.end(bench.fill())
    assert bench.pace.limit == 16


def test_fixed_ceiling_is_neither_cut_nor_learned() -> None:
    bench = Bench(concurrency=6, adaptive=False)
    bench.end(bench.fill())
    bench.end(bench.fill(), Fault.THROTTLED, 2.0)
    assert bench.pace.limit == 6
    assert bench.wait() == pytest.approx(2.1)


@pytest.mark.parametrize("die", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("outcome", [Fault.THROTTLED, Fault.OUTAGE, Fault.SILENCE])
def test_hint_holds_everyone_for_it_and_up_to_a_tenth_more(outcome: Fault, die: float) -> None:
    bench = Bench(die=die)
    bench.warm(3)
    bench.end(bench.fill(), outcome, 30.0)  # H08
    assert bench.pace.pause_reason == "the server asked for 30 s"
    assert bench.wait() == pytest.approx(30 * (1 + 0.1 * die))
    assert bench.pace.pause_left_s == 0


def test_longer_hint_wins_over_a_shorter_one_that_comes_later() -> None:
    bench = Bench(die=0.0)
    bench.warm(2)
    one, two, *_ = bench.fill()
    bench.end([one], Fault.THROTTLED, 50.0)
    bench.end([two], Fault.THROTTLED, 3.0)
    assert bench.pace.pause_left_s == pytest.approx(50)


def test_backoff_without_a_hint_doubles_from_5_to_120_seconds() -> None:
    bench = Bench(die=1.0)
    pauses = []
    for _ in range(7):  # H07
        bench.end(bench.fill()[:1], Fault.THROTTLED)
        pauses.append(bench.wait())
    assert pauses == pytest.approx([5, 10, 20, 40, 80, 120, 120])


def test_backoff_has_full_jitter() -> None:
    bench = Bench(die=0.25)
    bench.end(bench.fill(), Fault.THROTTLED)
    assert bench.pace.pause_left_s == pytest.approx(1.25)


def test_backoff_begins_anew_once_the_server_takes_requests() -> None:
    bench = Bench(die=1.0)
    for _ in range(3):
        bench.end(bench.fill()[:1], Fault.THROTTLED)
        bench.wait()
    bench.end(bench.fill())
    bench.end(bench.fill(), Fault.THROTTLED)
    assert bench.pace.pause_left_s == pytest.approx(5)


@pytest.mark.parametrize("hint_s", [0.0, -1.0, math.nan], ids=["H10-zero", "H10-negative", "H10-nan"])
def test_senseless_hint_is_backoff(hint_s: float) -> None:
    bench = Bench(die=1.0)
    bench.end(bench.fill(), Fault.THROTTLED, hint_s)
    assert bench.pace.pause_left_s == pytest.approx(5)


def test_after_a_pause_there_is_no_burst() -> None:
    bench = Bench()
    bench.warm(5)
    bench.pause(10.0)
    first = bench.fill()
    assert len(first) == 1
    bench.end(first)
    assert len(bench.fill()) == 2


def test_slow_answers_after_a_pause_do_not_stop_the_starts() -> None:
    bench = Bench()
    bench.warm(5)
    bench.pause(10.0)  # 62 were taken in the minute before it
    bench.fill()
    assert bench.wait() == pytest.approx(60 / 62)
    assert len(bench.fill()) == 1


def test_abandoned_slot_is_free_again_and_teaches_nothing() -> None:
    bench = Bench(requests_per_minute=1)
    bench.pace.abandoned(bench.fill()[0])
    assert bench.pace.in_flight == 0
    assert bench.pace.limit == 1
    assert bench.wait() == pytest.approx(61)


def test_ticket_given_back_twice_is_a_bug() -> None:
    bench = Bench()
    ticket = bench.pace.started()
    bench.end([ticket])
    with pytest.raises(KeyError):
        bench.end([ticket])


def test_repr_shows_the_state() -> None:
    bench = Bench(die=0.0)
    bench.warm(2)
    bench.end(bench.fill()[:1], Fault.THROTTLED, 3.0)
    assert repr(bench.pace) == "<Pace 3 in flight, limit 2, the server asked for 3 s>"


def test_learned_rate_spreads_starts_below_what_was_taken() -> None:
    bench = Bench(die=0.0)
    bench.warm(5)
    bench.end(bench.fill(), Fault.THROTTLED, 5.0)
    bench.wait()
    bench.end(bench.fill(), Fault.THROTTLED, 5.0)  # refused with less in flight than was taken: it counts starts
    bench.wait()
    gaps = []
    for _ in range(5):
        bench.end(bench.fill()[:1])
        gaps.append(bench.wait())
    assert gaps[1:] == pytest.approx([60 / (31 * 0.97)] * 4, rel=0.01)


def test_backoff_follows_the_waits_a_person_set() -> None:
    bench = Bench(die=1.0)
    retry = Retry(wait_initial_s=0.1, wait_max_s=0.4)
    bench.pace = Pace(Limits(), retry=retry, clock=lambda: bench.now, random=lambda: 1.0)
    pauses = []
    for _ in range(3):
        bench.end(bench.fill()[:1], Fault.THROTTLED)
        pauses.append(bench.wait())
    assert pauses == pytest.approx([0.5, 0.8, 0.8])
