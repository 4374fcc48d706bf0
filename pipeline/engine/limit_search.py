"""The search for what the server allows: requests in flight (`limit`), and starts in a window (`window`).

1. Slow start (RFC 5681): begin at 32, and one more for each start that was taken, because a refusal is quick where an
   image takes seconds.
2. What a backoff teaches. It lasted longer than an answer takes: starts are counted, in a window of a usual length that
   ended then. It began at the same level as the last ones, and hardly ever were more in flight: requests in flight are
   counted. Else the starts that were taken / (open + closed time) are the rate, whatever the window is.
3. A rate that was refused is cut a little, more where refusals follow soon on each other. Then it grows by each start
   (`Growth`): what was refused is tried again after K starts, later the dearer the last backoff was. A queue stops the
   growth of the requests in flight.
"""

import math
from collections import deque
from dataclasses import dataclass

from pipeline.engine.backoff import PROBE_MOST_S, PROBE_S, USUAL_S, Backoff
from pipeline.engine.starts import RateWindow, StartHistory, Ticket
from pipeline.settings import Limits

FIRST, SLOWLY = 32, 4  # in flight, after the canary; so many times slower at first
SPREAD_SHARE = 0.6  # of an answer's time over which as many starts as may be in flight are spread
SOON_S = 0.001  # the least time

LONG_S, LONG_SHARE = 2.0, 1.5  # a backoff longer than both that and this share of an answer's time is about starts
LOOSE_S = 60.0  # for a rate whose window is of no usual length
SAME, ABOVE = 0.05, 1.03  # of a level: refused at the same one again; hardly above it
ROW = 4  # backoffs at one level that show a limit in flight, although a rate was learned
CUT, TOP = 0.03, 0.985  # a refused rate is cut by so much, and grows fast up to so much of it
SOON, DOUBLINGS = 20, 2  # starts: a refusal after fewer follows soon, and the cut doubles, so often at most
ONE_MORE = 0.9  # of a known window: a backoff that is shorter is about one more of that length
COUNTED_S = 30.0  # in a window of this length, starts are counted out before growth shows what it does
TRIED = 0.64  # of the rate before, at least, is what a trial with fewer 503s leaves

GROWTH, MORE = 0.03, 0.06  # of a rate, and of requests in flight: so much beyond what was refused after 2 K starts
STARTS, BUSY = 50.0, 14.0  # K for a rate, and for requests in flight
LEAST = 12.0  # K is never less
FAR = 8.0  # times the first guess, at most, is what the slow start says was refused
PRICE, MOST_PRICED, PRICED_S = 15, 12, 25.0  # K grows by so many for each start lost; refusals, and seconds, at most
SAME_PRICE, WINDOWS = 0.15, 3  # share of that for each refusal at the same level; windows of starts, at most


@dataclass(slots=True)
class Growth:
    """What is tried after a refusal, by starts since: from `base` fast to near `top`, slowly past it, then faster.

    The curve of CUBIC (RFC 9438), counted in starts: a limit is met where starts are refused, not where time passes.
    """

    base: float
    top: float
    starts: float = STARTS  # K
    step: float = 0.0  # beyond `top` after 2 K, at least
    hastens: bool = True  # K is halved after each 3 K
    count: int = 0

    def next(self) -> float:
        """Count a start; return what may be tried now."""
        self.count += 1
        x = self.count / self.starts - 1
        if x < 0:
            return self.top + (self.top - self.base) * x**3
        value = self.top + max(self.step, GROWTH * self.top) * x**3
        if x >= 2:
            self.starts = max(LEAST, self.starts / 2) if self.hastens else self.starts
            self.top, self.count = value, int(self.starts)
        return value


