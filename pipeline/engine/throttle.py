"""When the next request may start: one flow controller that finds what the server allows, however it counts.

Two limits are kept, and the server is refusing because of one of them: requests in flight (`limit`), and starts in a
window (`Window`: so many in so many seconds, spread evenly). No window length is assumed.

1. One request, the canary, until its answer is judged. Then slow start (RFC 5681): begin at 32, and one more for each
   start that was not refused within a moment, because a refusal is quick where an image takes seconds.
2. A refusal closes the gate (a *closure*). Nobody starts before a named delay is over; where none is named, a probe
   asks after 0.25, 0.5, 1 ... s, rather when a window of a usual length would be over, and once when an answer comes.
   A probe that is not refused within twice the time of a refusal opens the gate.
3. What the closure teaches: time alone opened it, or it lasted longer than an answer takes: starts are counted. Taken
   starts / (open + closed time) is then the rate, whatever the window is (Little's law does the same for a limit in
   flight). It opened as soon as a request had ended, and never were more in flight: requests in flight are counted.
4. Between a rate that was taken and one that was refused lies the limit: halve the distance (binary search). After
   that grow a little after so many starts, faster the longer nothing is refused (CUBIC, RFC 9438), seldomer the dearer
   the last closure was and the more often the answer was the same. A latency far above the best one seen is a queue,
   and stops growth (Netflix concurrency-limits, gradient).
5. Other 5xx, silence and connections that fail: five of the last twenty close the gate, and teach nothing. A 503 that
   comes fast is a refusal when two follow on each other, without a start that was taken between them.

Nothing here sleeps or sends: the clock and the die are parameters. `Gate` is the one async front.
"""

import asyncio
import math
import random as dice
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pipeline.engine.halt import Halt
from pipeline.errors import Exit
from pipeline.model import UNSENT, Failure, Fault
from pipeline.settings import Limits, Retry

Sleep = Callable[[asyncio.Event, float], Awaitable[None]]

FIRST = 32  # in flight, after the canary
QUIET_S, QUIET_SHARE = 0.25, 1 / 16  # a start not refused for so long, or for this share of an answer's time, is taken
SPREAD_SHARE = 0.8  # of an answer's time over which as many starts as may be in flight are spread
SOON_S = 0.001  # the least wait worth telling: a rounding error must not become a busy loop
SPREAD = 0.1  # of a delay, added at random: many clients were told the same second

PROBE_S, PROBE_FAST_S, PROBE_CAP_S = 0.25, 1.0, 20.0  # gaps: the first, doubled up to, at most
MANY = 100  # starts that were taken: with so many, gaps grow slowly; with half as many, twice as fast
PROBES = 500.0  # a gap of this / (starts taken) seconds is long enough, but none under 5 s
USUAL_S = (1, 2, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1800, 3600)  # lengths that people choose
LATE_S = 0.1  # how much later than a window's end a probe asks

LOOSE_S = 60.0  # for a rate whose window is not clear
LONG_S = 2.0  # and an answer's time: a closure longer than both is about starts
FEW = 8  # starts that were taken: too few to believe the first closure, another run may have used the quota
SAME = 0.05  # of a level: refused at the same one again
NEAR = 0.9  # of a level: the same
FEW_IN_FLIGHT = 0.4  # of the limit: hardly a limit in flight that names a delay
MOST_CUT, SOFT_CUT, LEAST_CUT = 0.9, 0.93, 0.97
HARD_CUT = 0.7  # when two closures follow on each other

GROWTH, GROWTH_CAP = 0.05, 0.4  # a step of growth: so much more, and so much more for each step that held
STARTS = 25  # before a step of growth
MOST_PRICED = 12  # refusals of one closure that are counted for it
PRICE = 15  # starts before a step of growth, for each start that the last closure cost
GROWTH_S = 25.0  # of starts, at most, for the time that a closure cost
STEP_S = 10.0  # between two steps in a long window, or
STEPS = 6  # of growth in one window at most: what was asked too much shows at its end
SEARCH, SEARCH_CAP, SEARCH_STARTS = 1.1, 1.5, 8  # how near to a refused rate, how far in one step, after how many
QUEUE = 2.5  # times the best latency
SMOOTH = 0.1  # share of a new latency in the mean

