"""The gate: fair, awake when something changes, and safe to cancel."""

import asyncio
import math

import pytest

from pipeline.engine.starts import Ticket
from pipeline.engine.throttle import Gate, Stopped, Throttle
from pipeline.model import Fault
from pipeline.settings import Limits
from tests.engine.fakes import failure


class Time:
    """Simulated time: a sleep that nothing interrupts moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    async def sleep(self, event: asyncio.Event, seconds: float) -> None:
        self.sleeps.append(seconds)
        if seconds == math.inf:
            await event.wait()
            return
        await asyncio.sleep(0)
        if not event.is_set():
            self.now += seconds


def make(time: Time, **limits: object) -> Gate:
    settings = Limits(**{"concurrency": 4} | limits)  # type: ignore[arg-type]
    return Gate(Throttle(settings, clock=lambda: time.now, random=lambda: 0.0), sleep=time.sleep)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_waiters_are_let_through_in_the_order_they_came() -> None:
    gate, order = make(Time()), []

    async def work(number: int) -> None:
        ticket = await gate.wait()
        order.append(number)
        await asyncio.sleep(0)
        gate.finished(ticket, None)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(work(number), name=f"worker {number}")
    assert order == list(range(50))
    assert gate.throttle.in_flight == 0


async def test_finish_wakes_the_one_who_waits() -> None:
    gate = make(Time())
    ticket = await gate.wait()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(gate.wait(), name="waiting")
        await settle()
        assert not waiting.done()
        gate.finished(ticket, None)
    assert isinstance(waiting.result(), Ticket)


async def test_pause_that_begins_while_waiting_is_waited_for() -> None:
    time = Time()
    gate = make(time, adaptive=False, requests_per_minute=60)
    canary = await gate.wait()
    gate.finished(canary, None)
    second = await gate.wait()
    async with asyncio.TaskGroup() as group:
        third = group.create_task(gate.wait(), name="third")
        await asyncio.sleep(0)
        gate.finished(second, failure(Fault.THROTTLED, 40.0))
        began = time.now
    assert third.result().at - began >= 40


async def test_stop_turns_everyone_away_and_nobody_holds_a_slot() -> None:
    gate = make(Time())
    await gate.wait()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(turned_away(gate), name=f"worker {n}") for n in range(5)]
        await settle()
        gate.stop()
    assert all(task.result() for task in waiting)
    assert await turned_away(gate)
    assert gate.throttle.in_flight == 1


async def turned_away(gate: Gate) -> bool:
    try:
        await gate.wait()
    except Stopped:
        return True
    return False


@pytest.mark.parametrize("steps", range(6))
async def test_cancelled_waiter_keeps_no_slot_and_blocks_nobody(steps: int) -> None:
    gate = make(Time())
    ticket = await gate.wait()
    first = asyncio.get_running_loop().create_task(gate.wait(), name="first")
    second = asyncio.get_running_loop().create_task(gate.wait(), name="second")
    await settle()
    gate.finished(ticket, None)
    for _ in range(steps):
        await asyncio.sleep(0)
    first.cancel()
    await settle()
    holds = [task for task in (first, second) if task.done() and not task.cancelled()]
    assert second in holds
    assert gate.throttle.in_flight == len(holds)


async def test_waiting_is_no_busy_loop() -> None:
    time = Time()
    gate = make(time, requests_per_minute=60)
    for _ in range(100):
        gate.finished(await gate.wait(), None)
    assert len(time.sleeps) <= 210
    assert min(time.sleeps) >= 0.001


async def test_abandoned_slot_is_given_on() -> None:
    gate = make(Time())
    ticket = await gate.wait()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(gate.wait(), name="waiting")
        await settle()
        gate.abandoned(ticket)
    assert waiting.done()
    assert gate.throttle.in_flight == 1


async def test_real_sleep_ends_with_the_event_or_the_time() -> None:
    gate = Gate(Throttle(Limits(concurrency=2, adaptive=False, requests_per_minute=60_000)))
    gate.finished(await gate.wait(), None)
    async with asyncio.timeout(5):
        tickets = [await gate.wait() for _ in range(2)]
    assert gate.throttle.in_flight == len(tickets)
