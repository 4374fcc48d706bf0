"""What of an untold limit is used, and how much is refused, in the first three minutes of a run: every way to count.

The slow start and the search count: `used` is images that came, of what the server would have taken from the first
second on. `WEAK` names where the goal (85 % used, 10 % refused) is missed, and by how much.
"""

import heapq
import math
import random
from collections.abc import Callable

import pytest

from pipeline.settings import Limits
from tests.engine.rehearsal import Bucket, Fixed, InFlight, Limit, Outage, Part, Rolling, Server, Stray, rehearse

Latency = Callable[[random.Random], float]


def about(mean_s: float, share: float = 0.2) -> Latency:
    return lambda die: mean_s * die.uniform(1 - share, 1 + share)


def evenly(least_s: float, most_s: float) -> Latency:
    return lambda die: die.uniform(least_s, most_s)


def lognormal(mean_s: float, sigma: float = 0.5) -> Latency:
    return lambda die: die.lognormvariate(math.log(mean_s) - sigma**2 / 2, sigma)


def steps(until: float, before: float, after: float) -> Callable[[float], float]:
    """Return what a rate allows up to t, when it changes once."""
    return lambda t: before * min(t, until) + after * max(0.0, t - until)


def one(
    limit: Callable[[], Limit],
    per_second: float | Callable[[float], float],
    latency_s: Latency,
    *,
    status: int = 429,
    names: str = "",
) -> Callable[[], Server]:
    allowed = per_second if callable(per_second) else lambda t: per_second * t
    return lambda: Server([Part(limit(), status, names)], allowed, latency_s)


WINDOWS: dict[str, tuple[Callable[[], Limit], float, Latency]] = {
    "10-a-second": (lambda: Fixed(10, 1), 10, about(2)),
    "30-a-second-rolling": (lambda: Rolling(30, 1), 30, about(1)),
    "180-in-6-s": (lambda: Rolling(180, 6), 30, about(0.5)),
    "100-in-10-s": (lambda: Fixed(100, 10), 10, about(2)),
    "300-a-minute": (lambda: Fixed(300, 60), 5, about(1)),
    "600-a-minute-rolling": (lambda: Rolling(600, 60), 10, about(1)),
    "20-a-minute": (lambda: Rolling(20, 60), 1 / 3, about(8)),
    "600-in-5-min": (lambda: Fixed(600, 300), 2, about(3)),
    "900-in-5-min-rolling": (lambda: Rolling(900, 300), 3, about(1)),
    "bucket-20": (lambda: Bucket(20, 20), 20, about(1)),
    "bucket-5": (lambda: Bucket(5, 5), 5, about(1)),
    "nginx-no-burst": (lambda: Bucket(20, 1), 20, about(1)),
    "20-in-flight": (lambda: InFlight(20), 20 / 1.024, about(1)),
    "20-in-flight-slow": (lambda: InFlight(20), 20 / 8.024, about(8)),
    "60-in-flight-2-to-8-s": (lambda: InFlight(60), 60 / 5.024, evenly(2, 8)),
    "10-a-second-rolling": (lambda: Rolling(10, 1), 10, about(2)),
    "50-in-10-s": (lambda: Fixed(50, 10), 5, lognormal(4)),
    "60-a-minute-off-phase": (lambda: Fixed(60, 60, -23), 1, about(4)),
    "nginx-no-burst-slow": (lambda: Bucket(2, 1), 2, lognormal(4)),
    "4-in-flight": (lambda: InFlight(4), 4 / 3.024, about(3)),
}
CASES: dict[str, Callable[[], Server]] = {
    **{name: one(*case) for name, case in WINDOWS.items()},
    **{f"{name}-retry-after": one(*WINDOWS[name], names="ceil") for name in WINDOWS},
    **{
        f"{name}-503": one(*WINDOWS[name], status=503)
        for name in (
            "nginx-no-burst",
            "bucket-20",
            "300-a-minute",
            "20-in-flight",
            "10-a-second",
            "30-a-second-rolling",
        )
    },
    "minute-and-in-flight": lambda: Server([Part(Rolling(600, 60)), Part(InFlight(30))], lambda t: 10 * t, about(2)),
    "second-and-minute": lambda: Server([Part(Rolling(10, 1)), Part(Rolling(300, 60))], lambda t: 5 * t, about(2)),
    "queue": lambda: Server([], lambda t: 10 * t, about(1), slots=10),
    "bucket-doubles": one(lambda: Bucket(lambda t: 10 if t < 60 else 20, 10), steps(60, 10, 20), about(1)),
    "bucket-halves": one(lambda: Bucket(lambda t: 20 if t < 60 else 10, 10), steps(60, 20, 10), about(1)),
    "minute-halves": one(lambda: Fixed(lambda t: 600 if t < 60 else 300, 60), steps(60, 10, 5), about(1)),
    "in-flight-falls": one(lambda: InFlight(lambda t: 30 if t < 60 else 10), steps(60, 14.8, 4.9), about(2)),
}
WEAK = {  # least share used: whoever comes a moment early is refused, and requests that connect first come late
    "nginx-no-burst": 0.74,  # 0.84 at the best gap that never changes, with connections that are kept for longer
    "nginx-no-burst-slow": 0.83,
    "nginx-no-burst-503": 0.72,
    "nginx-no-burst-retry-after": 0.52,  # of 0.60: each refusal costs a second
    "nginx-no-burst-slow-retry-after": 0.79,
    "30-a-second-rolling-retry-after": 0.8,
}