RECENT, DOWN_AT = 20, 5
FAST_S, FAST_SHARE = 0.5, 0.25  # a 503 before that, or before this share of an answer's time, is a refusal
GIVE_UP_S, UNREACHED_S = 600.0, 60.0

SERVED = frozenset(
    {None, Fault.REFUSED, Fault.NO_IMAGE, Fault.BROKEN, Fault.LINK}
)  # a whole 200: the server did the work
REFUSED = frozenset({Fault.THROTTLED, Fault.QUOTA})
DOWN = frozenset({Fault.UNREACHABLE, Fault.SILENCE, Fault.OUTAGE})
NO_VERDICT = frozenset(  # the next one is a canary too
    {Fault.UNREACHABLE, Fault.SILENCE, Fault.MODEL_MISSING, Fault.UPSTREAM_ACCOUNT}
)


@dataclass(slots=True, eq=False)
class Ticket:
    """One slot: made by a start, given back by its end."""

    serial: int
    at: float  # monotonic seconds
    level: int  # requests in flight, this one included and refused ones left out


class Window:
    """At most `most` starts in any `span_s` seconds, spread evenly.

    Spread by the virtual scheduling form of the Generic Cell Rate Algorithm (ITU-T I.371, annex A). `slack_s`: lateness
    that the next starts may make up for.
    """

    def __init__(self, most: float, span_s: float, *, slack_s: float = 0.0, margin_s: float = 0.0) -> None:
        self.most, self.span_s, self._slack_s, self._margin_s = most, span_s, slack_s, margin_s
        self._starts: deque[float] = deque()
        self._next = -math.inf

    @classmethod
    def told(cls, per_minute: float) -> "Window":
        """Keep what a person told; 2.5 is 2 in a minute, 0.5 is 1 in two.

        A second longer than they said: the server counts arrivals, and a slow handshake must not squeeze one more in.
        """
        if not 0 < per_minute < math.inf:
            raise ValueError(f"requests per minute must be above 0, not {per_minute}")
        return cls(max(1, math.floor(per_minute)), 60.0 / min(1.0, per_minute) + 1.0, slack_s=0.25)

    def __repr__(self) -> str:
        return f"{self.most:.4g} in {self.span_s:.3g} s"

    @property
    def rate(self) -> float:
        return self.most / self.span_s

    def delay(self, now: float) -> float:
        """Return the seconds until one more start keeps the promise."""
        span_s = self.span_s + self._margin_s
        while self._starts and self._starts[0] <= now - span_s:
            self._starts.popleft()
        over = len(self._starts) - math.ceil(self.most)
        full = self._starts[over] + span_s - now if over >= 0 else 0.0
        return max(0.0, full, self._next - now)

    def started(self, now: float) -> None:
        self._starts.append(now)
        self._next = (now if self._next == -math.inf else max(self._next, now - self._slack_s)) + 1 / self.rate

    def forget(self, at: float) -> None:
        """Forget the start at `at`, which does not count. The place it had in the spread stays empty."""
        forget(self._starts, at)

    def remember(self, starts: deque[float], now: float) -> None:
        """Count starts from before the window was known."""
        self._starts = deque(at for at in starts if at > now - self.span_s)


def forget(starts: deque[float], at: float) -> None:
    """Remove `at` where it is there; it is a late one."""
    for place in range(len(starts) - 1, -1, -1):
        if starts[place] <= at:
            if starts[place] == at:
                del starts[place]
            return


@dataclass(slots=True, kw_only=True)
class Closure:
    """A time in which nobody starts but a probe. Times are those of starts."""

    began_at: float  # of the first start that was refused
    last_at: float  # and of the last one
    level: int  # taken requests beside the first refused one
    lowest: int  # and the fewest beside any
    rate: float  # at which requests were started
    teaches: bool
    was_limit: bool  # whether the limit in flight was what held starts back
    until: float = -math.inf
    gap_s: float = 0.0
    is_named: bool = False
    reason: str = ""
    refusals: int = 0
    way_s: float = 0.01  # how long a refusal takes
    has_seen_end: bool = False  # a request has ended since, and a probe was sent for it
    is_weak: bool = False  # nothing but 503s
    probes: int = 0  # that were refused
    probe: Ticket | None = None


