"""A backoff: a time in which no request is started but one probe at a time; and whether a fast 503 begins one."""

import math
from dataclasses import dataclass

from pipeline.engine.starts import StartHistory, Ticket
from pipeline.model import Failure, Fault

SPREAD = 0.1  # of a delay, added at random: many clients may have been given the same second
PROBE_S, PROBE_MOST_S = 0.25, 2.0  # the first gap before a probe: a quarter of an answer's time, within these
DOWN_S, CAP_S = 8.0, 25.0  # the longest gap in an outage, and else
LEAST_S = 0.05  # the second gap grows from this at least
SLOW_S = 1.0  # gaps grow faster from here, where probes are dear
FEW = 50  # starts that were taken: with fewer, a refused probe is dear
PROBES = 500.0  # a gap of this / (starts taken) seconds is long enough, but none under 5 s

FAST_S, FAST_SHARE = 0.5, 0.25  # before that, or before this share of an answer's time
ROUND = 100  # starts: one in ten of them refused by chance is below 1/2.5 of that in the next round once in forty
MANY, GONE = 0.08, 1 / 2.5  # begin a trial at this share refused, with so much of the rate; a limit if it fell to
CLEAR = 0.25  # refused: more than stray faults
ROUNDS_OF_NO, ROUNDS_OF_YES = 10, 2  # until a no is tried again; with many refused, until a yes was wrong


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Times are those of starts; levels are requests that were in flight beside one."""

    began_at: float  # of the first start that was refused
    last_at: float  # and of the last one
    level: int  # taken requests beside the first refused one
    lowest: int  # and the fewest beside any
    usual: int  # level of the requests that were taken before
    rate: float  # at which requests were started
    teaches: bool  # whether it says something about a limit
    gap_s: float  # before the next probe
    until: float = -math.inf
    is_named: bool = False  # the server named a delay
    is_503: bool = False
    reason: str = ""
    refusals: int = 0
    way_s: float = 0.01  # how long a refusal takes
    has_seen_end: bool = False  # a request has ended since, and a probe was sent for it
    probes: int = 0  # that were refused
    probe: Ticket | None = None

    def delay(self, now: float) -> float:
        """Return the seconds until a probe may start, or the one under way counts as taken."""
        return max(0.0, (self.until if self.probe is None else self.taken_at) - now)

    @property
    def taken_at(self) -> float:
        """When the probe counts as taken: not refused within twice the time of a refusal."""
        return math.inf if self.probe is None else self.probe.at + 2 * self.way_s

    def extend(self, until: float, reason: str) -> None:
        """Wait until then, unless a longer delay holds."""
        if until > self.until:
            self.until, self.reason = until, reason

    def refused(self, ticket: Ticket, now: float) -> bool:
        """Note a refusal; returns whether it makes the backoff longer: a first one does, and that of a probe."""
        self.refusals += 1
        self.way_s = max(self.way_s, now - ticket.at)
        self.last_at = max(self.last_at, ticket.at)
        if self.probe is not ticket and self.refusals > 1:
            return False
        self.probes += self.probe is ticket
        self.probe = None
        self.lowest = min(self.lowest, ticket.level - 1)
        return True

    def probe_gap_s(self, *, taken: int, cap_s: float) -> float:
        """Return the seconds before the next probe, which grow; the more starts were `taken` before, the less."""
        least_s = max(5.0, PROBES / max(1, taken)) if self.teaches else DOWN_S
        gap_s = min(self.gap_s, cap_s, least_s, CAP_S)
        self.gap_s = max(LEAST_S, gap_s) * (2 if taken >= FEW or gap_s < SLOW_S else 4)
        return gap_s


@dataclass(slots=True)
class Overload:
    """Whether a 503 that comes fast is a refusal, as 429 is, or a fault of the moment.

    Two that follow on each other, without a start that was taken between them, are refusals. Whether single ones come
    from a limit is tried: only those of a limit end when less is sent. `is_limit` None: not known.
    """

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
        return False

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
