"""Starts of requests: which ones were taken, what was in flight, how long answers take; and a rate that was given."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

QUIET_S, QUIET_SHARE = 0.25, 1 / 16  # a start not refused for so long, or for this share of an answer's time, is taken
QUEUE = 2.5  # times the best latency: requests wait in a queue (Netflix concurrency-limits, gradient)
SMOOTH = 0.1  # share of a new latency in the mean
MANY = 20_000  # starts that are remembered, and LEVELS levels
LEVELS, USUAL = 200, 0.8  # the usual level is one that this share of the taken requests did not exceed
SLACK_S = 0.25  # lateness that the next starts may make up for, at a rate that a person gave
NEAR = 8  # starts among which the one before another is looked for: requests overtake each other


@dataclass(slots=True, eq=False)
class Ticket:
    """One slot: made by a start, given back by its end."""

    serial: int
    at: float  # monotonic seconds of its start, and of when it goes out
    level: int  # requests in flight, this one included and refused ones left out


class StartHistory:
    """The requests in flight, and what is known of earlier ones. A *period* begins when the gate opens."""

    def __init__(self) -> None:
        self.open: dict[int, Ticket] = {}
        self.serial = 0
        self.taken: deque[Ticket] = deque(maxlen=MANY)  # starts that were not refused
        self.refused_gap_s = 0.0  # the longest time since a taken start after which one of this period was refused
        self.period_at, self.period = -math.inf, 0  # when the period began, and starts taken since
        self.latency_s, self._best_s, self._answers = 0.0, math.inf, 0
        self._levels: deque[int] = deque(maxlen=LEVELS)  # of taken requests of this period

    def started(self, now: float) -> Ticket:
        """Note a start."""
        self.serial += 1
        ticket = Ticket(self.serial, now, len(self.open) + 1)
        self.open[ticket.serial] = ticket
        self.taken.append(ticket)
        self.period += 1
        return ticket

    def not_taken(self, ticket: Ticket) -> None:
        """Leave out a start the server did not take; those after it had one less beside them than was thought."""
        for serial, other in self.open.items():
            other.level -= serial > ticket.serial
        self.period -= ticket.at >= self.period_at
        for place in range(len(self.taken) - 1, -1, -1):
            if self.taken[place] is ticket:
                del self.taken[place]
                gap_s = min((abs(ticket.at - one.at) for one in self._latest(NEAR)), default=0.0)
                self.refused_gap_s = max(self.refused_gap_s, gap_s)
                return

    def answered(self, ticket: Ticket, seconds: float) -> None:
        """Note an answer that took so long."""
        self._levels.append(ticket.level)
        self._answers += 1
        self.latency_s += max(SMOOTH, 1 / self._answers) * (seconds - self.latency_s)
        if self._answers == 1 or self._answers >= 1 / SMOOTH:
            self._best_s = min(self._best_s, self.latency_s)

    def begin_period(self, at: float, starts: int) -> None:
        """Count from `at` on, when `starts` requests of the new period had been started."""
        self.period_at, self.period = at, starts
        self.refused_gap_s = 0.0
        self._levels.clear()

    def usual_level(self, refused: Ticket) -> int:
        """Return how many were in flight in this period, at most in most cases, before `refused`."""
        levels = sorted([*self._levels, *(t.level for t in self.open.values() if t.serial < refused.serial)])
        return levels[int(USUAL * len(levels))] if levels else 0

    def taken_between(self, begin: float, end: float) -> int:
        """Count the taken starts after `begin` and before `end`."""
        return sum(begin < one.at < end for one in self.taken)

    def least_gap_s(self, until: float) -> float:
        """Return how close two taken starts of this period were, at the least; infinite where there is only one."""
        taken = sorted(one.at for one in self._latest(self.period + 1) if self.period_at <= one.at <= until)
        return min((after - before for before, after in pairwise(taken)), default=math.inf)

    def _latest(self, count: int) -> Iterator[Ticket]:
        return islice(reversed(self.taken), count)

    @property
    def quiet_s(self) -> float:
        """Seconds after which a start that was not refused was taken: a refusal is quick, an image takes long."""
        return max(QUIET_S, QUIET_SHARE * self.latency_s)

    @property
    def is_queued(self) -> bool:
        """Whether answers take so much longer than they could that requests wait for each other."""
        return self.latency_s > QUEUE * self._best_s


class RateWindow:
    """The rate that a person gave, spread evenly; 2.5 a minute is 2 in a minute, 0.5 is 1 in two.

    Spread by the virtual scheduling form of the Generic Cell Rate Algorithm (ITU-T I.371, annex A). A second longer
    than they said: the server counts arrivals, and a slow handshake must not squeeze one more in.
    """

    def __init__(self, per_minute: float) -> None:
        if not 0 < per_minute < math.inf:
            raise ValueError(f"requests per minute must be above 0, not {per_minute}")
        self._most = max(1, math.floor(per_minute))
        self._span_s = 60.0 / min(1.0, per_minute) + 1.0
        self._starts: deque[float] = deque()
        self._next = -math.inf

    def delay(self, now: float) -> float:
        """Return the seconds until one more start keeps the limit."""
        while self._starts and self._starts[0] <= now - self._span_s:
            self._starts.popleft()
        full = self._starts[-self._most] + self._span_s - now if len(self._starts) >= self._most else 0.0
        return max(0.0, full, self._next - now)

    def started(self, now: float) -> None:
        """Count a start; the next ones may make up for a little lateness."""
        self._starts.append(now)
        self._next = (now if self._next == -math.inf else max(self._next, now - SLACK_S)) + self._span_s / self._most

    def forget(self, at: float) -> None:
        """Forget the start at `at`, which does not count. The place it had in the spread stays empty."""
        for place in range(len(self._starts) - 1, -1, -1):
            if self._starts[place] <= at:
                if self._starts[place] == at:
                    del self._starts[place]
                return