# Are single 503s a limit? Of so many starts at least this share refused: start less; the share must fall to that. Where
# it is a limit and this share stays refused for long, it was none.
TRIAL, TRIAL_SHARE, TRIAL_CUT, TRIAL_NONE, TRIAL_FAIL = 50, 0.08, 0.8, 0.02, 0.08


def trial_rate(taken: deque[float], now: float) -> float:
    """Return the starts a second that were taken lately."""
    count = min(len(taken), TRIAL)
    return count / max(0.1, now - taken[-count])


@dataclass(slots=True)
class Trial:
    """Finds out whether single 503s come from a limit: only those of a limit end when less is sent."""

    verdict: bool | None = None  # whether they are a limit; None: not known
    before: float = 0.0  # the share refused when the trial began; 0.0: none is under way
    starts: int = 0
    refused: int = 0
    rest: int = 0  # rounds until a verdict of no is looked at again
    strikes: int = 0  # rounds in a row that a verdict of yes does not explain


class Throttle:
    """Every limit on starting a request that is not about money."""

    def __init__(
        self,
        limits: Limits,
        *,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = dice.random,
    ) -> None:
        self._clock, self._random, self._retry = clock, random, retry
        self._most, self._is_adaptive = float(limits.concurrency), limits.adaptive
        first = FIRST if limits.start is None else limits.start
        self._limit = min(float(first), self._most) if limits.adaptive else self._most
        self._told = None if limits.requests_per_minute is None else Window.told(limits.requests_per_minute)
        self._learned: Window | None = None
        self._closure: Closure | None = None
        self._open: dict[int, Ticket] = {}
        self._serial = 0
        self._is_canary = True
        self._is_reached = False
        self._first_at = math.inf
        self._taken: deque[float] = deque(maxlen=20_000)  # starts that were not refused
        self._unquiet: deque[float] = deque()  # starts of the slow start that may still be refused
        self._is_slow_start = limits.adaptive
        self._next_at = -math.inf  # keeps starts apart while no window is known
        self._period_at, self._period = -math.inf, 0  # since the gate opened last, and starts taken since
        self._alone_s = 0.0  # how long the canary alone was in flight before that
        self._long_at = self._before_at = math.inf  # since the last long closure ended, and the one before
        self._last_level, self._row_same, self._is_window_long = -1, 0, False
        self._highest, self._highest_at = 0, -math.inf  # most in flight that were taken, lately
        self._latency_s, self._best_s, self._answers = 0.0, math.inf, 0
        self._ceiling = math.inf  # a rate that was refused
        self._good, self._was_short = math.inf, False
        self._first_step = GROWTH
        self._since_growth, self._interval, self._held = 0, float(STARTS), 0
        self._was_limit = False
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._last_503, self._row_503 = 0, 0
        self._last_served = 0
        self._trial = Trial()
        self._is_confirmed = False
        self._misses = 0
        self._down_since: float | None = None
        self.verdict: Halt | None = None  # the order to give up

    def __repr__(self) -> str:
        parts = [f"{self.in_flight} in flight", f"limit {self.limit}"]
        parts += [f"{self._learned!r}"] if self._learned is not None else []
        parts += [f"closed: {self._closure.reason}"] if self._closure is not None else []
        return f"<Throttle {', '.join(parts)}>"

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def limit(self) -> int:
        """Requests that may be in flight at this moment."""
        return 1 if self._is_canary else int(self._limit)

    @property
    def pause_left_s(self) -> float:
        """Return for how long nobody starts; 0.0 also while a probe is under way."""
        return 0.0 if self._closure is None else max(0.0, self._closure.until - self._clock())

    @property
    def pause_reason(self) -> str | None:
        """Why nobody starts now, in words for a person; None: no pause."""
        return self._closure.reason if self._closure is not None and self.pause_left_s > 0 else None

    def is_held_back(self, ticket: Ticket) -> bool:
        """Whether the gate closed since the ticket was taken: then it is not sent."""
        return self._closure is not None and self._closure.probe is not ticket

    # -- the three verbs ------------------------------------------------------------------------------------------

    def delay(self) -> float:
        """Return 0.0 when a request may start now, else the seconds until it is worth asking again.

        `math.inf`: only when something finishes.
        """
        now = self._clock()
        self._settle(now)
        if self.in_flight >= self.limit:
            self._was_limit = True
            return max(SOON_S, self._unquiet[0] + self._quiet_s() - now) if self._may_widen() else math.inf
        wait = self._closed_s(now)
        if self._told is not None:
            wait = max(wait, self._told.delay(now))
        spread = self._next_at - now if self._learned is None else self._learned.delay(now)
        if spread > 0 >= wait:
            self._was_limit = False
        wait = max(wait, spread)
        return max(wait, SOON_S) if wait > 0 else 0.0

    def started(self) -> Ticket:
        """Take a slot. Only after `delay` returned 0.0, with no await in between."""
        now = self._clock()
        self._serial += 1
        ticket = Ticket(self._serial, now, self.in_flight + 1)
        self._open[ticket.serial] = ticket
        if self._is_canary or self._serial == 2:
            self._first_at = min(self._first_at, now)
            self._period_at = self._long_at = self._before_at = now
            self._alone_s = now - self._first_at
        if self._closure is not None:
            self._closure.probe = ticket
        self._taken.append(now)
        self._recent.append(False)
        self._period += 1
        if self._is_slow_start and not self._is_canary:
            self._unquiet.append(now)
        self._next_at = now + self._apart_s()
        for window in (self._told, self._learned):
            if window is not None:
                window.started(now)
        self._since_growth += 1
        self._try()
        self._grow()
        return ticket

    def abandoned(self, ticket: Ticket) -> None:
        """Give back the slot of a request that was never sent."""
        del self._open[ticket.serial]
        self._not_taken(ticket)
        if self._told is not None:
            self._told.forget(ticket.at)
        if self._closure is not None and self._closure.probe is ticket:
            self._closure.probe = None

    def finished(self, ticket: Ticket, failure: Failure | None) -> Failure | None:
        """Give back the slot and learn from how it ended; None is an image.

        Returns the failure as it is to be treated: a fast 503 that was a refusal is throttling, and no attempt of the
        task.
        """
        fault = None if failure is None else failure.fault
        if fault in UNSENT:
            self.abandoned(ticket)
            return failure
        now = self._clock()
        self._settle(now)
        del self._open[ticket.serial]
        if fault not in NO_VERDICT:
            self._is_canary = False
        self._is_reached |= fault is not Fault.UNREACHABLE
        if failure is not None and self._is_refusal(ticket, failure, now):
            failure = replace(failure, fault=Fault.THROTTLED) if fault is Fault.OUTAGE else failure
            self._refused(ticket, failure, now)
        elif failure is not None and fault in DOWN:
            self._down(ticket, failure, now)
        else:
            self._answered(ticket, failure, now)
        return failure

    # -- how a request ended --------------------------------------------------------------------------------------

    def _answered(self, ticket: Ticket, failure: Failure | None, now: float) -> None:
        """The server took it: an image, a refusal of the prompt, or a mistake of ours."""
        fault = None if failure is None else failure.fault
        if fault in SERVED:
            self._down_since, self._misses = None, 0
            self._measure(now - ticket.at)
            self._last_served = max(self._last_served, ticket.serial)
            if ticket.level >= self._highest or now - self._highest_at > max(30.0, 4 * self._latency_s):
                self._highest, self._highest_at = ticket.level, now
        closure = self._closure
        if failure is not None and (failure.hint_s or 0) > 0:
            self._close(ticket, failure, now, teaches=False)
        elif fault is Fault.MODEL_MISSING:
            self._space(ticket, now)
        elif closure is not None and closure.probe is ticket:
            self._reopen(closure, now)
        elif closure is not None and closure.teaches and not closure.is_named and not closure.has_seen_end:
            closure.has_seen_end = True
            closure.until = now

    def _measure(self, seconds: float) -> None:
        self._answers += 1
        self._latency_s += max(SMOOTH, 1 / self._answers) * (seconds - self._latency_s)
        if self._answers == 1 or self._answers >= 1 / SMOOTH:
            self._best_s = min(self._best_s, self._latency_s)

    def _is_refusal(self, ticket: Ticket, failure: Failure, now: float) -> bool:
        if failure.fault in REFUSED:
            return True
        took_s = now - ticket.at
        if failure.status != 503 or failure.fault is not Fault.OUTAGE:
            return False
        if took_s > max(FAST_S, FAST_SHARE * self._latency_s):
            return False
        is_alone = self._last_503 < self._last_served or any(self._last_503 < n < ticket.serial for n in self._open)
        self._row_503 = 1 if is_alone else self._row_503 + 1
        self._last_503 = ticket.serial
        self._trial.refused += self._closure is None
        if self._trial.verdict is True:
            return True
        return self._row_503 >= 2 or self._closure is not None or sum(self._recent) + 1 >= DOWN_AT

    def _refused(self, ticket: Ticket, failure: Failure, now: float) -> None:
        self._not_taken(ticket)
        self._is_slow_start = False
        self._unquiet.clear()
        self._close(ticket, failure, now, teaches=True)

    def _down(self, ticket: Ticket, failure: Failure, now: float) -> None:
        """Nobody answered, or only to say that it is broken."""
        if failure.fault is not Fault.SILENCE:
            self._not_taken(ticket)
        self._recent.append(True)
        self._since_growth = 0
        if not self._is_reached and now - self._first_at >= UNREACHED_S:
            self.verdict = Halt(Exit.TRY_LATER, f"no connection could be made for {now - self._first_at:.0f} s")
        if self._closure is not None or sum(self._recent) >= DOWN_AT or (failure.hint_s or 0) > 0:
            self._close(ticket, failure, now, teaches=False)

    def _not_taken(self, ticket: Ticket) -> None:
        """Forget a start the server did not take; those after it had one less beside them than was thought."""
        for serial, other in self._open.items():
            other.level -= serial > ticket.serial
        self._period -= ticket.at >= self._period_at
        forget(self._taken, ticket.at)
        if self._learned is not None:
            self._learned.forget(ticket.at)

    # -- closed ---------------------------------------------------------------------------------------------------

    def _close(self, ticket: Ticket, failure: Failure, now: float, *, teaches: bool) -> None:
        """Let nobody start until a delay is over; a refused probe, or a first refusal, makes it longer."""
        hint_s = failure.hint_s if failure.hint_s is not None and failure.hint_s > 0 else 0.0
        closure = self._closure
        if closure is None:
            if ticket.at < self._period_at and not hint_s:
                return  # sent before the gate opened the last time: old news
            closure = self._closure = self._new_closure(ticket, teaches=teaches)
            closure.is_weak = failure.status == 503
        if failure.fault is not Fault.MODEL_MISSING and failure.status != 429:
            self._give_up_after_long(now)
        closure.refusals += 1
        closure.teaches &= teaches
        closure.way_s = max(closure.way_s, now - ticket.at)
        closure.last_at = max(closure.last_at, ticket.at)
        if hint_s:
            closure.is_named = True
            self._extend(closure, now + hint_s * (1 + SPREAD * self._random()), f"the server asked for {hint_s:.0f} s")
        if closure.probe is ticket or closure.refusals == 1:
            closure.probes += closure.probe is ticket
            closure.probe = None
            closure.lowest = min(closure.lowest, ticket.level - 1)
            if not hint_s:
                reason = "the server is throttling" if teaches else "the provider is down"
                self._extend(closure, self._probe_at(closure, now), reason)

    def _new_closure(self, ticket: Ticket, *, teaches: bool) -> Closure:
        gap_s = min(2.0, max(PROBE_S, self._latency_s / 4))
        if self._learned is not None:
            gap_s = min(5.0, max(0.05, 1 / self._learned.rate))
        apart_s = self._apart_s()
        return Closure(
            began_at=ticket.at,
            last_at=ticket.at,
            level=ticket.level - 1,
            lowest=ticket.level - 1,
            rate=self._learned.rate if self._learned is not None else 1 / apart_s if apart_s > 0 else math.inf,
            teaches=teaches,
            was_limit=self._was_limit,
            gap_s=gap_s,
        )

    def _probe_at(self, closure: Closure, now: float) -> float:
        """Return when to ask again: after a gap that grows, or near that when a window of a usual length is over.

        The fewer were taken, the dearer is a refusal, and the faster the gaps grow.
        """
        cap_s = min(PROBE_CAP_S, max(5.0, PROBES / max(1, self._period))) if closure.teaches else PROBE_CAP_S
        gap_s = min(closure.gap_s, self._retry.wait_max_s, cap_s if self._is_reached else 5.0)
        is_slow = self._period >= MANY and gap_s >= PROBE_FAST_S
        closure.gap_s = gap_s * (1.3 if is_slow else 2 if self._period >= MANY / 2 else 3)
        begins = {self._long_at - self._alone_s, self._long_at, self._period_at}
        usual = sorted(begin + span_s + LATE_S for begin in begins for span_s in USUAL_S)
        near = [at for at in usual if now + 0.5 * gap_s <= at <= now + 1.5 * gap_s]
        return near[0] if near and closure.teaches else now + gap_s * (1 + SPREAD * self._random())

    def _extend(self, closure: Closure, until: float, reason: str) -> None:
        if until > closure.until:
            closure.until, closure.reason = until, reason

    def _space(self, ticket: Ticket, now: float) -> None:
        """Wait before the next try of a model that was not found: `retry.wait.initial`, twice that, ...

        At least half of it: the tries are to be spaced, so that channels that are only away for a moment come back.
        """
        wait_s = min(2 * self._retry.wait_max_s, self._retry.wait_initial_s * 2.0 ** min(self._misses, 10))
        self._misses += 1
        closure = self._closure = self._closure or self._new_closure(ticket, teaches=False)
        closure.probe, closure.teaches = None, False
        self._extend(closure, now + wait_s * (1 + self._random()) / 2, "the model was not found")

    def _give_up_after_long(self, now: float) -> None:
        if self._down_since is None:
            self._down_since = now
        if now - self._down_since >= GIVE_UP_S:
            minutes = (now - self._down_since) / 60
            self.verdict = Halt(
                Exit.TRY_LATER,
                f"the provider is down: no image in {minutes:.0f} minutes; run the same command later",
            )

    def _closed_s(self, now: float) -> float:
        if self._closure is None:
            return 0.0
        probe = self._closure.probe
        if probe is not None:
            return probe.at + 2 * self._closure.way_s - now
        return max(0.0, self._closure.until - now)

    def _settle(self, now: float) -> None:
        """See what time alone has shown: starts that were not refused."""
        closure = self._closure
        if closure is not None and closure.probe is not None and now >= closure.probe.at + 2 * closure.way_s:
            self._reopen(closure, now)
        while self._unquiet and self._unquiet[0] + self._quiet_s() <= now:
            self._unquiet.popleft()
            if not self._is_queued():
                self._limit = min(self._most, self._limit + 1)

    def _reopen(self, closure: Closure, now: float) -> None:
        assert closure.probe is not None
        if closure.teaches and self._is_adaptive:
            self._learn(closure, closure.probe, now)
        self._period_at, self._period = closure.probe.at, 1
        self._closure = None
        self._recent.clear()

    # -- what a closure teaches -----------------------------------------------------------------------------------

    def _learn(self, closure: Closure, accepted: Ticket, now: float) -> None:
        """Tell a limit of requests in flight from one of starts, and set it."""
        taken = max(1, self._period - 1)
        if closure.is_weak and not self._trial.verdict and closure.probes < (1 if self._trial.verdict is None else 2):
            self._held, self._since_growth = 0, 0
            return
        total_s, shut_s = accepted.at - self._period_at, accepted.at - closure.began_at
        has_one_ended = 0 < closure.level - accepted.level + 1 <= 2 and accepted.level > 1
        is_long = shut_s > max(LONG_S, self._latency_s * (3 if has_one_ended else 1))
        mean = taken / max(SOON_S, total_s)
        is_same = abs(closure.level - self._last_level) <= SAME * closure.level
        self._row_same = self._row_same + 1 if is_same else 0
        is_proof = not closure.is_named or accepted.level - 1 >= closure.level / 2  # else all had ended anyway
        is_clear = self._row_same >= 3 and not self._is_window_long and is_proof
        is_small = closure.level < FEW_IN_FLIGHT * self._limit
        is_cap = (
            not is_long
            and closure.level > 0
            and (is_same or closure.level >= NEAR * self._highest - 1)
            and accepted.level - 1 < closure.level + (self._row_same >= 2 and self._learned is None)
            and closure.level <= closure.lowest + 1
            and (self._learned is not None or not closure.is_named or not is_small)
            and (self._learned is None or is_clear or self._row_same >= 4 or (closure.was_limit and is_same))
        )
        self._last_level = closure.level
        if is_cap and is_clear:
            self._learned, self._ceiling = None, math.inf
        if is_cap:
            least = 1.0 if self._learned is None else SOFT_CUT * self._limit
            self._limit, self._highest = max(least, min(self._limit, float(closure.level))), closure.level
        if is_long:
            if sum(self._long_at <= start < closure.began_at for start in self._taken) < FEW:
                self._long_at = self._before_at  # too few to tell: with the period before
            span_s = self._span_s(closure, accepted)
            taken = sum(closure.began_at - span_s < start < closure.began_at for start in self._taken)
            if span_s not in USUAL_S:
                taken, span_s = max(1, round(taken / span_s * LOOSE_S)), LOOSE_S
            if taken >= FEW or self._learned is not None or self._is_confirmed:
                self._set_window(max(1, taken), span_s, now)
                self._is_window_long = True
                self._ceiling = math.inf
            self._is_confirmed = True
            self._before_at, self._long_at, self._alone_s = self._long_at, accepted.at, 0.0
        elif self._learned is not None:
            self._set_window(self._lower(taken, mean) * self._learned.span_s, self._learned.span_s, now)
            self._ceiling = closure.rate
        elif not is_cap:
            rate = max(mean, 1 / max(SOON_S, shut_s))
            span_s = max(SOON_S, total_s)
            self._set_window(rate * span_s, span_s, now)
            self._is_window_long = False
            self._ceiling = closure.rate
        self._good = self._learned.rate if self._learned is not None else math.inf
        self._was_short = taken < FEW
        lost = 0.0 if is_long else min(PRICE * shut_s, GROWTH_S) * mean
        self._interval = max(STARTS, PRICE * min(closure.refusals, MOST_PRICED) - taken, lost)
        self._held, self._since_growth = 0, 0
        self._first_step = GROWTH * (1 + is_long)
        if is_cap and is_small and self._learned is None and not is_same:  # a coincidence may look like that: try soon
            self._first_step, self._interval = GROWTH_CAP, SEARCH_STARTS

    def _lower(self, taken: int, mean: float) -> float:
        """Return a rate below the one that was just refused."""
        assert self._learned is not None
        old = self._learned.rate
        if self._good < LEAST_CUT * old and self._since_growth < max(STARTS, self._learned.most):  # it was raised
            return max(self._good, min(mean, LEAST_CUT * old))
        if taken >= STARTS:
            return LEAST_CUT * old
        if taken >= FEW:
            return min(LEAST_CUT * old, max(SOFT_CUT * old, mean))
        return (HARD_CUT if self._was_short else MOST_CUT) * old

    def _span_s(self, closure: Closure, accepted: Ticket) -> float:
        """Return how long the window is: a usual length that would be over between the last refusal and `accepted`.

        It began with the first start since the last long closure; in the beginning that is the canary, where that is
        still in the window when the gate closes.
        """
        if self._learned is not None and self._learned.span_s > LONG_S:  # the end of one more window of that length
            times = math.floor((accepted.at - self._long_at) / self._learned.span_s)
            if times > 1 or (times == 1 and self._learned.span_s >= closure.last_at - self._long_at):
                return self._learned.span_s
        for span_s in reversed(USUAL_S):
            is_alone_in = closure.began_at - span_s <= self._long_at - self._alone_s
            begin = self._long_at - self._alone_s * is_alone_in
            if closure.last_at - begin <= span_s <= accepted.at - begin:
                return float(span_s)
        return accepted.at - self._long_at

    def _set_window(self, most: float, span_s: float, now: float) -> None:
        if self._learned is None or self._learned.span_s != span_s:
            self._learned = Window(most, span_s, margin_s=min(LATE_S, 0.01 * span_s + 0.02))
            self._learned.remember(self._taken, now)
        else:
            self._learned.most = most

    # -- growth ---------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Ask for a little more of what holds starts back, when enough were taken."""
        if self._is_slow_start or not self._is_adaptive or self._closure is not None:
            return
        rate = math.inf if self._learned is None else self._learned.rate
        if self._learned is not None and not self._was_limit and rate * SEARCH < self._ceiling < math.inf:
            if self._since_growth >= SEARCH_STARTS:
                self._good = rate
                self._learned.most *= min(SEARCH_CAP, math.sqrt(self._ceiling / rate))
                self._since_growth = 0
            return
        slow = 0.0 if self._learned is None else min(self._learned.most / STEPS, STEP_S * rate)
        if self._since_growth < max(SEARCH_STARTS, self._interval * 0.5**self._held, slow):
            return
        self._since_growth = 0
        step = min(GROWTH_CAP, self._first_step * 2.0**self._held)
        if not self._was_limit and self._learned is not None:
            self._good = rate
            self._learned.most *= 1 + step
        elif self._was_limit and not self._is_queued():
            self._limit = min(self._most, self._limit + max(1.0, step * self._limit))
        self._held += 1

    def _try(self) -> None:
        """Find out whether single 503s are a limit: start less, and see whether there are fewer of them."""
        trial = self._trial
        trial.starts += 1
        if trial.starts < TRIAL or not self._is_adaptive:
            return
        share, trial.refused, trial.starts = trial.refused / trial.starts, 0, 0
        now = self._clock()
        if trial.verdict is not None:
            trial.rest -= 1
            trial.strikes = trial.strikes + 1 if share >= TRIAL_FAIL else 0
            if trial.verdict and trial.strikes >= 4:
                trial.verdict, self._learned = False, None
            elif trial.rest <= 0 and not trial.verdict:
                trial.verdict = None
        elif trial.before:
            trial.verdict = share <= TRIAL_NONE
            if not trial.verdict:
                self._learned, self._is_slow_start = None, True
            trial.before, trial.rest = 0.0, 20
        elif share >= TRIAL_SHARE:
            trial.before = share
            rate = TRIAL_CUT * trial_rate(self._taken, now)
            if self._learned is None or self._learned.rate > rate:
                span_s = 1.0 if self._learned is None else self._learned.span_s
                self._set_window(rate * span_s, span_s, now)

    def _is_queued(self) -> bool:
        return self._latency_s > QUEUE * self._best_s

    def _may_widen(self) -> bool:
        return not self._is_canary and bool(self._unquiet) and self._limit < self._most

    def _quiet_s(self) -> float:
        return max(QUIET_S, QUIET_SHARE * self._latency_s)

    def _apart_s(self) -> float:
        """Return how far apart starts are while no window is known."""
        if self._is_canary or not self._is_adaptive:
            return 0.0
        if self._is_slow_start:  # the first ones at half the speed: a refusal is on its way for long
            return self._quiet_s() / self._limit * (2 if self._limit <= FIRST else 1)
        return SPREAD_SHARE * self._latency_s / self._limit


