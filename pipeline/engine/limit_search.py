"""The search for what the server allows: requests in flight (`limit`), and starts a second (`rate`).

1. Slow start (RFC 5681): begin at 32, and one more for each start that was taken, because a refusal is quick where an
   image takes seconds.
2. What a backoff teaches. It lasted longer than an answer takes: starts are counted, and those that were taken / (open
   + closed time) are the rate. It began at the same level as the last ones, at whatever rate, and hardly ever were more
   in flight: requests in flight are counted. Else starts are counted, in a short window, a bucket or by the gap between
   them.
3. A limit that was refused is cut a little and grows with each start that it held back (`Growth`): what was refused is
   tried again after K starts, later the dearer the last backoff was. A queue stops the growth of requests in flight.

A rate is kept as a gap from when the last request went out, and no start makes up for a late one: that is right for a
bucket, for a window of any length, and for servers that count the gap itself (nginx `limit_req` without burst).

What some rules are for, as the share used in the rehearsals (`tests/engine/test_throttle_*`) with and without them:
usual lengths: 180 in 6 s, 92 and 60 %; a window that did not end: sliding-wave, 97 and 67; the known length: 100 in
10 s, 97 and 83; the cut of a known window: fixed-60-hint-37s, 88 and 83; the price of the same level: 20 in flight with
Retry-After, 89 and 76; a row of backoffs at one level: in-flight-storm, 91 and 83; the gap that is counted: nginx
without burst, 81 and 75.
"""

import math
from collections import deque
from dataclasses import dataclass

from pipeline.engine.backoff import PROBE_MOST_S, PROBE_S, Backoff
from pipeline.engine.starts import StartHistory, Ticket
from pipeline.settings import Limits

FIRST, SLOWLY = 32, 4  # in flight, after the canary; so many times slower at first
SPREAD_SHARE = 0.6  # of an answer's time over which as many starts as may be in flight are spread
SOON_S = 0.001  # the least time
USUAL_S = (60, 10, 1, 300, 3600, 30, 5, 6, 600)  # lengths of windows that people choose, the most usual ones first
LATE_S = 0.1  # added to a window: how much later than sent a request may arrive

LONG_S, LONG_SHARE = 2.0, 1.5  # a backoff longer than both that and this share of an answer's time is about starts
SAME = 0.05  # of a level: refused at the same one again
ROW, RATES = 4, 1.15  # backoffs at one level, at rates that differ so much, show a limit in flight
GAP = 1.5  # no two taken starts were closer than so many times the gap that was refused: the gap is counted
FEW = 3  # starts taken since a window seemed to end: it did not

CUT, MOST_CUT, WILD_CUT = 0.03, 0.12, 0.4  # of a refused rate; the most; the most after a guess
LEAST_RATE = 1 / 120  # slower is hardly a limit: most was refused for lack of capacity, which ends
EARLY = 0.5  # refused before this share of K: cut more
STARTS, BUSY = 33.0, 14.0  # K for a rate, and for requests in flight
FASTEST, CLIMB = 0.025, 0.2  # a rate grows by so much a start at most; and while a gap is being searched
MORE = 0.06  # of requests in flight: what is tried after K starts
PRICE, MOST_PRICED, PRICED_S = 20, 12, 1.25  # K grows by so many for each start lost; refusals, and seconds, at most
SAME_PRICE = 0.15  # share of that for each refusal at the same level
LONG_SPAN_S, COUNTED_S, WINDOWS = 30.0, 60.0, 3  # a window is long; K is at least one, at most three, of a minute


@dataclass(slots=True)
class Growth:
    """A limit that grows by `step` in K starts, by three steps in 2 K, by seven in 3 K; `fastest`: share a start."""

    value: float
    step: float
    starts: float  # K
    fastest: float = FASTEST
    count: int = 0

    @classmethod
    def guess(cls, value: float, fastest: float = FASTEST) -> "Growth":
        """Return one that grows as fast as it may: its value is known to be too small."""
        return cls(value, value, 1.0, fastest)

    @property
    def is_guess(self) -> bool:
        """Whether what was refused is not known."""
        return self.starts == 1.0

    def grow(self) -> None:
        """Count a start that was held back."""
        self.count += 1
        speed = self.step / self.starts * math.log(2) * 2.0 ** min(20.0, self.count / self.starts)
        self.value += min(self.fastest * self.value, speed)


