"""A backoff: a time in which no request is started but one probe at a time, and when the next probe is due."""

import math
from dataclasses import dataclass

from pipeline.engine.start_history import Ticket

SPREAD = 0.1  # of a delay, added at random: many clients may have been given the same second
PROBE_S, PROBE_MOST_S = 0.25, 2.0  # the first gap before a probe: a quarter of an answer's time, within these
SLOW_S, CAP_S = 1.0, 25.0  # gaps double up to the first, then grow faster where probes are dear; and the longest
FEW = 50  # starts that were taken: with fewer, a refused probe is dear
PROBES = 500.0  # a gap of this / (starts taken) seconds is long enough, but none under 5 s
USUAL_S = (60, 10, 1, 300, 3600, 30, 5, 6, 600)  # lengths of windows that people choose, the most usual ones first
LATE_S = 0.1  # how much later than a window's end a probe asks


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
    was_limit: bool  # whether the limit in flight was what held starts back
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

    def probe_at(self, now: float, *, taken: int, begins: set[float], cap_s: float, die: float) -> float:
        """Return when to ask again: after a gap that grows, or near that when a window of a usual length is over.

        `taken`: starts before the backoff. The fewer, the dearer is a refused probe, and the faster the gaps grow.
        `begins`: when a window may have begun.
        """
        least_s = max(5.0, PROBES / max(1, taken)) if self.teaches else CAP_S
        gap_s = min(self.gap_s, cap_s, least_s, CAP_S)
        self.gap_s = gap_s * (2 if taken >= FEW or gap_s < SLOW_S else 4)
        ends = sorted(begin + span_s + LATE_S for begin in begins for span_s in USUAL_S)
        near = [at for at in ends if now + 0.5 * gap_s <= at <= now + 1.5 * gap_s]
        return near[0] if near and self.teaches else now + gap_s * (1 + SPREAD * die)
