"""At most so many starts in a window, spread evenly: the rate a person gave, kept exactly, or one that was learned."""

import math
from collections import deque

LATE_S = 0.1  # at most, added to a learned window: how much later than sent a request may arrive


class RateWindow:
    """At most `most` starts in any `span_s` seconds, spread evenly.

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

    def forget(self, at: float) -> None:
        """Forget the start at `at`, which does not count. The place it had in the spread stays empty."""
        forget(self._starts, at)


def forget(starts: deque[float], at: float) -> None:
    """Remove `at` from ascending times, where it is there; it is a late one."""
    for place in range(len(starts) - 1, -1, -1):
        if starts[place] <= at:
            if starts[place] == at:
                del starts[place]
            return
