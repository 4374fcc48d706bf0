"""Rate limits of one key: requests in any window or of a token bucket, and requests at once; they may change with time.

Not part of `api`, because it decides what a client's pace meets and is tested by itself: the clock is a parameter and
nothing sleeps.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.simulator.profile import CapacityStep, Profile

_BUSY_S = 1.0  # the delay named when too many requests are under way


@dataclass(slots=True)
class _Account:
    starts: deque[float] = field(default_factory=deque)
    active: int = 0
    tokens: float = float("inf")  # of the bucket, where there is one: full at first
    filled_at: float = 0.0


class Limiter:
    """Counts the requests of each key."""

    def __init__(self, profile: Profile, clock: Callable[[], float]) -> None:
        self._profile = profile
        self._clock = clock
        self._began = clock()
        self._accounts: dict[str, _Account] = {}

    def __repr__(self) -> str:
        active = sum(account.active for account in self._accounts.values())
        return f"<Limiter {len(self._accounts)} keys, {active} active>"

    def step(self) -> CapacityStep:
        """Return the capacity that holds now; before the first step there is no limit."""
        elapsed = self._clock() - self._began
        if self._profile.capacity_repeats:
            elapsed %= self._profile.capacity_repeats
        begun = [step for step in self._profile.capacity if step.after <= elapsed]
        return begun[-1] if begun else CapacityStep(after=0.0)

    def acquire(self, key: str) -> float | None:
        """Admit a request (then `release` must follow) and return None; or return the seconds until one is admitted."""
        account, now, step = self._accounts.setdefault(key, _Account()), self._clock(), self.step()
        limits = self._profile.limits
        per_minute = _least(limits.requests_per_minute, step.requests_per_minute)
        if per_minute is not None:
            counts = self._window_delay if limits.burst is None else self._bucket_delay
            if (delay_s := counts(account, now, per_minute)) > 0:
                return delay_s
        at_once = _least(limits.concurrency, step.concurrency)
        if at_once is not None and account.active >= at_once:
            return _BUSY_S
        account.starts.append(now)
        account.tokens -= 1
        account.active += 1
        return None

    def _window_delay(self, account: _Account, now: float, per_minute: int) -> float:
        window_s = self._profile.limits.window
        while account.starts and account.starts[0] <= now - window_s:
            account.starts.popleft()
        most = max(1, round(per_minute * window_s / 60))
        return account.starts[-most] + window_s - now if len(account.starts) >= most else 0.0

    def _bucket_delay(self, account: _Account, now: float, per_minute: int) -> float:
        per_second, burst = per_minute / 60, self._profile.limits.burst or 1
        account.tokens = min(float(burst), account.tokens + (now - account.filled_at) * per_second)
        account.filled_at = now
        return max(0.0, 1 - 1e-9 - account.tokens) / per_second

    def release(self, key: str) -> None:
        """Note that an admitted request is over."""
        self._accounts[key].active -= 1


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
