"""A backoff: a time in which no request is started but one probe at a time, and which refusals begin one."""

import math
from collections import deque
from dataclasses import dataclass, field

from pipeline.engine.starts import StartHistory, Ticket

SPREAD = 0.1  # of a delay, added at random: many clients may have been given the same second
PROBE_S, PROBE_MOST_S = 0.25, 2.0  # the first gap before a probe: a quarter of an answer's time, within these
DOWN_S, CAP_S = 8.0, 25.0  # the longest gap in an outage, and else
LEAST_S = 0.05  # the second gap grows from this at least
SLOW_S = 1.0  # gaps grow faster from here, where probes are dear
FEW = 50  # starts that were taken: with fewer, a refused probe is dear
PROBES = 500.0  # a gap of this / (starts taken) seconds is long enough, but none under 5 s

SEEN, MOST_SEEN = 3, 32  # backoffs that begin a trial; twice as many after one that failed
EARLY, DEEP = 20, 0.7  # a backoff is early after so few starts, deep at this share of the highest rate refused
SETTLED = 100  # starts: a trial; and within which a second closure shows a limit
NEAR, LEAST_NEAR = 8, 4  # starts, and how many of them chance refuses at most, where it refuses few
MANY, MOST = 0.12, 0.5  # the share that chance refuses at most: before the first trial, and after
MEMORY = 400  # starts that a share is counted over


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Times are those of starts; levels are requests that were in flight beside one."""

    began_at: float  # of the first start that was refused
    last_at: float  # and of the last one
    level: int  # taken requests beside the first refused one
    lowest: int  # and the fewest beside any
    usual: int  # level of the requests that were taken before
    rate: float  # at which requests were started
    is_rate: bool  # whether a rate had been learned, and was no guess
    teaches: bool  # whether it says something about a limit
    gap_s: float  # before the next probe
    until: float = -math.inf
    is_named: bool = False  # the server named a delay
    status: int | None = None  # of the first refusal
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
class Strays:
    """Whether refusals of one status come from a limit, or by chance: then as many come however little is sent.

    Capacity that is shared with strangers refuses by chance (Vertex AI, "dynamic shared quota":
    googleapis/python-genai#2001), and so does a relay of which one account is full. A limit that was found refuses
    again after it has grown, chance before. So after backoffs that began early, or at a much lower rate than was
    refused before, there is a *trial*: requests start as if nothing were limited, and a single refusal closes nothing.
    If it is a limit, it refuses most of the next starts.
    """

    is_limit: bool  # what holds until a trial, or a closure, shows otherwise
    refused: float = 0.0  # by chance
    starts: float = 40.0  # of so many; the first ones are assumed
    _most: float = MANY  # the share that chance refuses at most
    _near: deque[int] = field(default_factory=lambda: deque(maxlen=NEAR))  # serials of the last starts refused
    _trial: int = 0  # serials: at which the trial began, and of the last closure
    _closure: int = -SETTLED
    _seen: deque[tuple[float, int, bool]] = field(default_factory=lambda: deque(maxlen=MOST_SEEN))
    # the last backoffs: rate, serial, whether it was early
    _needed: int = SEEN

    def served(self) -> None:
        """Count an answer."""
        self.starts += not self.is_limit
        if self.starts > MEMORY:
            self.starts, self.refused = self.starts / 2, self.refused / 2

    def is_closing(self, ticket: Ticket) -> bool:
        """Count a refusal while the gate is open; returns whether it is more than chance."""
        if self.is_limit:
            return True
        share = self.refused / self.starts
        self.starts, self.refused = self.starts + 1, self.refused + 1
        self._near.append(ticket.serial)
        near = sum(abs(ticket.serial - serial) < NEAR for serial in self._near)
        mean = NEAR * share
        chance = math.ceil(mean + 3 * math.sqrt(mean * (1 - share)))  # three standard deviations above the mean
        return near >= min(NEAR - 1, max(LEAST_NEAR, chance)) or (self.starts > SETTLED and share > self._most)

    def is_trial(self, serial: int) -> bool:
        """Whether the trial, which the first starts of a run are too, lasts at this start."""
        return serial - self._trial < SETTLED

    def shows_limit(self, serial: int, *, is_probe: bool) -> bool:
        """Note a closure, or that its probes are refused too; returns whether it is a limit."""
        if not self.is_limit:
            is_trial = self.is_trial(serial)
            self.is_limit = is_probe or is_trial or serial - self._closure < SETTLED
            self._closure = serial
            self._near.clear()
            if self.is_limit:
                self._needed = min(MOST_SEEN, 2 * self._needed) if is_trial else SEEN
        return self.is_limit

    def is_trial_due(self, backoff: Backoff, history: StartHistory) -> bool:
        """Note a backoff that has ended; returns whether a trial begins."""
        if not self.is_limit:
            return False
        if backoff.is_named or backoff.rate == math.inf:
            self._seen.clear()
            return False
        rate = backoff.rate if backoff.is_rate else 0.0
        self._seen.append((rate, history.serial, history.period < EARLY))
        last = list(self._seen)[-SEEN:]
        is_deep = 0 < rate <= DEEP * max(rate for rate, _, _ in self._seen)
        if len(self._seen) < self._needed or not (is_deep or all(is_early for _, _, is_early in last)):
            return False
        self.is_limit, self._most, self._trial = False, MOST, history.serial
        self.refused, self.starts = len(last), history.serial - last[0][1] + NEAR
        self._near.clear()
        self._seen.clear()
        return True
