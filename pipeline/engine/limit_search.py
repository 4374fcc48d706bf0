"""The search for what the server allows: requests in flight (`limit`), and starts in a window (`window`).

1. Slow start (RFC 5681): begin at 32, and one more for each start that was taken, because a refusal is quick where an
   image takes seconds.
2. What a backoff teaches. It lasted longer than an answer takes: starts are counted, in a window of a usual length that
   ended then. It began at the same level as the last ones, and hardly ever were more in flight: requests in flight are
   counted. Else the starts that were taken / (open + closed time) are the rate, whatever the window is.
3. Between a rate that was taken and one that was refused lies the limit: halve the distance (binary search). After
   that grow a little after so many starts, faster the longer nothing is refused (CUBIC, RFC 9438), seldomer the dearer
   the last backoff was and the more often the answer was the same. A queue stops growth.
"""

import math
from collections import deque

from pipeline.engine.backoff import PROBE_MOST_S, PROBE_S, USUAL_S, Backoff
from pipeline.engine.rate_window import RateWindow
from pipeline.engine.start_history import StartHistory, Ticket
from pipeline.settings import Limits

FIRST = 32  # in flight, after the canary
SPREAD_SHARE = 0.8  # of an answer's time over which as many starts as may be in flight are spread
SOON_S = 0.001  # the least time

LONG_S, LONG_SHARE = 2.0, 1.5  # a backoff longer than both that and this share of an answer's time is about starts
LOOSE_S = 60.0  # for a rate whose window is of no usual length
FEW = 8  # starts that were taken: too few to tell a rate
SAME, ABOVE = 0.05, 1.03  # of a level: refused at the same one again; hardly above it
ROW = 4  # backoffs at one level that show a limit in flight, although a rate was learned
CUT, CUT_FEW, CUT_MOST = 0.97, 0.9, 0.7  # of a rate that was refused: at least, with few taken, at most