class LimitSearch:
    """Both limits, and how far the search for them is."""

    def __init__(self, limits: Limits, history: StartHistory) -> None:
        self._history = history
        self._most, self.is_adaptive = float(limits.concurrency), limits.adaptive
        first = FIRST if limits.start is None else limits.start
        self.limit = min(float(first), self._most) if limits.adaptive else self._most
        self.rate: Growth | None = None
        self.is_slow_start = limits.adaptive
        self._more = self._growth_of_limit(0.0)
        self._unquiet: deque[float] = deque()  # starts of the slow start that may still be refused
        self._next_at = -math.inf
        self._was_limit = False
        self._is_gap = False  # the server counts the gap between two starts
        self._span_s = 0.0  # of the window, where its length is a usual one
        self._alone_s = 0.0  # how long the canary alone was in flight
        self._long_at = self._before_at = math.inf  # when the last window ended, and the one before
        self._row: deque[tuple[int, int, float]] = deque(maxlen=ROW)  # levels and usual levels of backoffs, and rates
        self._before: tuple[Growth | None, float] | None = None  # both limits before a trial
        self._same = 0  # backoffs at the same level

    def __repr__(self) -> str:
        if self.rate is None:
            return ""
        return f"{self._in_span()} in {self._span_s:.3g} s" if self._span_s else f"{self.rate.value:.3g} a second"

    # -- starting -------------------------------------------------------------------------------------------------

    def first(self, at: float, alone_s: float) -> None:
        """Note the first start that counts; before it the canary was in flight alone for `alone_s`."""
        self._long_at, self._alone_s = at - alone_s, alone_s

    def full_delay(self, now: float) -> float:
        """Return the seconds until the limit in flight may grow; it is reached."""
        self._was_limit = True
        if not self._unquiet or self.limit >= self._most:
            return math.inf
        return max(SOON_S, self._unquiet[0] + self._history.quiet_s - now)

    def delay(self, now: float, wait_s: float) -> float:
        """Return the seconds until the next start keeps the rate; `wait_s`: for other reasons."""
        spread_s = max(self._next_at, self._window_at()) - now
        if spread_s > 0 >= wait_s:
            self._was_limit = False
        return max(0.0, spread_s)

    def started(self, now: float, *, is_canary: bool, can_grow: bool) -> None:
        """Count a start."""
        if self.is_slow_start and not is_canary:
            self._unquiet.append(now)
        self._next_at = now + (0.0 if is_canary else self._apart_s())
        if can_grow and self.is_adaptive and not self.is_slow_start:
            self._grow()

    def sent(self, now: float) -> None:
        """Keep the next start apart from a request that was sent later than it started."""
        self._next_at = max(self._next_at, now + self._apart_s())

    def settle(self, now: float) -> None:
        """Widen the limit for each start of the slow start that was not refused."""
        while self._unquiet and self._unquiet[0] + self._history.quiet_s <= now:
            self._unquiet.popleft()
            if not self._history.is_queued:
                self.limit = min(self._most, self.limit + 1)

    def refused(self) -> None:
        """End the slow start."""
        self.is_slow_start = False
        self._unquiet.clear()

    def hold(self) -> None:
        """Grow later: something failed."""
        for growth in (self.rate, self._more):
            if growth is not None:
                growth.count = int(min(growth.count, growth.starts))

    def _grow(self) -> None:
        """Ask for a little more of what holds starts back."""
        if self._was_limit:
            if not self._history.is_queued:
                self._more.grow()
                self.limit = min(self._most, max(self.limit, self._more.value))
        elif self.rate is not None:
            self.rate.grow()

    def _apart_s(self) -> float:
        """Return how far apart starts are."""
        if not self.is_adaptive:
            return 0.0
        if self.rate is not None:
            return 1 / self.rate.value
        spread_s = SPREAD_SHARE * self._history.latency_s / self.limit
        if not self.is_slow_start:
            return spread_s
        slower = min(SLOWLY, max(1.0, SLOWLY * FIRST / self.limit))  # the first ones: a refusal is on its way for long
        return min(spread_s, slower * self._history.quiet_s / self.limit)

    def _window_at(self) -> float:
        """Return when one more start fits into a window of a known length."""
        taken = self._history.taken
        if not self._span_s or self.rate is None or len(taken) < self._in_span():
            return -math.inf
        return taken[-self._in_span()].at + self._span_s + LATE_S

    def _in_span(self) -> int:
        """Return how many starts a window of a known length has at this rate."""
        return 0 if self.rate is None else max(1, math.floor(self.rate.value * self._span_s + 0.01))

    # -- what a backoff teaches -----------------------------------------------------------------------------------

    def backoff(self, ticket: Ticket, *, is_canary: bool, teaches: bool) -> Backoff:
        """Return a backoff that begins with this refusal."""
        apart_s = 0.0 if is_canary else self._apart_s()
        return Backoff(
            began_at=ticket.at,
            last_at=ticket.at,
            level=ticket.level - 1,
            lowest=ticket.level - 1,
            usual=self._history.usual_level(ticket),
            rate=1 / apart_s if apart_s > 0 else math.inf,
            is_rate=self.rate is not None and not self.rate.is_guess,
            teaches=teaches,
            gap_s=self._probe_gap_s(),
        )

    def _probe_gap_s(self) -> float:
        """Return the seconds before the first probe: those between two starts, or a quarter of an answer's time."""
        if self.rate is None:
            return min(PROBE_MOST_S, max(PROBE_S, self._history.latency_s / 4))
        return min(5.0, max(0.05, 1 / self.rate.value))

    def learn(self, backoff: Backoff, accepted: Ticket) -> None:
        """Set the limit that the backoff was about: how it began and how it ended shows which one that was."""
        closed_s = accepted.at - backoff.began_at
        taken = max(1, self._history.period - 1)
        mean = self._mean_rate(accepted.at)
        refusals = min(MOST_PRICED, backoff.refusals) - taken / PRICE
        is_same = bool(self._row) and self._is_level(self._row[-1][0], backoff)
        self._row.append((backoff.level, backoff.usual, backoff.rate))
        is_in_flight = False
        if closed_s > max(LONG_S, LONG_SHARE * self._history.latency_s):
            lost_s = closed_s if self._span_s else 0.0
            rate = self._rate_of_window(backoff, accepted)
            self.rate = self._growth_of_rate(rate, max(refusals, lost_s * mean), is_long=True)
        elif is_in_flight := self._is_in_flight(backoff, accepted, is_same=is_same):
            self.rate = None
            self.limit = max(1.0, min(self.limit, float(backoff.level)))
            self.is_slow_start = not is_same  # a coincidence may look like that: try soon
        else:
            lost_s = closed_s if self._span_s else min(closed_s, PRICED_S)
            self._learn_rate(backoff, accepted, max(refusals, lost_s * mean))
        self._next_at = accepted.at + self._apart_s()
        self._same = min(3, self._same + 1) if is_in_flight and is_same else 0
        self._more = self._growth_of_limit(max(refusals, min(closed_s, PRICED_S) * mean))

    def _growth_of_limit(self, lost: float) -> Growth:
        """Return how the requests in flight grow after a backoff that cost so many starts."""
        starts = BUSY + (SAME_PRICE * self._same * PRICE * lost if lost else 0.0)
        return Growth(self.limit, max(1.0, MORE * self.limit), starts, fastest=1.0)

    def _growth_of_rate(self, rate: float, lost: float, *, is_long: bool = False) -> Growth:
        """Return how a rate grows after a backoff that cost so many starts."""
        if rate < LEAST_RATE:
            return Growth.guess(LEAST_RATE, CLIMB)
        starts = max(STARTS, PRICE * lost)
        if is_long or self._span_s:
            span_s = self._span_s or COUNTED_S
            if span_s > LONG_SPAN_S:
                in_window = min(COUNTED_S, span_s) * rate
                starts = min(max(starts, in_window), WINDOWS * in_window)
        return Growth(rate, CUT * rate, starts)

    def _is_in_flight(self, backoff: Backoff, accepted: Ticket, *, is_same: bool) -> bool:
        """Whether requests in flight are counted: refused at one level, with hardly any taken above it."""
        if backoff.level == 0 or backoff.level > backoff.lowest + 1:
            return False
        is_row = len(self._row) == ROW and all(self._fits(row, backoff) for row in self._row)
        if self.rate is not None:
            rates = [rate for _, _, rate in self._row]
            return is_row and max(rates) > RATES * min(rates)
        has_room = accepted.level - 1 < backoff.level + is_row  # one had ended when the probe was taken
        is_proof = not backoff.is_named or accepted.level - 1 >= backoff.level / 2  # else all had ended anyway
        return has_room and (is_proof or is_same) and self._fits(self._row[-1], backoff)

    def _fits(self, row: tuple[int, int, float], backoff: Backoff) -> bool:
        level, usual, _ = row
        return self._is_level(level, backoff) and usual <= backoff.level + 1

    def _is_level(self, level: int, backoff: Backoff) -> bool:
        return abs(level - backoff.level) <= round(SAME * backoff.level)

    def _rate_of_window(self, backoff: Backoff, accepted: Ticket) -> float:
        """Return what was started within the window that has just ended; note how long it is."""
        history, began_at = self._history, backoff.began_at
        if self._before_at < math.inf and history.taken_between(self._long_at - SOON_S, began_at) <= FEW:
            self._long_at, self._span_s = self._before_at, 0.0
        is_known = accepted.at - began_at < 0.9 * self._span_s
        if is_known and self.rate is not None and began_at - self._long_at > self._span_s:
            mean = history.taken_between(self._long_at - SOON_S, began_at) / (accepted.at - self._long_at)
            rate = self._cut(self.rate.value, mean, MOST_CUT)
        else:
            self._span_s = self._span_s if is_known else self._usual_span_s(backoff, accepted)
            span_s = self._span_s or accepted.at - self._long_at
            rate = max(1, history.taken_between(began_at - span_s, began_at)) / span_s
        self._before_at, self._long_at, self._alone_s = self._long_at, accepted.at, 0.0
        return rate

    def _usual_span_s(self, backoff: Backoff, accepted: Ticket) -> float:
        """Return the usual length that was over between the last refusal and `accepted`; 0.0: there is none.

        The window began with the first start since the last long backoff; in the beginning that may be the canary.
        """
        for span_s in USUAL_S:
            for begin in (self._long_at + self._alone_s, self._long_at):
                open_s = accepted.at - begin
                if max(backoff.last_at - begin, open_s / 2) <= span_s <= open_s:
                    return float(span_s)
        return 0.0

    def _learn_rate(self, backoff: Backoff, accepted: Ticket, lost: float) -> None:
        gap_s = self._history.least_gap_s(accepted.at)
        old = self.rate
        if old is None:
            self.limit = max(self.limit, min(self._most, 2.0 * backoff.level))  # it was no limit, then
            self._is_gap = 0 < GAP * self._history.refused_gap_s < gap_s < math.inf
            self.rate = Growth.guess(1 / gap_s, CLIMB) if self._is_gap else Growth.guess(self._mean_rate(accepted.at))
            return
        self._is_gap &= gap_s > 0.7 * self._history.refused_gap_s
        if old.fastest == CLIMB:
            rate = min((1 - CUT) * old.value, 1 / gap_s if 0 < gap_s < math.inf else math.inf)  # one start has no gap
        elif self._is_gap or not (old.is_guess or old.count < EARLY * old.starts):
            rate = (1 - CUT) * old.value
        else:
            mean = self._mean_rate(backoff.began_at if backoff.is_named else accepted.at)
            rate = self._cut(old.value, mean, WILD_CUT if old.is_guess else MOST_CUT)
        self.rate = self._growth_of_rate(rate, lost)

    def _mean_rate(self, until: float) -> float:
        """Return the starts a second that were taken since the gate opened the last time."""
        return max(1, self._history.period - 1) / max(SOON_S, until - self._history.period_at)

    def _cut(self, refused: float, mean: float, most: float) -> float:
        """Return what is left of a refused rate: what was taken in the mean, where that is neither too far nor more."""
        return min((1 - CUT) * refused, max(mean, (1 - most) * refused))

    # -- trials ---------------------------------------------------------------------------------------------------

    def begin_trial(self) -> None:
        """Start slowly again, as if nothing were limited: what was learned may have come by chance.

        A guess is not gone back to: it is known to be too small, and refusals of the trial would be taken for its own.
        """
        self._before = None if self.rate is not None and self.rate.is_guess else (self.rate, self.limit)
        self.rate, self.is_slow_start = None, True

    def end_trial(self) -> None:
        """Go on with what had been learned before the trial: it is a limit. Not later, when that is out of date."""
        if self._before is not None:
            self.rate, self.limit = self._before
            self._before = None
