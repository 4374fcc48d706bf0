"""Which requests were started, which of them the server took, how many were in flight, and how long answers take."""

from collections import deque
from dataclasses import dataclass

from pipeline.engine.rate_window import forget

QUIET_S, QUIET_SHARE = 0.25, 1 / 16  # a start not refused for so long, or for this share of an answer's time, is taken
QUEUE = 2.5  # times the best latency: requests wait in a queue (Netflix concurrency-limits, gradient)
SMOOTH = 0.1  # share of a new latency in the mean
MANY = 20_000  # starts that are remembered, and LEVELS levels
LEVELS, USUAL = 200, 0.8  # the usual level is one that this share of the taken requests did not exceed


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
        self.period_at, self.period = float("-inf"), 0  # when the period began, and starts taken since
        self.latency_s, self._best_s, self._answers = 0.0, float("inf"), 0
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
        forget(self.taken, ticket.at)

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

    @property
    def quiet_s(self) -> float:
        """Seconds after which a start that was not refused was taken: a refusal is quick, an image takes long."""
        return max(QUIET_S, QUIET_SHARE * self.latency_s)

    @property
    def is_queued(self) -> bool:
        """Whether answers take so much longer than they could that requests wait for each other."""
        return self.latency_s > QUEUE * self._best_s
