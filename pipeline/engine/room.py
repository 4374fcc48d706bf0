"""Is there room on the disk for what is in flight? Asked before each request, looked up at most once a second.

In: free bytes, as the store knows them. Out: a go, or a wait; after a minute without room the run halts, because an
image that was paid for must find its place. It refuses to know paths.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from pipeline.errors import StorageError

IMAGE_BYTES: Final = {"512": 2 * 2**20, "1K": 4 * 2**20, "2K": 10 * 2**20, "4K": 28 * 2**20}  # twice the usual PNG
MARGIN_BYTES: Final = 8 * 2**20  # the ledger, the report, somebody else
LOOK_S: Final = 1.0
PATIENCE_S: Final = 60.0


class Room:
    """Asks for the free bytes and remembers them for a second."""

    def __init__(
        self, free_bytes: Callable[[], Awaitable[int]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._free_bytes = free_bytes
        self._clock = clock
        self._looked_at = float("-inf")
        self._told_at = float("-inf")
        self._free = 0
        self._looking = asyncio.Lock()

    async def lacking_bytes(self, size: str | None, in_flight: int) -> int:
        """Return how many bytes are missing for one more image beside those in flight; 0: there is room."""
        if self._is_due():
            async with self._looking:  # one look serves all who ask meanwhile
                if self._is_due():
                    self._free = await self._free_bytes()
                    self._looked_at = self._clock()
        wanted = (in_flight + 1) * IMAGE_BYTES.get(size or "1K", IMAGE_BYTES["4K"]) + MARGIN_BYTES
        return max(0, wanted - self._free)

    def _is_due(self) -> bool:
        return self._clock() - self._looked_at >= LOOK_S

    async def wait(
        self,
        size: str | None,
        in_flight: Callable[[], int],
        *,
        sleep: Callable[[float], Awaitable[None]],
        told: Callable[[str, float], None],
        is_over: Callable[[], bool],
    ) -> None:
        """Return when there is room, or at once when the run is over. Raises StorageError after a minute without."""
        deadline = self._clock() + PATIENCE_S
        while not is_over() and (lacking := await self.lacking_bytes(size, in_flight())):
            reason = f"the disk is nearly full: {lacking / 2**20:,.0f} MB more are needed for what is in flight"
            if self._clock() >= deadline:
                raise StorageError(f"{reason}; free some space and run again")
            if self._clock() - self._told_at >= LOOK_S:
                self._told_at = self._clock()
                told(reason, LOOK_S)
            await sleep(LOOK_S)
