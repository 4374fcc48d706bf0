"""Whether a 503 that comes fast is a refusal, as 429 is, or a fault of the moment.

Two that follow on each other, without a start that was taken between them, are refusals. Whether single ones come from
a limit is tried: only those of a limit end when less is sent.
"""

from collections import deque
from dataclasses import dataclass

from pipeline.engine.start_history import StartHistory, Ticket
from pipeline.model import Failure, Fault

FAST_S, FAST_SHARE = 0.5, 0.25  # before that, or before this share of an answer's time
ROUND = 100  # starts: one in ten of them refused by chance is below 1/2.5 of that in the next round once in forty
MANY, CUT, GONE = (
    0.08,
    0.8,
    1 / 2.5,
)  # begin a trial at this share refused, with so much of the rate; a limit if it fell to
CLEAR = 0.25  # refused: more than stray faults
ROUNDS_OF_NO, ROUNDS_OF_YES = 10, 2  # until a no is tried again; with many refused, until a yes was wrong


@dataclass(slots=True)
class Overload:
    """`is_limit`: what single 503s are; None: not known."""

    is_limit: bool | None = None
    before: float = 0.0  # the share refused when the trial began; 0.0: none is under way
    _starts: int = 0
    _refused: int = 0
    _rounds: int = 0
    _last: int = 0  # serial of the last fast 503
    _row: int = 0
    _last_served: int = 0

    def served(self, ticket: Ticket) -> None:
        """Note an answer."""
        self._last_served = max(self._last_served, ticket.serial)

    def is_refusal(
        self, ticket: Ticket, failure: Failure, seconds: float, history: StartHistory, *, is_open: bool
    ) -> bool:
        """Whether a 503 that took so long is a refusal. `is_open`: none was refused just before."""
        if failure.status != 503 or failure.fault is not Fault.OUTAGE:
            return False
        if seconds > max(FAST_S, FAST_SHARE * history.latency_s):
            return False
        is_alone = self._last < self._last_served or any(self._last < n < ticket.serial for n in history.open)
        self._row = 1 if is_alone else self._row + 1
        self._last = ticket.serial
        self._refused += is_open
        return self.is_limit is True or self._row >= 2 or not is_open

    def started(self) -> bool | None:
        """Count a start. True: begin a trial, send less; False: they are no limit, forget what they taught."""
        self._starts += 1
        if self._starts < ROUND:
            return None
        share, self._refused, self._starts = self._refused / self._starts, 0, 0
        if self.is_limit is not None:
            return self._review(share)
        if not self.before:
            self.before = share if share >= MANY else 0.0
            return True if self.before else None
        self.is_limit = share <= GONE * self.before
        self.before, self._rounds = 0.0, 0
        return None if self.is_limit else False

    def _review(self, share: float) -> bool | None:
        self._rounds += 1
        if self.is_limit:
            self._rounds *= share >= MANY
            if self._rounds < ROUNDS_OF_YES:
                return None
            self.is_limit, self._rounds = False, 0
            return False
        if share > CLEAR:
            self.is_limit, self._rounds = True, 0
        elif self._rounds >= ROUNDS_OF_NO:
            self.is_limit = None
        return None


def taken_rate(taken: deque[float], now: float) -> float:
    """Return the starts a second that were taken lately."""
    count = min(len(taken), ROUND)
    return count / max(0.1, now - taken[-count])