class LimitSearch:
    """Both limits, and how far the search for them is."""

    def __init__(self, limits: Limits, history: StartHistory) -> None:
        self._history = history
        self._most, self.is_adaptive = float(limits.concurrency), limits.adaptive
        first = FIRST if limits.start is None else limits.start
        self.limit = min(float(first), self._most) if limits.adaptive else self._most
        self.window: RateWindow | None = None
        self.is_slow_start = limits.adaptive
        self._unquiet: deque[float] = deque()  # starts of the slow start that may still be refused
        self._next_at = -math.inf  # keeps starts apart while no window is known
        self._was_limit = False
        self._alone_s = 0.0  # how long the canary alone was in flight
        self._long_at = math.inf  # since the last long backoff ended
        self._is_window_long = False
        self._row: deque[tuple[int, int]] = deque(maxlen=ROW)  # levels of backoffs, and usual ones before them
        self._same = 0
        self._growth = Growth(0.0, 0.0)  # of the rate
        self._more = Growth(self.limit, self.limit, BUSY, step=max(1.0, MORE * self.limit))  # of the limit
        self._soon = 0  # refusals that followed soon on each other

    @property
    def begins(self) -> set[float]:
        """When a window may have begun."""
        return {self._long_at - self._alone_s, self._long_at, self._history.period_at}

    # -- starting -------------------------------------------------------------------------------------------------

    def first(self, at: float, alone_s: float) -> None:
        """Note the first start that counts; before it the canary was in flight alone for `alone_s`."""
        self._long_at = at
        self._alone_s = alone_s

    def full_delay(self, now: float) -> float:
        """Return the seconds until the limit in flight may grow; it is reached."""
        self._was_limit = True
        if not self._unquiet or self.limit >= self._most:
            return math.inf
        return max(SOON_S, self._unquiet[0] + self._history.quiet_s - now)

    def delay(self, now: float, wait_s: float) -> float:
        """Return the seconds until the next start keeps the rate; `wait_s`: for other reasons."""
        spread_s = self._next_at - now if self.window is None else self.window.delay(now)
        if spread_s > 0 >= wait_s:
            self._was_limit = False
        return max(0.0, spread_s)

    def started(self, now: float, *, is_canary: bool, can_grow: bool) -> None:
        """Count a start."""
        if self.is_slow_start and not is_canary:
            self._unquiet.append(now)
        self._next_at = now + (0.0 if is_canary else self._apart_s())
        if self.window is not None:
            self.window.started(now)
        if can_grow and self.is_adaptive and not self.is_slow_start:
            self._grow()

    def sent(self, now: float) -> None:
        """Keep the next start apart from a request that was sent later than it started."""
        if self.window is None:
            self._next_at = max(self._next_at, now + self._apart_s())
        else:
            self.window.sent(now)

    def settle(self, now: float) -> None:
        """Widen the limit for each start of the slow start that was not refused."""
        while self._unquiet and self._unquiet[0] + self._history.quiet_s <= now:
            self._unquiet.popleft()
            if not self._history.is_queued:
                self.limit = min(self._most, self.limit + 1)

    def not_taken(self, ticket: Ticket) -> None:
        """Leave out a start the server did not take."""
        if self.window is not None:
            self.window.forget(ticket.at)

    def refused(self) -> None:
        """End the slow start."""
        self.is_slow_start = False
        self._unquiet.clear()

    def hold(self) -> None:
        """Grow later: something failed."""
        for growth in (self._growth, self._more):
            growth.count = min(growth.count, int(growth.starts))

    def _apart_s(self) -> float:
        """Return how far apart starts are while no window is known."""
        if not self.is_adaptive:
            return 0.0
        spread_s = SPREAD_SHARE * self._history.latency_s / self.limit
        if not self.is_slow_start:
            return spread_s
        slower = min(SLOWLY, max(1.0, SLOWLY * FIRST / self.limit))  # the first ones: a refusal is on its way for long
        return min(spread_s, slower * self._history.quiet_s / self.limit)

    # -- what a backoff teaches -----------------------------------------------------------------------------------

    def backoff(self, ticket: Ticket, *, is_canary: bool, teaches: bool) -> Backoff:
        """Return a backoff that begins with this refusal."""
        gap_s = min(PROBE_MOST_S, max(PROBE_S, self._history.latency_s / 4))
        if self.window is not None:
            gap_s = min(5.0, max(0.05, 1 / self.window.rate))
        apart_s = 0.0 if is_canary else self._apart_s()
        return Backoff(
            began_at=ticket.at,
            last_at=ticket.at,
            level=ticket.level - 1,
            lowest=ticket.level - 1,
            usual=self._history.usual_level(ticket),
            rate=self.window.rate if self.window is not None else 1 / apart_s if apart_s > 0 else math.inf,
            teaches=teaches,
            gap_s=gap_s,
        )

    def learn(self, backoff: Backoff, accepted: Ticket, now: float) -> None:
        """Set the limit that the backoff was about: what it was is told by how it began and how it ended."""
        taken = max(1, self._history.period - 1)
        mean = taken / max(SOON_S, accepted.at - self._history.period_at)
        closed_s = accepted.at - backoff.began_at
        is_same = bool(self._row) and self._is_level(self._row[-1][0], backoff)
        self._row.append((backoff.level, backoff.usual))
        is_long = closed_s > max(LONG_S, LONG_SHARE * self._history.latency_s)
        is_in_flight = not is_long and self._is_in_flight(backoff, accepted, is_same=is_same)
        was_counted = self._is_counted()
        if is_long:
            self._learn_window(backoff, accepted, now)
        elif is_in_flight:
            self.window = None
            self.limit = max(1.0, min(self.limit, float(backoff.level)))
            self.is_slow_start = not is_same  # a coincidence may look like that: try soon
        else:
            self._learn_rate(backoff, accepted, mean, now)
        self._same = min(3, self._same + 1) if is_in_flight and is_same else 0
        lost_s = PRICE * closed_s if was_counted else 0.0 if is_long else min(PRICE * closed_s, PRICED_S)
        self._plan_growth(max(PRICE * min(backoff.refusals, MOST_PRICED) - taken, lost_s * mean))

    def _plan_growth(self, price: float) -> None:
        """Decide after how many starts what was refused is tried again."""
        starts = BUSY + SAME_PRICE * self._same * price
        self._more = Growth(self.limit, self.limit, starts, step=max(1.0, MORE * self.limit))
        self._growth.starts, self._growth.count = max(STARTS, price), 0
        if self.window is not None and self._is_counted():
            self._growth.hastens = False
            self._growth.starts = min(max(price, self.window.most), WINDOWS * self.window.most)

    def _is_counted(self) -> bool:
        """Whether starts in a window are counted that is long enough to count them out."""
        return self.window is not None and self._is_window_long and self.window.span_s >= COUNTED_S

    def _is_in_flight(self, backoff: Backoff, accepted: Ticket, *, is_same: bool) -> bool:
        """Whether requests in flight are counted: refused at one level, with hardly any taken above it."""
        if backoff.level == 0 or backoff.level > backoff.lowest + 1:
            return False
        is_row = len(self._row) == ROW and all(self._fits(row, backoff) for row in self._row)
        if self.window is not None:
            return is_row
        has_room = accepted.level - 1 < backoff.level + is_row  # one had ended when the probe was taken
        is_proof = not backoff.is_named or accepted.level - 1 >= backoff.level / 2  # else all had ended anyway
        return has_room and (is_proof or is_same) and self._fits(self._row[-1], backoff)

    def _fits(self, row: tuple[int, int], backoff: Backoff) -> bool:
        level, usual = row
        return self._is_level(level, backoff) and usual <= ABOVE * backoff.level

    def _is_level(self, level: int, backoff: Backoff) -> bool:
        return abs(level - backoff.level) <= round(SAME * backoff.level)

    def _learn_window(self, backoff: Backoff, accepted: Ticket, now: float) -> None:
        """Take what was started within the window that has just ended."""
        span_s = self._span_s(backoff, accepted)
        taken: float = self._history.taken_between(backoff.began_at - span_s, backoff.began_at)
        if self.window is not None and self.window.span_s == span_s and backoff.began_at - self._long_at > span_s:
            taken = self._cut(2 * self.window.most) * self.window.most  # it began in the middle of the server's window
        if span_s not in USUAL_S:
            taken, span_s = round(taken / max(SOON_S, span_s) * LOOSE_S), LOOSE_S
        self._set_window(max(1.0, taken), span_s, now)
        self._growth = Growth(max(1.0, taken) / span_s, max(1.0, taken) / span_s)
        self._is_window_long = True
        self._long_at, self._alone_s = accepted.at, 0.0

    def _span_s(self, backoff: Backoff, accepted: Ticket) -> float:
        """Return how long the window is: a usual length that was over between the last refusal and `accepted`.

        It began with the first start since the last long backoff; in the beginning that may be the canary.
        """
        window = self.window
        if window is not None and self._is_window_long and accepted.at - backoff.began_at < ONE_MORE * window.span_s:
            return window.span_s  # the end of one more window of that length
        for span_s in USUAL_S:
            for begin in (self._long_at, self._long_at - self._alone_s):
                open_s = accepted.at - begin
                if max(backoff.last_at - begin, open_s / 2) <= span_s <= open_s:
                    return float(span_s)
        return accepted.at - self._long_at

    def _learn_rate(self, backoff: Backoff, accepted: Ticket, mean: float, now: float) -> None:
        if self.window is None:  # the limit in flight was no limit, then
            self.limit = max(self.limit, min(self._most, 2.0 * backoff.level))
            rate = max(mean, 1 / max(SOON_S, accepted.at - backoff.began_at))
            span_s = max(SOON_S, accepted.at - self._history.period_at)
            self._growth = Growth(rate, max(rate, min(backoff.rate, FAR * rate)))
            self._set_window(rate * span_s, span_s, now)
            self._is_window_long = False
            return
        old = self.window.rate
        rate = self._cut(SOON) * old
        self._growth = Growth(rate, TOP * old)
        self._set_window(rate * self.window.span_s, self.window.span_s, now)

    def _cut(self, soon: float) -> float:
        """Return what share of a refused rate is left; `soon`: starts within which refusals follow on each other."""
        self._soon = min(DOUBLINGS, self._soon + 1) if self._growth.count < soon else 0
        return 1 - CUT * 2.0**self._soon

    def _set_window(self, most: float, span_s: float, now: float) -> None:
        if self.window is None or self.window.span_s != span_s:
            self.window = RateWindow.learned(most, span_s, self._history.taken, now)
        else:
            self.window.most = most

    # -- growth ---------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Ask for a little more of what holds starts back."""
        if not self._was_limit:
            if self.window is not None:
                self.window.most = self._growth.next() * self.window.span_s
        elif not self._history.is_queued:
            self.limit = min(self._most, max(self.limit, self._more.next()))

    # -- trials ---------------------------------------------------------------------------------------------------

    def slow_down(self, rate: float, now: float) -> None:
        """Start at most so many a second, to see whether refusals become fewer."""
        self.is_slow_start = False
        if self.window is None or self.window.rate > rate:
            span_s = 1.0 if self.window is None else self.window.span_s
            self._growth = Growth(rate, rate)
            self._set_window(rate * span_s, span_s, now)

    def speed_up(self) -> None:
        """Ask for what the trial took away: it was a limit, and lies between."""
        if self.window is not None:
            self._growth = Growth(self.window.rate, self.window.rate / TRIED)

    def restart(self) -> None:
        """Forget the rate, and start slowly again: what taught it was no limit."""
        self.window, self.is_slow_start = None, True
