"""Requests in a minute and at once, and capacity that changes."""

import asyncio

import pytest

from pipeline.simulator.profile import Profile
from pipeline.simulator.rules import Limiter


def limiter(time, **fields):
    return Limiter(Profile.model_validate(fields), time)


def test_requests_per_minute_hold_in_any_60_seconds(time):
    limit = limiter(time, limits={"requests_per_minute": 2})
    assert [limit.acquire("k"), limit.acquire("k")] == [None, None]
    time.now += 20
    assert limit.acquire("k") == pytest.approx(40.0)
    time.now += 40
    assert limit.acquire("k") is None


def test_requests_are_counted_in_a_window_of_another_length(time):
    limit = limiter(time, limits={"requests_per_minute": 120, "window": "1s"})
    assert [limit.acquire("k"), limit.acquire("k")] == [None, None]
    assert limit.acquire("k") == pytest.approx(1.0)
    time.now += 1
    assert limit.acquire("k") is None


def test_token_bucket_admits_its_burst_at_once_and_then_one_for_each_token(time):
    limit = limiter(time, limits={"requests_per_minute": 120, "burst": 3})
    assert [limit.acquire("k") for _ in range(3)] == [None] * 3
    assert limit.acquire("k") == pytest.approx(0.5)
    time.now += 0.5
    assert limit.acquire("k") is None
    assert limit.acquire("k") == pytest.approx(0.5)
    time.now += 60
    assert [limit.acquire("k") is None for _ in range(4)] == [True] * 3 + [False]


def test_keys_are_counted_apart(time):
    limit = limiter(time, limits={"requests_per_minute": 1})
    assert [limit.acquire("a"), limit.acquire("b")] == [None, None]
    assert limit.acquire("a") is not None


def test_requests_at_once_are_admitted_again_when_one_leaves(time):
    limit = limiter(time, limits={"concurrency": 1})
    assert limit.acquire("k") is None
    assert limit.acquire("k") == 1.0
    limit.release("k")
    assert limit.acquire("k") is None


def test_a_request_that_was_turned_away_does_not_count(time):
    limit = limiter(time, limits={"requests_per_minute": 1})
    limit.acquire("k")
    for _ in range(5):
        limit.acquire("k")
    time.now += 60
    assert limit.acquire("k") is None


def test_capacity_changes_with_time_and_begins_anew(time):
    steps = [{"after": 0}, {"after": 10, "concurrency": 3}, {"after": 20, "outage": "overloaded"}]
    limit = limiter(time, capacity=steps, capacity_repeats="30s")
    seen = []
    for _ in range(5):
        seen.append((limit.step().concurrency, limit.step().outage))
        time.now += 10
    assert seen == [(None, None), (3, None), (None, "overloaded"), (None, None), (3, None)]


def test_the_least_of_limit_and_capacity_holds(time):
    limit = limiter(time, limits={"requests_per_minute": 1}, capacity=[{"after": 0, "requests_per_minute": 5}])
    limit.acquire("k")
    assert limit.acquire("k") is not None


@pytest.mark.parametrize(
    ("hint", "in_header", "in_body"),
    [
        ("retry_after", True, "上游负载已饱和"),
        ("retry_info", False, "RetryInfo"),
        ("text", False, "Please retry in"),
        ("none", False, "上游负载已饱和"),
    ],
    ids=["H08-retry_after", "H11-retry_info", "H11-text", "H07-none"],
)
async def test_over_the_limit_is_a_429_with_the_chosen_hint(start, hint, in_header, in_body):
    asker = await start(limits={"requests_per_minute": 1, "hint": hint})
    await asker.ask()
    heard = await asker.ask()
    assert heard.status == 429
    assert ("Retry-After" in heard.headers) == in_header
    assert in_body in heard.body.decode()


async def test_requests_at_once_are_bounded_on_the_wire(start, time, monkeypatch):
    """The first request waits inside; the second is turned away; after the first another is let in."""
    inside, go = asyncio.Event(), asyncio.Event()

    async def wait(_):
        inside.set()
        await go.wait()

    monkeypatch.setattr(time, "sleep", wait)
    asker = await start(limits={"concurrency": 1})
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asker.ask("one"), name="first")
        await inside.wait()
        assert (await asker.ask("two")).status == 429
        go.set()
    assert first.result().status == 200
    assert (await asker.ask("three")).status == 200
