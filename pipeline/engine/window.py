"""A rate a person told us, kept exactly.

In: the moment of every start. Out: how long until the next one may start. It refuses to know what is started, how it
ends, or what a server thinks of it.

Starts are spread by the virtual scheduling form of the Generic Cell Rate Algorithm (ITU-T I.371, annex A); a memory of
the last N starts makes the promise exact even where lateness was made up for.
"""

import math
from collections import deque

MINUTE_S = 60.0
MARGIN_S = 1.0  # the server counts arrivals: a slow handshake must not squeeze N + 1 into its minute
SLACK_S = 0.25  # lateness that may be made up for; a busy event loop wakes late and would else lose that time for good


class Window:
    """At most `per_minute` starts in any 60 s, spread evenly.

    A fraction is rounded down (2.5 is 2 in a minute); below 1 the window is longer (0.5 is 1 in two minutes).
    """

    def __init__(self, per_minute: float) -> None:
        if not 0 < per_minute < math.inf:
            raise ValueError(f"requests per minute must be above 0, not {per_minute}")
        most = max(1, math.floor(per_minute))
        self._span_s = MINUTE_S / min(1.0, per_minute) + MARGIN_S
        self._starts: deque[float] = deque(maxlen=most)
        self._spread = Spread()
        self._gap_s = self._span_s / most

    def delay(self, now: float) -> float:
        """Return the seconds until one more start keeps the promise."""
        oldest = self._starts[0] + self._span_s - now if len(self._starts) == self._starts.maxlen else 0.0
        return max(0.0, oldest, self._spread.delay(now))

    def started(self, now: float) -> None:
        self._starts.append(now)
        self._spread.started(now, self._gap_s)

    def abandoned(self, at: float) -> None:
        """Forget the start at `at`, which was never sent. The place it had in the spread stays empty."""
        if at in self._starts:
            self._starts.remove(at)


class Spread:
    """Keeps starts a gap apart; a start that came late brings the next ones forward by at most `SLACK_S`."""

    def __init__(self) -> None:
        self._next = -math.inf

    def delay(self, now: float) -> float:
        return max(0.0, self._next - now)

    def started(self, now: float, gap_s: float) -> None:
        is_first = self._next == -math.inf
        self._next = (now if is_first else max(self._next, now - SLACK_S)) + gap_s