GROWTH, GROWTH_CAP = 0.05, 0.4  # a step of growth: so much more, twice that after each step that held, up to
STARTS = 25  # before a step of growth
PRICE, MOST_PRICED, PRICED_S = 15, 12, 25.0  # more starts for each one lost; refusals, and seconds of starts, at most
STEP_S, STEPS = 10.0, 6  # between two steps in a long window, or its length / STEPS: what was too much shows at its end
SEARCH, SEARCH_CAP, SEARCH_STARTS = 1.1, 1.5, 5  # how near to a refused rate, how far in one step, after how many


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
        self._long_at = self._before_at = math.inf  # since the last long backoff ended, and the one before
        self._is_window_long = False
        self._is_confirmed = False  # a first long backoff after few starts may be about another run's
        self._row: deque[tuple[int, int]] = deque(maxlen=ROW)  # levels of backoffs, and usual ones before them
        self._same = 0
        self._ceiling = math.inf  # a rate that was refused
        self._good = math.inf  # one that was taken
        self._since_growth, self._interval, self._held = 0, float(STARTS), 0

    @property
    def begins(self) -> set[float]:
        """When a window may have begun."""
        return {self._long_at - self._alone_s, self._long_at, self._history.period_at}

    # -- starting -------------------------------------------------------------------------------------------------

    def first(self, at: float, alone_s: float) -> None:
        """Note the first start that counts; before it the canary was in flight alone for `alone_s`."""
        self._long_at = self._before_at = at
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
        self._since_growth += 1
        if can_grow and self.is_adaptive and not self.is_slow_start:
            self._grow()

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
        self._held, self._since_growth = 0, 0

    def _apart_s(self) -> float:
        """Return how far apart starts are while no window is known."""
        if not self.is_adaptive:
            return 0.0
        if self.is_slow_start:  # the first ones at half the speed: a refusal is on its way for long
            return self._history.quiet_s / self.limit * (2 if self.limit <= FIRST else 1)
        return SPREAD_SHARE * self._history.latency_s / self.limit

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
            was_limit=self._was_limit,
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
        if is_long:
            self._learn_window(backoff, accepted, now)
        elif is_in_flight:
            self.window, self._ceiling = None, math.inf
            self.limit = max(1.0, min(self.limit, float(backoff.level)))
            self.is_slow_start = not is_same  # a coincidence may look like that: try soon
        else:
            self._learn_rate(backoff, accepted, taken, mean, now)
        self._good = self.window.rate if self.window is not None else math.inf
        lost = 0.0 if is_long else min(PRICE * closed_s, PRICED_S) * mean
        self._interval = max(STARTS, PRICE * min(backoff.refusals, MOST_PRICED) - taken, lost)
        self._same = min(3, self._same + 1) if is_in_flight and is_same else 0
        self._interval *= 1 + self._same / 4
        self.hold()

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
        history = self._history
        if sum(self._long_at <= at < backoff.began_at for at in history.taken) < FEW:
            self._long_at = self._before_at  # too few to tell: with the period before
        span_s = self._span_s(backoff, accepted)
        taken = history.taken_between(backoff.began_at - span_s, backoff.began_at)
        if span_s not in USUAL_S:
            taken, span_s = round(taken / max(SOON_S, span_s) * LOOSE_S), LOOSE_S
        if taken >= FEW or self.window is not None or self._is_confirmed:
            self._set_window(max(1, taken), span_s, now)
            self._is_window_long, self._ceiling = True, math.inf
        self._is_confirmed = True
        self._before_at, self._long_at, self._alone_s = self._long_at, accepted.at, 0.0

    def _span_s(self, backoff: Backoff, accepted: Ticket) -> float:
        """Return how long the window is: a usual length that was over between the last refusal and `accepted`.

        It began with the first start since the last long backoff; in the beginning that may be the canary.
        """
        window = self.window
        if window is not None and self._is_window_long and backoff.last_at - backoff.began_at <= window.span_s:
            times = math.floor((accepted.at - self._long_at) / window.span_s)
            if times > 1 or (times == 1 and window.span_s >= backoff.last_at - self._long_at):
                return window.span_s  # the end of one more window of that length
        for span_s in USUAL_S:
            for begin in (self._long_at, self._long_at - self._alone_s):
                open_s = accepted.at - begin
                if max(backoff.last_at - begin, open_s / 2) <= span_s <= open_s:
                    return float(span_s)
        return accepted.at - self._long_at

    def _learn_rate(self, backoff: Backoff, accepted: Ticket, taken: int, mean: float, now: float) -> None:
        if self.window is not None:
            self._set_window(self._lower(taken, mean) * self.window.span_s, self.window.span_s, now)
        else:  # the limit in flight was no limit, then
            self.limit = max(self.limit, min(self._most, 2.0 * backoff.level))
            rate = max(mean, 1 / max(SOON_S, accepted.at - backoff.began_at))
            span_s = max(SOON_S, accepted.at - self._history.period_at)
            self._set_window(rate * span_s, span_s, now)
            self._is_window_long = False
        self._ceiling = backoff.rate

    def _lower(self, taken: int, mean: float) -> float:
        """Return a rate below the one that was just refused."""
        assert self.window is not None
        old = self.window.rate
        if self._good < CUT * old and self._since_growth < max(STARTS, self.window.most):  # it was raised just now
            return max(self._good, min(mean, CUT * old))
        return min(CUT * old, max(CUT_MOST * old, mean)) if taken >= FEW else CUT_FEW * old

    def _set_window(self, most: float, span_s: float, now: float) -> None:
        if self.window is None or self.window.span_s != span_s:
            self.window = RateWindow.learned(most, span_s, self._history.taken, now)
        else:
            self.window.most = most

    # -- growth ---------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Ask for a little more of what holds starts back, when enough were taken."""
        window = None if self._was_limit else self.window
        if window is not None and window.rate * SEARCH < self._ceiling < math.inf:
            if self._since_growth >= SEARCH_STARTS:
                self._good = window.rate
                window.most *= min(SEARCH_CAP, math.sqrt(self._ceiling / window.rate))
                self._since_growth = 0
            return
        slow = 0.0 if self.window is None else min(self.window.most / STEPS, STEP_S * self.window.rate)
        if self._since_growth < max(SEARCH_STARTS, self._interval * 0.5**self._held, slow):
            return
        self._since_growth = 0
        step = min(GROWTH_CAP, GROWTH * 2.0**self._held)
        if window is not None:
            self._good = window.rate
            window.most *= 1 + step
        elif self._was_limit and not self._history.is_queued:
            self.limit = min(self._most, self.limit + max(1.0, step * self.limit))
        self._held += 1

    # -- trials ---------------------------------------------------------------------------------------------------

    def slow_down(self, rate: float, now: float) -> None:
        """Start at most so many a second, to see whether refusals become fewer."""
        self.is_slow_start = False
        if self.window is None or self.window.rate > rate:
            span_s = 1.0 if self.window is None else self.window.span_s
            self._set_window(rate * span_s, span_s, now)

    def restart(self) -> None:
        """Forget the rate, and start slowly again: what taught it was no limit."""
        self.window, self.is_slow_start = None, True