@pytest.mark.parametrize("name", CASES)
def test_untold_limit_is_found_and_used_within_three_minutes(name: str) -> None:
    used = WEAK.get(name, 0.85)
    for seed in (1, 2):
        server = CASES[name]()
        out = rehearse(server, Limits(concurrency=100), seed=seed)
        assert out.images >= used * server.allowed(180)
        assert out.refused <= 0.1 * out.images


@pytest.mark.parametrize("name", ["10-a-second", "50-in-10-s", "300-a-minute", "bucket-5"])
def test_untold_limit_of_a_distant_server_is_found_and_used(name: str) -> None:
    for seed in (1, 2):
        server = CASES[name]()
        out = rehearse(server, Limits(concurrency=100), travel_s=0.1, seed=seed)
        assert out.images >= 0.85 * server.allowed(180)


@pytest.mark.parametrize(("names", "used"), [("", 0.85), ("ceil", 0.76)], ids=["silent", "retry-after"])
def test_gap_that_a_server_counts_is_found_where_requests_arrive_as_they_were_sent(names: str, used: float) -> None:
    for seed in (1, 2):  # a delay of a whole second at 20 a second is no window of a second
        server = one(lambda: Bucket(20, 1), 20, about(1), names=names)()
        out = rehearse(server, Limits(concurrency=100), travel_s=0.0005, jitter_s=0.0003, late_s=0.001, seed=seed)
        assert out.images >= used * server.allowed(180)
        assert out.refused <= 0.05 * out.images


def test_outage_of_half_a_minute_costs_little_more_than_that() -> None:
    for seed in (1, 2):
        server = one(lambda: Outage([(60, 90)]), lambda t: 30 * (t - min(30, max(0, t - 60))), about(1), status=502)()
        out = rehearse(server, Limits(concurrency=30), seed=seed)
        assert out.images >= 0.85 * server.allowed(180)
        assert out.down <= 50


@pytest.mark.parametrize("status", [502, 503])
def test_one_stray_5xx_in_ten_costs_nothing_but_itself(status: int) -> None:
    for seed in (1, 2):
        server = one(lambda: Stray(0.1), 30 / 1.024, about(1), status=status)()
        out = rehearse(server, Limits(concurrency=30), seed=seed)
        assert out.images >= 0.85 * server.allowed(180)


@pytest.mark.parametrize("rpm", [10, 60, 500, 3000])
@pytest.mark.parametrize("make", [Rolling, Fixed], ids=["rolling", "fixed"])
def test_told_rate_is_never_refused_and_used_to_95_percent(make: Callable[[float, float], Limit], rpm: int) -> None:
    server = one(lambda: make(rpm, 60), rpm / 60, about(1))()
    out = rehearse(server, Limits(concurrency=300, requests_per_minute=rpm), seconds=180, travel_s=0.2)
    assert out.refused == 0
    assert out.sent >= 0.95 * server.allowed(180)


def test_stray_503s_among_256_in_flight_are_not_taken_for_a_limit() -> None:
    for seed in (1, 2):
        server = one(lambda: Stray(0.1), 256 / 3.024, about(3), status=503)()
        out = rehearse(server, Limits(concurrency=256), seed=seed)
        assert out.images >= 0.85 * server.allowed(180)


@pytest.mark.parametrize(
    ("share", "mean_s", "used"),
    [(0.03, 3, 0.85), (0.03, 8, 0.75), (0.1, 3, 0.85), (0.1, 8, 0.7), (0.3, 3, 0.85), (0.3, 8, 0.7)],
)
def test_429s_by_chance_are_not_taken_for_a_limit(share: float, mean_s: float, used: float) -> None:
    """Capacity shared with strangers, or a relay of several accounts: the run went down to 3 % of what was possible."""
    images = allowed = 0.0
    for seed in (1, 2, 3):
        server = one(
            lambda seed=seed: Stray(share, die=random.Random(seed)), 100 / (mean_s + 0.024), about(mean_s, 0.5)
        )()
        out = rehearse(server, Limits(concurrency=100), seed=seed)
        images, allowed = images + out.images, allowed + server.allowed(180)
    assert images >= used * allowed


def test_server_without_a_limit_is_used_as_by_a_plain_semaphore_once_the_canary_is_back() -> None:
    for seed in (1, 2, 3):
        server = Server([], lambda t: math.inf, evenly(2, 8))
        out = rehearse(server, Limits(concurrency=256), images=600, seconds=600, seed=seed)
        assert out.refused == 0
        assert out.seconds - out.ends[0] <= 1.2 * semaphore_s(256, 600, seed)


def semaphore_s(most: int, images: int, seed: int) -> float:
    """Return how long a semaphore takes with the same kind of answers."""
    die, ends, now = random.Random(seed), list[float](), 0.0
    for _ in range(images):
        if len(ends) >= most:
            now = heapq.heappop(ends)
        heapq.heappush(ends, now + die.uniform(2, 8) + 0.024)
    return max(ends)


class Shortage(Stray):
    """Capacity that others take, for an hour."""

    def admit(self, t: float, in_flight: int) -> float | None:
        return super().admit(t, in_flight) if t < 3600 else None


@pytest.mark.parametrize("share", [0.8, 0.95])
def test_hour_in_which_most_is_refused_by_chance_is_over_when_it_ends(share: float) -> None:
    """A rate of one in hours was learned, where 1,800 an hour were allowed again (lbjlaq/Antigravity-Manager#853)."""
    server = Server([Part(Shortage(share=share))], lambda _: 0.0, lambda _: 8.0)
    out = rehearse(server, Limits(concurrency=4), seconds=7200)
    assert sum(end > 3600 for end in out.ends) > 300
