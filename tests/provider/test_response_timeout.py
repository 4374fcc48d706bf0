"""Silence, by a clock that the test moves."""

import asyncio

import pytest

from pipeline.provider.response_timeout import ResponseTimeout


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time is set by hand."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0

    def time(self):
        return self.now


@pytest.fixture
def clock():
    loop = Clock()
    yield loop
    loop.close()


async def pass_time(clock, seconds, step=0.25):
    """Let time pass in small steps, as it does while the loop is not blocked."""
    for _ in range(round(seconds / step)):
        clock.now += step
        for _ in range(4):
            await asyncio.sleep(0)


def run(clock, scenario):
    """Run a scenario inside a watch of 100 s, 30 s quiet, 1024 bytes; return what ended it, and when."""
    arrived = [0]

    async def main():
        started = clock.now
        deadline = ResponseTimeout(100.0, quiet_s=30.0, quiet_bytes=1024)
        try:
            async with deadline:
                await scenario(deadline, arrived)
        except TimeoutError:
            return deadline.why, clock.now - started
        return "", clock.now - started

    return clock.run_until_complete(main())


def test_the_whole_exchange_is_limited(clock):
    async def scenario(deadline, arrived):
        await pass_time(clock, 200)

    assert run(clock, scenario) == ("no whole answer within 100 s", pytest.approx(100, abs=1))


def test_h37_a_quiet_body_is_given_up(clock):
    async def scenario(deadline, arrived):
        await pass_time(clock, 10)
        deadline.body(lambda: arrived[0])
        arrived[0] = 1023
        await pass_time(clock, 60)

    assert run(clock, scenario) == ("less than 1024 bytes within 30 s", pytest.approx(40, abs=1))


def test_h38_a_slow_body_is_left_alone(clock):
    async def scenario(deadline, arrived):
        deadline.body(lambda: arrived[0])
        for _ in range(9):
            arrived[0] += 1024
            await pass_time(clock, 10)

    assert run(clock, scenario) == ("", pytest.approx(90))


def test_waiting_for_headers_is_not_quiet(clock):
    async def scenario(deadline, arrived):
        await pass_time(clock, 90)

    assert run(clock, scenario) == ("", pytest.approx(90))


def test_our_own_wait_for_memory_does_not_count(clock):
    async def scenario(deadline, arrived):
        deadline.body(lambda: arrived[0])
        deadline.pause()
        await pass_time(clock, 500)
        deadline.resume()
        arrived[0] += 2048
        await pass_time(clock, 20)

    assert run(clock, scenario) == ("", pytest.approx(520))


@pytest.mark.parametrize("row", ["R20"])
def test_a_blocked_loop_gets_to_read_what_came_meanwhile(clock, row):
    async def scenario(deadline, arrived):
        deadline.body(lambda: arrived[0])
        clock.now += 45  # blocked: the timer is late, and the bytes lie unread
        for _ in range(3):
            await asyncio.sleep(0)
        arrived[0] += 4096
        await pass_time(clock, 20)

    assert run(clock, scenario) == ("", pytest.approx(65))


@pytest.mark.parametrize("row", ["R29"])
def test_a_long_suspension_ends_the_exchange_soon(clock, row):
    async def scenario(deadline, arrived):
        clock.now += 3600
        await pass_time(clock, 30)

    why, seconds = run(clock, scenario)
    assert why == "no whole answer within 100 s"
    assert seconds < 3605