class Stopped(Exception):  # noqa: N818 - reads as what happened
    """The gate lets nobody through any more; no slot was taken."""


async def sleep_until(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set or `seconds` are over, whichever comes first. Infinite: only the event."""
    try:
        async with asyncio.timeout(None if seconds == math.inf else seconds):
            await event.wait()
    except TimeoutError:
        return


class Gate:
    """Lets workers through in the order they came, as the throttle allows.

    Cancelling a waiter takes no slot: between the last await and the ticket nothing can be cancelled.
    """

    def __init__(self, throttle: Throttle, *, sleep: Sleep = sleep_until) -> None:
        self.throttle = throttle
        self._sleep = sleep
        self._turn = asyncio.Lock()  # first in, first out
        self._changed = asyncio.Event()
        self.is_stopped = False

    async def wait(self) -> Ticket:
        """Wait for a slot and take it. Raises Stopped; then, and when cancelled, no slot is held."""
        async with self._turn:
            while not self.is_stopped:
                delay = self.throttle.delay()
                if delay <= 0:
                    return self.throttle.started()
                self._changed.clear()
                await self._sleep(self._changed, delay)
            raise Stopped

    def finished(self, ticket: Ticket, failure: Failure | None) -> Failure | None:
        """Give the slot back with how it ended, and look again. Returns the failure as `Throttle.finished` does."""
        judged = self.throttle.finished(ticket, failure)
        self._changed.set()
        return judged

    def abandoned(self, ticket: Ticket) -> None:
        """Give back the slot of a request that was never sent, and look again."""
        self.throttle.abandoned(ticket)
        self._changed.set()

    def stop(self) -> None:
        """Let nobody through any more; who waits now gets Stopped."""
        self.is_stopped = True
        self._changed.set()
