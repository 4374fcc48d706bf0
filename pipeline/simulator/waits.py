"""How long an answer takes.

In: a latency of a profile and a request. Out: seconds, the same for the same seed, request and repeat.
"""

from math import exp, log
from statistics import NormalDist

from pipeline.simulator.asks import Ask
from pipeline.simulator.dice import Dice
from pipeline.simulator.profile import Latency

_Z95 = NormalDist().inv_cdf(0.95)


def seconds(latency: Latency, dice: Dice, ask: Ask, asking: int) -> float:
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
