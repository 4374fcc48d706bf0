"""How much the server takes, learned from its push-backs: a limit of requests in flight and, where that is not what it
counts, a rate.

In: starts, and how each was taken. Out: a limit, and the seconds until the next start. It refuses to know why a request
failed, pauses, and what a person allowed per minute.

Sources: additive increase, multiplicative decrease: Chiu and Jain, 1989. Slow start, its threshold, once per round:
RFC 5681, RFC 6582. The factor 0.7, and staying a while just below where the last push-back came from: CUBIC, RFC 9438.
"""

import math
from collections import deque
from dataclasses import dataclass

from pipeline.engine.window import MINUTE_S, Spread

CUT = 0.7
BELOW = 0.97  # of a rate that was just too high
HOLD_S = 30.0  # at least, before asking for more than what was just pushed back
HOLD_PAUSES = 12.0  # a probe may cost a pause as long as the last one: at most one part in 12 of the time
HOLD_STARTS = 30.0  # and at most one start in 30
DOUBLE_S = 60.0  # a learned rate that is not pushed back doubles in this time
FORGET_S = 600.0


@dataclass(slots=True, eq=False)
class Ticket:
    """One slot: made by a start, given back by its end."""

    serial: int
    at: float  # monotonic seconds
    level: int  # requests in flight, this one included
    is_refused: bool = False


def hold_s(pause_s: float, per_minute: float) -> float:
    """Return how long not to ask for more, after a push-back that cost `pause_s`, at `per_minute` starts."""
    return max(HOLD_S, HOLD_PAUSES * pause_s, HOLD_STARTS * MINUTE_S / max(per_minute, 1.0))


class History:
    """The starts of the last two minutes. What is in flight counts as taken by the server: refusals are quick."""

    def __init__(self) -> None:
        self._starts: deque[Ticket] = deque()

    def started(self, ticket: Ticket) -> None:
        self._starts.append(ticket)
        while self._starts[0].at < ticket.at - 2 * MINUTE_S:
            self._starts.popleft()

    def taken(self, before: Ticket) -> int:
        """Count the starts the server took in the minute up to `before`."""
        return sum(1 for t in self._starts if self._is_taken(t, before))

    def peak(self, before: Ticket) -> int:
        """Return the most requests in flight that it took in that minute."""
        return max((t.level for t in self._starts if self._is_taken(t, before)), default=0)

    def _is_taken(self, ticket: Ticket, before: Ticket) -> bool:
        return not ticket.is_refused and ticket.serial < before.serial and ticket.at > before.at - MINUTE_S


class Limit:
    """How many requests may be in flight."""

    def __init__(self, *, start: int, most: int, is_adaptive: bool) -> None:
        self._most = float(most)
        self._is_adaptive = is_adaptive
        self.value = float(min(max(1, start), most)) if is_adaptive else self._most
        self._threshold = math.inf  # slow start below it
        self._held_until = -math.inf  # no growth past the threshold until then
        self._full_serial = 0  # the last start that used the limit up
        self._calm_serial = 0  # starts up to here may not make it grow

    def started(self, ticket: Ticket) -> None:
        if ticket.level >= int(self.value):
            self._full_serial = ticket.serial

    def grow(self, ticket: Ticket, now: float) -> None:
        """A request was served: allow more if the limit was used up while it was in flight."""
        if not self._is_adaptive or ticket.serial <= self._calm_serial or self._full_serial < ticket.serial:
            return
        grown = self.value + (1.0 if self.value + 1 <= self._threshold else 1 / self.value)
        if now < self._held_until:
            grown = max(self.value, min(grown, self._threshold))
        self.value = min(grown, self._most)

    def stay(self, last_serial: int) -> None:
        """The server is in trouble: what is in flight now may not make the limit grow."""
        self._calm_serial = last_serial

    def cut(self, last_serial: int) -> None:
        """The server pushed back: x 0.7, slow start up to where it was."""
        if self._is_adaptive:
            self._calm_serial = last_serial
            self._threshold, self._held_until = self.value, -math.inf
            self.value = max(1.0, self.value * CUT)

    def hold(self, level: int, until: float) -> None:
        """It took `level` in flight and not one more: stay there until `until`."""
        if self._is_adaptive:
            self._threshold, self._held_until = max(1.0, float(level)), until


class Rate:
    """Starts per minute the server seems to allow; none is known until `learn`."""

    def __init__(self) -> None:
        self._base: float | None = None
        self._held_until = -math.inf
        self._spread = Spread()

    def per_minute(self, now: float) -> float:
        """Return the rate of this moment; infinite when none is known, or no push-back came for long."""
        if self._base is None or now > self._held_until + FORGET_S:
            return math.inf
        return self._base * 2 ** (max(0.0, now - self._held_until) / DOUBLE_S)

    def delay(self, now: float) -> float:
        return self._spread.delay(now) if self.per_minute(now) < math.inf else 0.0

    def started(self, now: float) -> None:
        self._spread.started(now, MINUTE_S / self.per_minute(now))

    def learn(self, per_minute: float, pause_s: float, now: float) -> None:
        """Stay just below `per_minute` for a while, then ask for slowly more."""
        self._base = max(1.0, per_minute * BELOW)
        self._held_until = now + pause_s + hold_s(pause_s, self._base)
