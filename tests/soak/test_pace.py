"""How fast a whole run goes against the simulator: a told rate is used and never refused, an unknown one is found.

What takes minutes runs on a hurried clock, and so does the simulator: a second of waiting takes 100 ms, work takes what
it takes.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.events import AttemptEnded, AttemptStarted, Event
from pipeline.errors import Exit
from pipeline.simulator.profile import load_profile
from pipeline.simulator.server import Simulator
from tests.e2e.scripted import KEY, Shop, hurried

SPEED = 10.0


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", KEY)


@dataclass(frozen=True)
class Paced:
    """What came of a run: images asked for per second after the first answer, and answers that were a 429 or 503."""

    exit: Exit
    images: int
    per_second: float
    refused: int


def paced(folder: Path, profile: str, *, images: int, limits: str) -> Callable[[], Coroutine[Any, Any, Paced]]:
    """Return a run against a simulator with this profile, timed on the loop's own clock."""

    async def run() -> Paced:
        loop, started, ended = asyncio.get_running_loop(), [], []
        (folder / "profile.yaml").write_text(f"picture: tiny\n{profile}\n")

        def listen(event: Event) -> None:
            if isinstance(event, AttemptStarted):
                started.append(loop.time())
            elif isinstance(event, AttemptEnded):
                ended.append(loop.time())

        bill = folder / "bill.jsonl"
        async with Simulator(load_profile(folder / "profile.yaml"), bill, clock=loop.time) as simulator:
            shop = Shop(
                folder, simulator.base_url, images, extra=f"retry: {{attempts: 5}}\nlimits: {{{limits}}}", listen=listen
            )
            summary = await shop.run()
        statuses = [json.loads(line)["status"] for line in bill.read_text().splitlines()]
        assert len(statuses) == summary.attempts
        return Paced(
            summary.exit,
            summary.images,
            (images - 1) / (started[-1] - ended[0]),
            statuses.count(429) + statuses.count(503),
        )

    return run


async def test_told_rate_is_used_to_95_percent_and_never_refused_in_real_time(tmp_path: Path) -> None:
    out = await paced(
        tmp_path,
        "latency: 50ms\nlimits: {requests_per_minute: 1200}",
        images=120,
        limits="concurrency: 24, requests_per_minute: 1200",
    )()
    assert (out.exit, out.images, out.refused) == (Exit.OK, 120, 0)
    assert 0.95 * 20 <= out.per_second <= 1.05 * 20


RATES = {
    "120-retry-after": ("latency: {p50: 3s, p95: 6s}\nlimits: {requests_per_minute: 120}", 120),
    "120-retry-info": ("latency: {p50: 3s, p95: 6s}\nlimits: {requests_per_minute: 120, hint: retry_info}", 120),
    "120-no-hint": ("latency: {p50: 3s, p95: 6s}\nlimits: {requests_per_minute: 120, hint: none}", 120),
    "60-other-seed": ("seed: 7\nlatency: {p50: 4s, p95: 9s}\nlimits: {requests_per_minute: 60}", 60),
    "60-in-step": ("latency: 3s\nlimits: {requests_per_minute: 60}", 60),
}


@pytest.mark.parametrize(("profile", "per_minute"), RATES.values(), ids=RATES)
def test_rate_that_nobody_told_is_found_within_two_minutes(tmp_path: Path, profile: str, per_minute: int) -> None:
    images = 2 * per_minute
    out = hurried(paced(tmp_path, profile, images=images, limits="concurrency: 24"), speed=SPEED).came
    assert (out.exit, out.images) == (Exit.OK, images)
    assert out.per_second >= 0.85 * per_minute / 60  # the two minutes of learning included
    assert out.refused < 0.1 * images


REAL = {  # profile, images a second, the least share used, the most refused; half a minute, slow start included
    "10-a-second-503": ("limits: {requests_per_minute: 600, window: 1s, status: 503, hint: none}", 10, 0.5, 0.1),
    "bucket": ("limits: {requests_per_minute: 600, burst: 10, hint: none}", 10, 0.8, 0.1),
    "bucket-retry-after": ("limits: {requests_per_minute: 600, burst: 10}", 10, 0.8, 0.1),
    "no-burst": ("limits: {requests_per_minute: 120, burst: 1, hint: none}", 2, 0.6, 0.25),
    "10-s-window": ("limits: {requests_per_minute: 600, window: 10s, hint: none}", 10, 0.7, 0.1),
    "20-in-flight": ("limits: {concurrency: 20, hint: none}", 10, 0.7, 0.1),
}


@pytest.mark.parametrize(("profile", "rate", "used", "refused"), REAL.values(), ids=REAL)
async def test_limit_of_any_kind_is_used_in_real_time(
    tmp_path: Path, profile: str, rate: int, used: float, refused: float
) -> None:
    images = 25 * rate
    limits = "concurrency: 100"
    out = await paced(tmp_path, f"latency: {{uniform: [1600ms, 2400ms]}}\n{profile}", images=images, limits=limits)()
    assert (out.exit, out.images) == (Exit.OK, images)
    assert out.per_second >= used * rate
    assert out.refused <= refused * images


CONCURRENCIES = {
    "8": ("latency: {p50: 4s, p95: 7s}\nlimits: {concurrency: 8}", 8, 4.24, 0.8),  # the mean of that latency
    "8-in-step": ("latency: 4s\nlimits: {concurrency: 8}", 8, 4.0, 0.75),
    "4-in-step": ("latency: 3s\nlimits: {concurrency: 4}", 4, 3.0, 0.75),
}


@pytest.mark.parametrize(("profile", "most", "latency_s", "used"), CONCURRENCIES.values(), ids=CONCURRENCIES)
def test_concurrency_that_nobody_told_is_found_within_two_minutes(
    tmp_path: Path, profile: str, most: int, latency_s: float, used: float
) -> None:
    images = 24 * most
    out = hurried(paced(tmp_path, profile, images=images, limits="concurrency: 32"), speed=SPEED / 2).came
    assert (out.exit, out.images) == (Exit.OK, images)
    assert (
        out.per_second >= 0.75 * most / latency_s
    )  # our own work takes its time too, five times as much of this clock
    assert out.refused < 0.1 * images
