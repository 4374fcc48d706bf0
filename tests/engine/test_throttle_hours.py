"""A throttle against simulated servers, in simulated time: how much of what is allowed is used, how much is refused.

The servers count requests in flight, or starts per minute (sliding window, fixed window, token bucket); what they allow
is constant, rises and falls, jumps, or is nothing at all for a while. An hour takes about a tenth of a second.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from pipeline.engine.starts import Ticket
from pipeline.engine.throttle import Throttle
from pipeline.errors import Exit
from pipeline.model import Billed, Failure, Fault
from pipeline.settings import Limits

HOUR, WARM_UP = 3600.0, 600.0
Curve = Callable[[float], float]


def flat(value: float) -> Curve:
    return lambda _: value


def wave(middle: float, swing: float) -> Curve:
    return lambda t: middle + swing * math.sin(2 * math.pi * t / HOUR)


def jumps(*values: float) -> Curve:
    return lambda t: values[int(t // 1200) % len(values)]


def with_storm(value: float, begin: float, end: float) -> Curve:
    return lambda t: 0 if begin <= t < end else value


@dataclass
class Server:
    """One that takes `allows(t)` of something; `hints` names the delay of a refusal, None for silence about it."""

    allows: Curve
    hints: Callable[[float], float | None] = lambda _: None
    outages: tuple[tuple[float, float], ...] = ()

    def arrive(self, t: float) -> Fault | None:
        if any(begin <= t < end for begin, end in self.outages):
            return Fault.OUTAGE
        return None if self.has_room(t) else Fault.THROTTLED

    def has_room(self, t: float) -> bool:
        raise AssertionError

    def leave(self) -> None:
        """A request it took is answered."""

    def allowed(self, begin: float, end: float, latency_s: float) -> float:
        steps = 1000
        per_minute = sum(self.allows(begin + (end - begin) * i / steps) for i in range(steps)) / steps
        return per_minute * (end - begin) / 60


@dataclass
class InFlight(Server):
    busy: int = 0

    def has_room(self, t: float) -> bool:
        if self.busy >= self.allows(t):
            return False
        self.busy += 1
        return True

    def leave(self) -> None:
        self.busy -= 1

    def allowed(self, begin: float, end: float, latency_s: float) -> float:
        return super().allowed(begin, end, latency_s) * 60 / latency_s


@dataclass
class Sliding(Server):
    taken: deque[float] = field(default_factory=deque)

    def has_room(self, t: float) -> bool:
        while self.taken and self.taken[0] <= t - 60:
            self.taken.popleft()
        if len(self.taken) >= self.allows(t):
            return False
        self.taken.append(t)
        return True


@dataclass
class Honest(Sliding):
    """Names the delay until its oldest start is a minute old, in whole seconds."""

    def __post_init__(self) -> None:
        self.hints = lambda t: float(max(1, math.ceil(self.taken[0] + 60 - t)))


@dataclass
class Fixed(Server):
    minute: int = -1
    taken: int = 0

    def has_room(self, t: float) -> bool:
        if (minute := int((t + 43) // 60)) != self.minute:
            self.minute, self.taken = minute, 0
        if self.taken >= self.allows(t):
            return False
        self.taken += 1
        return True


@dataclass
class Bucket(Server):
    burst: float = 5.0
    tokens: float = 5.0
    at: float = 0.0

    def has_room(self, t: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (t - self.at) * self.allows(t) / 60)
        self.at = t
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class Rehearsal:
    """What came of one: shares are of the time after the warm-up."""

    throttle: Throttle
    used: float = 0.0
    refused: float = 0.0
    refusals: int = 0
    sent: int = 0
    down: int = 0
    seconds: float = 0.0
    starts: list[float] = field(default_factory=list)


def failed(fault: Fault | None, hint_s: float | None) -> Failure | None:
    if fault is None:
        return None
    status = 429 if fault is Fault.THROTTLED else 502
    hint_s = hint_s if fault is Fault.THROTTLED else None
    return Failure(fault=fault, billed=Billed.NO, reason="no", status=status, hint_s=hint_s)


def rehearse(
    server: Server,
    *,
    latency_s: float,
    limits: Limits,
    seconds: float = HOUR,
    travel_s: float = 0.1,
    sigma: float = 0.3,
    seed: int = 1,
) -> Rehearsal:
    """Send without end for `seconds`: requests travel up to `travel_s`, wake-ups are up to 5 ms late.

    `sigma` is that of the answers' lognormal duration; at 0.0 all take as long, and rounds stay in step.
    """
    die = random.Random(seed)
    now = 0.0
    throttle = Throttle(limits, clock=lambda: now, random=die.random)
    out = Rehearsal(throttle)
    events: list[tuple[float, int, str, Ticket, Fault | None]] = []
    served = refused = count = 0
    while now < seconds and throttle.verdict is None:
        while (delay := throttle.delay()) == 0:
            ticket = throttle.started()
            out.starts.append(now)
            count += 1
            heapq.heappush(events, (now + travel_s * die.random(), count, "arrives", ticket, None))
        due = events[0][0] if events else math.inf
        assert min(due, delay) < math.inf, "nothing will ever happen again"
        now = max(now, min(due, now + delay + 0.005 * die.random()))
        while events and events[0][0] <= now:
            at, _, what, ticket, outcome = heapq.heappop(events)
            count += 1
            if what == "arrives":
                outcome = server.arrive(at)
                takes_s = die.lognormvariate(math.log(latency_s) - sigma**2 / 2, sigma) if outcome is None else 0.1
                heapq.heappush(events, (at + takes_s, count, "ends", ticket, outcome))
                continue
            if outcome is None:
                server.leave()
            served += outcome is None and now > WARM_UP
            refused += outcome is Fault.THROTTLED and now > WARM_UP
            out.refusals += outcome is Fault.THROTTLED
            out.down += outcome is Fault.OUTAGE
            throttle.finished(ticket, failed(outcome, server.hints(now)))
    out.sent, out.seconds = len(out.starts), now
    if now > WARM_UP:
        out.used = served / server.allowed(WARM_UP, now, latency_s + travel_s / 2)
        out.refused = refused / max(1, served + refused)
    return out


@dataclass
class Stray(InFlight):
    """Refuses the n-th request for no reason of its own: somebody else used the same key."""

    nth: int = 2
    count: int = 0

    def has_room(self, t: float) -> bool:
        self.count += 1
        return self.count != self.nth and super().has_room(t)


def until_the_minute(t: float) -> float:
    return 60 - (t + 43) % 60


LEARNED = {
    "in-flight-4": (lambda: InFlight(flat(4)), 3.0),
    "in-flight-8": (lambda: InFlight(flat(8)), 8.0),
    "in-flight-24": (lambda: InFlight(flat(24)), 15.0),
    "in-flight-24-hint-2s": (lambda: InFlight(flat(24), lambda _: 2.0), 8.0),
    "in-flight-wave": (lambda: InFlight(wave(20, 6)), 8.0),
    "in-flight-jumps": (lambda: InFlight(jumps(8, 24, 4)), 8.0),
    "in-flight-storm": (lambda: InFlight(with_storm(24, 900, 1500)), 8.0),
    "sliding-5": (lambda: Sliding(flat(5)), 8.0),
    "sliding-20-fast": (lambda: Sliding(flat(20)), 0.3),
    "sliding-60": (lambda: Sliding(flat(60)), 3.0),
    "sliding-60-slow": (lambda: Sliding(flat(60)), 15.0),
    "sliding-500": (lambda: Sliding(flat(500)), 8.0),
    "sliding-wave": (lambda: Sliding(wave(60, 20)), 8.0),
    "fixed-10": (lambda: Fixed(flat(10)), 3.0),
    "fixed-20-hint": (lambda: Fixed(flat(20), until_the_minute), 8.0),
    "fixed-60-hint": (lambda: Fixed(flat(60), until_the_minute), 8.0),
    "fixed-500-hint": (lambda: Fixed(flat(500), until_the_minute), 15.0),
    "fixed-wave-hint": (lambda: Fixed(wave(60, 20), until_the_minute), 8.0),
    "bucket-20": (lambda: Bucket(flat(20)), 8.0),
    "bucket-60-big": (lambda: Bucket(flat(60), burst=60, tokens=60), 8.0),
}
DEAR = {  # a push-back costs more than half a minute, or takes long to be told from another kind
    "fixed-20-hint-37s": (lambda: Fixed(flat(20), lambda _: 36.7), 8.0),
    "fixed-60-hint-37s": (lambda: Fixed(flat(60), lambda _: 36.7), 8.0),
    "sliding-jumps-hint-2s": (lambda: Sliding(jumps(60, 120, 30), lambda _: 2.0), 8.0),
    "sliding-jumps": (lambda: Sliding(jumps(60, 120, 30)), 8.0),
}


@pytest.mark.parametrize(("make", "latency_s"), LEARNED.values(), ids=LEARNED)
def test_unknown_limit_is_used_to_nine_tenths(make: Callable[[], Server], latency_s: float) -> None:
    out = rehearse(make(), latency_s=latency_s, limits=Limits(concurrency=256))
    assert out.used >= 0.9
    assert out.refused < 0.1
    assert out.refusals < 0.1 * out.sent + 20


@pytest.mark.parametrize(("make", "latency_s"), DEAR.values(), ids=DEAR)
def test_limit_that_is_dear_to_find_is_used_to_more_than_eight_tenths(
    make: Callable[[], Server], latency_s: float
) -> None:
    out = rehearse(make(), latency_s=latency_s, limits=Limits(concurrency=256))
    assert out.used >= 0.8
    assert out.refused < 0.07


IN_STEP = {  # every answer takes as long as the others: they come together, and so do the requests after them
    "in-flight-4": (lambda: InFlight(flat(4)), 3.0),
    "in-flight-8": (lambda: InFlight(flat(8)), 8.0),
    "in-flight-8-hint-1s": (lambda: InFlight(flat(8), lambda _: 1.0), 4.2),
    "in-flight-24-hint-1s": (lambda: InFlight(flat(24), lambda _: 1.0), 15.0),
    "in-flight-jumps": (lambda: InFlight(jumps(8, 24, 4)), 8.0),
    "in-flight-wave-hint-1s": (lambda: InFlight(wave(20, 6), lambda _: 1.0), 8.0),
    "sliding-20-hint-2s": (lambda: Sliding(flat(20), lambda _: 2.0), 8.0),
    "sliding-60": (lambda: Sliding(flat(60)), 3.0),
    "bucket-60": (lambda: Bucket(flat(60)), 8.0),
}


@pytest.mark.parametrize(("make", "latency_s"), IN_STEP.values(), ids=IN_STEP)
def test_rounds_that_stay_in_step_do_not_hide_what_the_server_counts(
    make: Callable[[], Server], latency_s: float
) -> None:
    out = rehearse(make(), latency_s=latency_s, limits=Limits(concurrency=256), sigma=0.0)
    assert out.used >= 0.92
    assert out.refused < 0.07


FIRST_MINUTES = {  # what is allowed per minute, and images: two minutes' worth of it
    "sliding-30": (lambda: Honest(flat(30)), 30, 3.0),
    "sliding-60": (lambda: Honest(flat(60)), 60, 3.3),
    "sliding-120": (lambda: Honest(flat(120)), 120, 3.3),
    "sliding-120-no-hint": (lambda: Sliding(flat(120)), 120, 3.3),
    "in-flight-4": (lambda: InFlight(flat(4), lambda _: 1.0), 60 * 4 / 3.05, 3.0),
    "in-flight-8": (lambda: InFlight(flat(8), lambda _: 1.0), 60 * 8 / 4.25, 4.2),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("make", "per_minute", "latency_s"), FIRST_MINUTES.values(), ids=FIRST_MINUTES)
def test_two_minutes_are_enough_to_find_an_unknown_limit_and_use_it(
    make: Callable[[], Server], per_minute: float, latency_s: float, seed: int
) -> None:
    limits = Limits(concurrency=24)
    out = rehearse(make(), latency_s=latency_s, limits=limits, seconds=120 + latency_s, sigma=0.42, seed=seed)
    images = out.sent - out.refusals
    assert images >= 0.85 * 2 * per_minute
    assert out.refusals < 0.12 * images


@pytest.mark.parametrize("nth", [2, 6, 20])
def test_one_stray_refusal_early_in_a_run_does_not_slow_it_down_for_long(nth: int) -> None:
    server = Stray(flat(24), nth=nth)
    out = rehearse(server, latency_s=8.0, limits=Limits(concurrency=24), seconds=300)
    assert out.sent > 0.5 * server.allowed(0, 300, 8.0)


def test_guess_of_a_rate_is_not_gone_back_to_after_a_trial() -> None:
    """The bucket seemed to count requests in flight, then came a guess and a trial; the run stayed at a sixth."""
    server = Bucket(flat(60), burst=60, tokens=60)
    out = rehearse(server, latency_s=8.0, limits=Limits(concurrency=256), seconds=1200, seed=22)
    assert out.used >= 0.9


TOLD = {
    "sliding": lambda rpm: Sliding(flat(rpm)),
    "fixed": lambda rpm: Fixed(flat(rpm)),
}


@pytest.mark.parametrize("rpm", [1, 10, 60, 500, 3000])
@pytest.mark.parametrize("make", TOLD.values(), ids=TOLD)
def test_told_rate_is_never_refused_and_used_to_95_percent(make: Callable[[float], Server], rpm: int) -> None:
    limits = Limits(concurrency=1000, requests_per_minute=rpm)
    out = rehearse(make(rpm), latency_s=8.0, limits=limits, seconds=1200, travel_s=0.9)
    assert out.refusals == 0
    assert out.used >= 0.95


@pytest.mark.parametrize("latency_s", [1.0, 15.0])
def test_two_outages_cost_few_requests_and_the_run_recovers(latency_s: float) -> None:
    server = InFlight(flat(8), outages=((300, 400), (500, 560)))
    out = rehearse(server, latency_s=latency_s, limits=Limits(concurrency=8))
    assert out.down < 60
    assert out.used >= 0.96


def test_provider_that_stays_down_ends_the_run_with_try_later() -> None:
    server = InFlight(flat(24), outages=((600, 4000),))  # H72
    out = rehearse(server, latency_s=8.0, limits=Limits(concurrency=24))
    assert out.throttle.verdict is not None
    assert out.throttle.verdict.exit is Exit.TRY_LATER
    assert 1200 <= out.seconds < 1240
    assert out.down < 24 + 60  # those in flight, and a probe every 12 s
