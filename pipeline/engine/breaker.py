"""Two reasons for everybody to wait: a push-back of the server, and a provider that is down.

In: judged outcomes and the time. Out: how long nobody sends. It refuses to know tasks, money and the limit in use.
"""

import math
from collections import deque
from collections.abc import Callable

from pipeline.engine.halt import Halt
from pipeline.errors import Exit
from pipeline.model import Fault
from pipeline.settings import Retry

SPREAD = 0.1  # of a hint, added at random: many clients were told the same second
BASE_FACTOR, CAP_FACTOR = 5.0, 2.0  # of `retry.wait`: 5 s and 120 s by default

DOWN = frozenset({Fault.UNREACHABLE, Fault.SILENCE, Fault.OUTAGE})
SAYS_NOTHING = frozenset({Fault.THROTTLED, Fault.QUOTA, Fault.MODEL_MISSING})  # it answers, but nothing was served

RECENT, AT_LEAST, TRIPS_AT = 20, 10, 0.5
OPEN_S, OPEN_CAP_S = 30.0, 300.0
GIVE_UP_AT = 5


class Pause:
    """Nobody sends until it is over: the server's own delay, or full-jitter backoff that grows while push-backs go on.

    Full jitter: uniform between 0 and min(cap, base x 2^n).
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, retry: Retry, *, random: Callable[[], float]) -> None:
        self._initial_s = retry.wait_initial_s
        self._base_s, self._cap_s = BASE_FACTOR * retry.wait_initial_s, CAP_FACTOR * retry.wait_max_s
        self._random = random
        self._until = -math.inf
        self._push_backs = 0
        self._misses = 0  # answers in a row that did not find the model
        self.reason = ""

    def left_s(self, now: float) -> float:
        return max(0.0, self._until - now)

    def hint(self, now: float, hint_s: float) -> float:
        """Wait as long as the server said, and up to 10 % more. Return that."""
        seconds = hint_s * (1 + SPREAD * self._random())
        self._extend(now + seconds, f"the server asked for {hint_s:.0f} s")
        return seconds

    def back_off(self, now: float, enough_s: float = 0.0) -> float:
        """Wait after one more push-back without a delay of its own. Return the seconds.

        `enough_s`: until the server takes requests again, when it has let us know without words; it is then as good as
        a hint. 0.0: it has not.
        """
        seconds = min(self._cap_s, self._base_s * 2.0 ** min(self._push_backs, 10)) * self._random()
        if enough_s > 0:
            seconds = enough_s * (1 + SPREAD * self._random())
        self._push_backs += 1
        self._extend(now + seconds, "the server is throttling")
        return seconds

    def space(self, now: float) -> float:
        """Wait before the next try of a model that was not found: `retry.wait.initial`, twice that, ... Return that.

        At least half of it: the tries are to be spaced, so that channels that are only away for a moment come back.
        """
        seconds = min(self._cap_s, self._initial_s * 2.0 ** min(self._misses, 10)) * (1 + self._random()) / 2
        self._misses += 1
        self._extend(now + seconds, "the model was not found")
        return seconds

    def relax(self) -> None:
        """The server took a request again: the next backoff begins at its base."""
        self._push_backs = self._misses = 0

    def _extend(self, until: float, reason: str) -> None:
        if until > self._until:
            self._until, self.reason = until, reason


class Breaker:
    """Stops sending to a provider that is down, and asks with one probe whether it is back.

        closed --(half of the last 20, 10 at least, down)--> open 30 s x k --> one probe --(answered)--> closed
                                                               ^-----------(down)-----------'

    k counts the openings since the last success. A push-back (429) closes it, for somebody is there, but is no success.
    """

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._openings = 0
        self._first_opened_at = 0.0
        self._opened_at = -math.inf
        self._until = -math.inf
        self._probe: object | None = None
        self._is_open = False
        self.verdict: Halt | None = None

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed"
        return f"<Breaker {state}, {sum(self._recent)} of {len(self._recent)} down, {self._openings} openings>"

    def left_s(self, now: float) -> float:
        """Return how long it stays open from now; 0.0 also while the probe is under way."""
        return max(0.0, self._until - now) if self._is_open else 0.0

    def delay(self, now: float) -> float:
        if self._is_open and self._probe is not None:
            return math.inf
        return self.left_s(now)

    def started(self, ticket: object) -> None:
        if self._is_open:
            self._probe = ticket

    def abandoned(self, ticket: object) -> None:
        """The ticket's request never left: if it was the probe, another one will be."""
        if ticket is self._probe:
            self._probe = None

    def finished(self, ticket: object, outcome: Fault | None, *, started_at: float, now: float) -> bool:
        """Judge one answer or the lack of it. Return whether this opened the breaker."""
        is_down = outcome in DOWN
        if not is_down and outcome not in SAYS_NOTHING:
            self._openings = 0
        if ticket is self._probe:
            return self._judge_probe(now, is_down=is_down)
        if self._is_open or started_at < self._opened_at:  # sent before it opened: old news
            return False
        self._recent.append(is_down)
        if len(self._recent) >= AT_LEAST and sum(self._recent) >= TRIPS_AT * len(self._recent):
            self._open(now)
        return self._is_open

    def _judge_probe(self, now: float, *, is_down: bool) -> bool:
        self._probe = None
        self._is_open = False
        self._recent.clear()
        if is_down:
            self._open(now)
        return is_down

    def _open(self, now: float) -> None:
        if self._openings == 0:
            self._first_opened_at = now
        self._openings += 1
        self._is_open, self._opened_at = True, now
        self._until = now + min(OPEN_CAP_S, OPEN_S * self._openings)
        if self._openings >= GIVE_UP_AT:
            minutes = (now - self._first_opened_at) / 60
            self.verdict = Halt(
                Exit.TRY_LATER,
                f"the provider is down: {self._openings} pauses in {minutes:.0f} minutes and no answer in between; "
                "run the same command later",
            )
