"""What was started lately and how the server took it: what tells a limit of requests in flight from one per minute.

In: starts, their ends, refusals. Out: counts. It refuses to know what is decided from them.

When one side starts and ends something, the other side learns of it later. How much later, at most, a refusal tells:
it went there and back. So what was in flight at the server is known between two bounds, and they are what is compared.
"""

import math
from collections import deque
from dataclasses import dataclass
from itertools import accumulate

from pipeline.engine.window import MINUTE_S

SURE_S = 30.0  # what was in flight longer ago says nothing about now
LATE_S = 0.1  # by which our own books may be late: an answer is decoded before its slot is given back
GAPS = 3.0  # between starts that were taken: so long after a refusal a limit per second takes again


@dataclass(slots=True, eq=False)
class Ticket:
    """One slot: made by a start, given back by its end."""

    serial: int
    at: float  # monotonic seconds
    level: int  # requests in flight, this one included
    is_refused: bool = False
    ended_at: float = math.inf


class History:
    """The starts of the last two minutes. What is in flight counts as taken by the server: refusals are quick."""

    def __init__(self) -> None:
        self._starts: deque[Ticket] = deque()
        self._began: float | None = None

    def started(self, ticket: Ticket) -> None:
        if self._began is None:
            self._began = ticket.at
        self._starts.append(ticket)
        while self._starts[0].at < ticket.at - 2 * MINUTE_S:
            self._starts.popleft()

    def refused(self, ticket: Ticket) -> None:
        """Forget a start the server did not take; the ones after it had one less before them than was thought."""
        ticket.is_refused = True
        for later in self._starts:
            later.level -= later.serial > ticket.serial

    def age_s(self, now: float) -> float:
        """Return the seconds since the first start of all."""
        return 0.0 if self._began is None else now - self._began

    def taken(self, before: Ticket | None = None) -> int:
        """Count the starts the server took in the minute up to `before`, or up to the last one."""
        return len(self._counted(before or self._starts[-1]))

    def most_beside(self, refused: Ticket) -> int:
        """Count what may have been in flight at the server when it refused this one: it can be about no more."""
        return refused.level - 1 + sum(not t.is_refused for t in self._starts if t.serial > refused.serial)

    def most_taken(self, first: Ticket, refused: Ticket) -> int:
        """Count what was surely in flight at the server at one moment, lately before the `first` refusal of this row.

        Whatever is still on its way, there or back, is left out, and so are starts whose own refusal may yet come.
        """
        way_s = self._way_s()
        since, until = first.at - SURE_S, refused.at - way_s
        there = [(max(t.at + way_s, since), t.ended_at - way_s) for t in self._starts if not t.is_refused]
        there = [(came, left) for came, left in there if came < min(left, until)]
        moments = sorted([(came, 1) for came, _ in there] + [(left, -1) for _, left in there])
        return max(accumulate(change for _, change in moments), default=0)

    def frees_s(self, first: Ticket, refused: Ticket, now: float) -> float:
        """Return the seconds until a server that counts the starts of a minute takes one again; 0.0: it may be another.

        It is none when it took something since the `first` refusal of this row; when as much was in flight as it ever
        took; or when so little time has passed that a limit per second would not have taken anything either.
        """
        counted, way_s = self._counted(first), self._way_s()
        has_taken = any(not t.is_refused and first.at + way_s < t.at < refused.at - way_s for t in self._starts)
        if not counted or has_taken or self.most_beside(refused) >= max(1, self.most_taken(first, refused)):
            return 0.0
        gap_s = (first.at - counted[0].at) / len(counted)
        is_long = refused.at - first.at > GAPS * gap_s
        return max(0.0, counted[0].at + MINUTE_S - now) if is_long else 0.0

    def _way_s(self) -> float:
        """Return how long a request or an answer may be on its way: as long as any refusal lately took for both."""
        ways = (t.ended_at - t.at for t in self._starts if t.is_refused and t.ended_at < math.inf)
        return max(ways, default=0.0) + LATE_S

    def _counted(self, before: Ticket) -> list[Ticket]:
        """Return the starts that were taken in the minute up to this one."""
        since = before.at - MINUTE_S
        return [t for t in self._starts if not t.is_refused and t.serial < before.serial and t.at > since]
