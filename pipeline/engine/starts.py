"""Starts of requests: which ones were taken, what was in flight, how long answers take; and so many in a window."""

import math
from collections import deque
from dataclasses import dataclass

QUIET_S, QUIET_SHARE = 0.25, 1 / 16  # a start not refused for so long, or for this share of an answer's time, is taken
QUEUE = 2.5  # times the best latency: requests wait in a queue (Netflix concurrency-limits, gradient)
SMOOTH = 0.1  # share of a new latency in the mean
MANY = 20_000  # starts that are remembered, and LEVELS levels
LEVELS, USUAL = 200, 0.8  # the usual level is one that this share of the taken requests did not exceed
LATE_S = 0.1  # at most, added to a learned window: how much later than sent a request may arrive


@dataclass(slots=True, eq=False)
class Ticket:
    """One slot: made by a start, given back by its end."""

    serial: int
    at: float  # monotonic seconds
    level: int  # requests in flight, this one included and refused ones left out


class StartHistory:
    """The requests in flight, and what is known of earlier ones. A *period* begins when the gate opens."""

    def __init__(self) -> None:
        self.open: dict[int, Ticket] = {}
        self.serial = 0
        self.taken: deque[float] = deque(maxlen=MANY)  # times of starts that were not refused
        self.period_at, self.period = -math.inf, 0  # when the period began, and starts taken since
        self.latency_s, self._best_s, self._answers = 0.0, math.inf, 0
        self._levels: deque[int] = deque(maxlen=LEVELS)  # of taken requests of this period

    def started(self, now: float) -> Ticket:
        """Note a start."""
        self.serial += 1
        ticket = Ticket(self.serial, now, len(self.open) + 1)
        self.open[ticket.serial] = ticket
        self.taken.append(now)
        self.period += 1
        return ticket

    def not_taken(self, ticket: Ticket) -> None:
        """Leave out a start the server did not take; those after it had one less beside them than was thought."""
        for serial, other in self.open.items():
            other.level -= serial > ticket.serial
        self.period -= ticket.at >= self.period_at
        _forget(self.taken, ticket.at)

    def answered(self, ticket: Ticket, seconds: float) -> None:
        """Note an answer that took so long."""
        self._levels.append(ticket.level)
        self._answers += 1
        self.latency_s += max(SMOOTH, 1 / self._answers) * (seconds - self.latency_s)
        if self._answers == 1 or self._answers >= 1 / SMOOTH:
            self._best_s = min(self._best_s, self.latency_s)

    def begin_period(self, at: float, starts: int) -> None:
        """Count anew from `at`, when `starts` requests of the new period had been started."""
        self.period_at, self.period = at, starts
        self._levels.clear()

    def usual_level(self, refused: Ticket) -> int:
        """Return how many were in flight in this period, at most in most cases, before `refused`."""
        levels = sorted([*self._levels, *(t.level for t in self.open.values() if t.serial < refused.serial)])
        return levels[int(USUAL * len(levels))] if levels else 0

    def taken_between(self, begin: float, end: float) -> int:
        """Count the taken starts after `begin` and before `end`."""
        return sum(begin < at < end for at in self.taken)

    def taken_rate(self, count: int, now: float) -> float:
        """Return the starts a second of the last `count` that were taken."""
        count = min(len(self.taken), count)
        return count / max(0.1, now - self.taken[-count])

    @property
    def quiet_s(self) -> float:
        """Seconds after which a start that was not refused was taken: a refusal is quick, an image takes long."""
        return max(QUIET_S, QUIET_SHARE * self.latency_s)

    @property
    def is_queued(self) -> bool:
        """Whether answers take so much longer than they could that requests wait for each other."""
        return self.latency_s > QUEUE * self._best_s


class RateWindow:
    """At most `most` starts in any `span_s` seconds, spread evenly: a rate that a person gave, or one that was learned.

    Spread by the virtual scheduling form of the Generic Cell Rate Algorithm (ITU-T I.371, annex A). `slack_s`: lateness
    that the next starts may make up for.
    """

    def __init__(self, most: float, span_s: float, *, slack_s: float = 0.0, margin_s: float = 0.0) -> None:
        self.most, self.span_s, self._slack_s, self._margin_s = most, span_s, slack_s, margin_s
        self._starts: deque[float] = deque()
        self._next = -math.inf

    @classmethod
    def exact(cls, per_minute: float) -> "RateWindow":
        """Keep a rate that a person gave; 2.5 is 2 in a minute, 0.5 is 1 in two.

        A second longer than they said: the server counts arrivals, and a slow handshake must not squeeze one more in.
        """
        if not 0 < per_minute < math.inf:
            raise ValueError(f"requests per minute must be above 0, not {per_minute}")
        return cls(max(1, math.floor(per_minute)), 60.0 / min(1.0, per_minute) + 1.0, slack_s=0.25)

    @classmethod
    def learned(cls, most: float, span_s: float, starts: deque[float], now: float) -> "RateWindow":
        """Keep what a server was seen to allow; `starts` from before count."""
        window = cls(most, span_s, margin_s=min(LATE_S, 0.01 * span_s + 0.02))
        window._starts = deque(at for at in starts if at > now - span_s)
        return window

    def __repr__(self) -> str:
        return f"{self.most:.4g} in {self.span_s:.3g} s"

    @property
    def rate(self) -> float:
        """Starts a second."""
        return self.most / self.span_s

    def delay(self, now: float) -> float:
        """Return the seconds until one more start keeps the limit."""
        span_s = self.span_s + self._margin_s
        while self._starts and self._starts[0] <= now - span_s:
            self._starts.popleft()
        over = len(self._starts) - math.ceil(self.most)
        full = self._starts[over] + span_s - now if over >= 0 else 0.0
        return max(0.0, full, self._next - now)

    def started(self, now: float) -> None:
        """Count a start."""
        self._starts.append(now)
        self._next = (now if self._next == -math.inf else max(self._next, now - self._slack_s)) + 1 / self.rate

    def sent(self, now: float) -> None:
        """Keep the next start apart from a request that was sent later than it started."""
        self._next = max(self._next, now + 1 / self.rate)

    def forget(self, at: float) -> None:
        """Forget the start at `at`, which does not count. The place it had in the spread stays empty."""
        _forget(self._starts, at)


def _forget(starts: deque[float], at: float) -> None:
    """Remove `at` from ascending times, where it is there; it is a late one."""
    for place in range(len(starts) - 1, -1, -1):
        if starts[place] <= at:
            if starts[place] == at:
                del starts[place]
            return
