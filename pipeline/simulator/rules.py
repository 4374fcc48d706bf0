"""Applies a profile to a request: its rate limits, which fault strikes, and how long its answer takes.

Chance is repeatable: it depends on the profile's seed, the request and how often that was made, not on the order of
arrival. The clock is a parameter and nothing sleeps.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import exp, log
from statistics import NormalDist
from typing import TypeVar

from pipeline.simulator.faults import ALIASES, FAULTS
from pipeline.simulator.profile import CapacityStep, FaultRule, Latency, Profile
from pipeline.simulator.validation import Ask

T = TypeVar("T")
_SPAN = 2.0**64


class Dice:
    """Rolls by hashing what is asked about."""

    def __init__(self, *seed: object) -> None:
        self._seed = "\x1f".join(map(str, seed))

    def number(self, *about: object) -> int:
        """Return 64 bits."""
        text = "\x1f".join((self._seed, *map(str, about)))
        return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())

    def fraction(self, *about: object) -> float:
        """Return a number from 0 up to but not including 1."""
        return self.number(*about) / _SPAN

    def whole(self, low: int, high: int, *about: object) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + self.number(*about) % (high - low + 1)

    def choice(self, among: Sequence[T], *about: object) -> T:
        return among[self.number(*about) % len(among)]


_WORD = re.compile(r"\[\[\s*([a-z0-9_]+)\s*(?::\s*([0-9]{1,6}))?\s*\]\]")
_FORGET_AT = 200_000  # requests whose repeats are remembered; a longer run counts from 1 again


def without_words(prompt: str) -> str:
    """Return a prompt without its bracketed fault words, as it should be drawn."""
    return _WORD.sub("", prompt).strip()


class FaultRules:
    """Counts what was asked, and decides."""

    def __init__(self, profile: Profile) -> None:
        self._rules = profile.faults
        self._dice = Dice(profile.seed, "rules")
        self._askings: Counter[str] = Counter()
        self._matches: Counter[int] = Counter()

    def asking(self, ask: Ask) -> int:
        """Count one request and return how often it has been asked now, from 1."""
        if len(self._askings) > _FORGET_AT:
            self._askings.clear()
        self._askings[ask.digest] += 1
        return self._askings[ask.digest]

    def strike(self, ask: Ask, asking: int, step: CapacityStep) -> FaultRule | None:
        """Return the rule that strikes the `asking`-th time this request is made."""
        named = _named(ask.prompt, asking)
        if named is not None:
            return FaultRule(name=named)
        if step.outage is not None:
            return FaultRule(name=step.outage)
        struck = [rule for place, rule in enumerate(self._rules) if self._strikes(place, rule, ask, asking)]
        return struck[0] if struck else None  # every rule counts, also when an earlier one struck

    def _strikes(self, place: int, rule: FaultRule, ask: Ask, asking: int) -> bool:
        if not rule.match.fits(ask):
            return False
        self._matches[place] += 1
        if rule.probability is not None:
            return self._dice.fraction(place, ask.digest, asking) < rule.probability
        count = asking if rule.per == "request" else self._matches[place]
        if rule.every is not None:
            return count % rule.every == 0
        if rule.first is not None:
            return count <= rule.first
        return rule.at is None or count in rule.at


def _named(prompt: str, asking: int) -> str | None:
    for found in _WORD.finditer(prompt):
        name = ALIASES.get(found[1], found[1])
        if name in FAULTS and (found[2] is None or asking <= int(found[2])):
            return name
    return None


_Z95 = NormalDist().inv_cdf(0.95)


def wait_s(latency: Latency, dice: Dice, ask: Ask, asking: int) -> float:
    """Return the seconds of the `asking`-th time this request is made."""
    drawn = _drawn(latency, dice.fraction("wait", ask.digest, asking))
    wanted = ask.size or "1K"
    return drawn * next((factor for size, factor in latency.by_size.items() if size == wanted), 1.0)


def _drawn(latency: Latency, chance: float) -> float:
    if latency.fixed is not None:
        return latency.fixed
    if latency.uniform is not None:
        least, most = latency.uniform
        return least + (most - least) * chance
    if latency.p50 is None or latency.p95 is None:
        return 0.0
    spread = (log(latency.p95) - log(latency.p50)) / _Z95
    return exp(log(latency.p50) + spread * NormalDist().inv_cdf(min(max(chance, 1e-6), 1 - 1e-6)))


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
