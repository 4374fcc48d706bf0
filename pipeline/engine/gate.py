"""What workers wait at before they send a request: first in, first out, as the throttle allows."""

import asyncio
import math
from collections.abc import Awaitable, Callable

from pipeline.engine.start_history import Ticket
from pipeline.engine.throttle import Throttle
from pipeline.model import Failure

Sleep = Callable[[asyncio.Event, float], Awaitable[None]]


class Stopped(Exception):  # noqa: N818 - reads as what happened
    """The gate lets nobody through any more; no slot was taken."""


async def sleep_until(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set or `seconds` are over, whichever comes first. Infinite: only the event."""
    try:
        async with asyncio.timeout(None if seconds == math.inf else seconds):
            await event.wait()
    except TimeoutError:
        return


class Gate:
    """Lets workers through in the order they came, as the throttle allows.

    Cancelling a waiter takes no slot: between the last await and the ticket nothing can be cancelled.
    """

    def __init__(self, throttle: Throttle, *, sleep: Sleep = sleep_until) -> None:
        self.throttle = throttle
        self._sleep = sleep
        self._turn = asyncio.Lock()  # first in, first out
        self._changed = asyncio.Event()
        self.is_stopped = False

    async def wait(self) -> Ticket:
        """Wait for a slot and take it. Raises Stopped; then, and when cancelled, no slot is held."""
        async with self._turn:
            while not self.is_stopped:
                delay = self.throttle.delay()
                if delay <= 0:
                    return self.throttle.started()
                self._changed.clear()
                await self._sleep(self._changed, delay)
            raise Stopped

    def finished(self, ticket: Ticket, failure: Failure | None) -> Failure | None:
        """Give the slot back with how it ended, and look again. Returns the failure as `Throttle.finished` does."""
        judged = self.throttle.finished(ticket, failure)
        self._changed.set()
        return judged

    def abandoned(self, ticket: Ticket) -> None:
        """Give back the slot of a request that was never sent, and look again."""
        self.throttle.abandoned(ticket)
        self._changed.set()

    def stop(self) -> None:
        """Let nobody through any more; who waits now gets Stopped."""
        self.is_stopped = True
        self._changed.set()
