"""D08: no request without room for its image."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pipeline.engine.attempt import IMAGE_BYTES, LOOK_S, MARGIN_BYTES, PATIENCE_S, DiskSpaceGuard
from pipeline.engine.events import Event, Paused, Warned
from pipeline.errors import StorageError


class Disk:
    """Free bytes over time, and the clock that passes while somebody sleeps."""

    def __init__(self, *free: int) -> None:
        self.free = list(free)
        self.now = 0.0
        self.looks = 0
        self.events: list[Event] = []

    async def free_bytes(self) -> int:
        self.looks += 1
        return self.free.pop(0) if len(self.free) > 1 else self.free[0]

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def wait(self, *, is_over: bool = False, in_flight: int = 0) -> None:
        await self.guard(self.free_bytes).wait("1K", lambda: in_flight, lambda: is_over)

    def guard(self, free_bytes: Callable[[], Awaitable[int]]) -> DiskSpaceGuard:
        return DiskSpaceGuard(free_bytes=free_bytes, sleep=self.sleep, emit=self.events.append, clock=lambda: self.now)


ONE = IMAGE_BYTES["1K"] + MARGIN_BYTES


async def test_D08_with_room_nothing_waits() -> None:
    disk = Disk(ONE)
    await disk.wait()
    assert (disk.now, disk.events) == (0.0, [])
    assert await disk.guard(Disk(ONE - 1).free_bytes).lacking_bytes("1K", 0) == 1


async def test_D08_what_is_in_flight_needs_room_too() -> None:
    disk = Disk(ONE, ONE, ONE + 3 * IMAGE_BYTES["1K"])
    await disk.wait(in_flight=3)
    assert disk.now == 2 * LOOK_S
    warned, *paused = disk.events
    assert isinstance(warned, Warned)
    assert "nearly full" in warned.text
    assert [type(event) for event in paused] == [Paused, Paused]


async def test_D08_without_room_for_a_minute_the_run_halts() -> None:
    disk = Disk(0)
    with pytest.raises(StorageError, match="free some space"):
        await disk.wait()
    assert disk.now == PATIENCE_S


async def test_a_run_that_is_over_does_not_wait() -> None:
    disk = Disk(0)
    await disk.wait(is_over=True)
    assert disk.now == 0.0


async def test_D08_who_asks_during_the_first_look_waits_for_it() -> None:
    disk, looking = Disk(2**40), asyncio.Event()

    async def slow() -> int:
        await looking.wait()
        return 2**40

    room = disk.guard(slow)
    asked = [asyncio.create_task(room.lacking_bytes("1K", 0)) for _ in range(3)]
    await asyncio.sleep(0)
    looking.set()
    assert await asyncio.wait_for(asyncio.gather(*asked), 5) == [0, 0, 0]


async def test_free_bytes_are_looked_up_once_a_second() -> None:
    disk = Disk(2**40)
    room = disk.guard(disk.free_bytes)
    for _ in range(50):
        assert await room.lacking_bytes("1K", 0) == 0
    assert disk.looks == 1


async def test_D08_one_look_serves_all_who_ask_meanwhile() -> None:
    disk, go_on = Disk(ONE), asyncio.Event()

    async def slow() -> int:
        await go_on.wait()
        return await disk.free_bytes()

    room = disk.guard(slow)
    asking = [asyncio.ensure_future(room.lacking_bytes("1K", 0)) for _ in range(9)]
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*asking) == [0] * 9
    assert disk.looks == 1
