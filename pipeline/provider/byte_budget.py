"""Limits how many bytes of bodies are in memory at once.

Every exchange has a share. A share holds its connection, and its request until that is sent, then its answer (all of
it at once where its length is known, else as it grows) until it has been parsed, then its image until that is on disk:
256 answers of 2.7 MB had 700 MB resident while images were not counted. The limit allows for as many connections as may
be open beside the bodies. What a connection has read while its answer waits for room keeps new requests from being
sent, but no answer from being read: answers that all arrive at once pass the limit by `UNREAD_BYTES` each (1,000 of
2.7 MB in flight: 704 and 750 MB resident at most).

Without room everybody waits in line, answers before requests; when no whole answer is left to be parsed, the oldest of
the growing ones goes on all the same. So there is no deadlock, and the limit is passed by at most one answer, or by one
request that is larger than the limit itself.
"""

import asyncio
from types import TracebackType
from typing import Final

# Resident for a connection with TLS, of uvloop and of asyncio, measured with 100 and 200 (Python 3.11, OpenSSL 3):
CONNECTION_BYTES: Final = 320 * 1024  # that has carried an answer of 2.7 MB and awaits the next: 0.26 and 0.33 MB
UNREAD_BYTES: Final = 512 * 1024  # on which an answer waits for room besides: 0.88 MB in all


class ByteBudget:
    """The bytes of all exchanges of one client. Lives in one event loop."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.whole_bytes = 0  # of them, in answers that wait to be judged
        self.growing: dict[ByteShare, None] = {}  # answers on their way, oldest first
        self.answers: Waiting = {}
        self.requests: Waiting = {}

    def __repr__(self) -> str:
        return f"<ByteBudget {self.used_bytes} of {self.limit_bytes} bytes, {len(self.growing)} growing>"

    @property
    def unread_bytes(self) -> int:
        """Return what is held beside `used_bytes` on connections whose answer waits for room."""
        return len(self.answers) * UNREAD_BYTES

    def share(self) -> "ByteShare":
        """Open a share; use it as a context manager around the exchange."""
        return ByteShare(self)

    def take(self, more_bytes: int) -> None:
        """Count bytes; negative ones are given back, to those who wait."""
        self.used_bytes += more_bytes
        if more_bytes <= 0:
            self.grant()

    def judged(self, whole_bytes: int, spare_bytes: int) -> None:
        """Count a whole answer as judged, and take back what is no longer held."""
        self.whole_bytes -= whole_bytes
        self.take(-spare_bytes)

    def fits(self, more_bytes: int) -> bool:
        return self.used_bytes + more_bytes <= self.limit_bytes

    def may_hold(self, more_bytes: int) -> bool:
        return self.fits(self.unread_bytes + more_bytes) or self.used_bytes == 0

    def must_finish(self, share: "ByteShare | None") -> bool:
        """Tell whether nothing is given back before this answer has gone on."""
        return share is next(iter(self.growing), None) and self.whole_bytes == 0

    async def wait(self, waiting: "Waiting", share: "ByteShare", more_bytes: int) -> None:
        """Wait for room behind those that wait for it."""
        waiting[share] = more_bytes, (turn := asyncio.get_running_loop().create_future())
        try:
            await turn
        finally:
            if waiting.pop(share, None) is not None:  # cancelled; the next one may have been waiting for this one
                self.grant()

    def grant(self) -> None:
        """Let those who wait go on, each kind in its order, as far as there is room."""
        oldest = next(iter(self.growing), None)
        if oldest in self.answers and self.must_finish(oldest):
            self._go_on(self.answers, oldest)
        for waiting, may in ((self.answers, self.fits), (self.requests, self.may_hold)):
            while (share := next(iter(waiting), None)) is not None and may(waiting[share][0]):
                self._go_on(waiting, share)

    def _go_on(self, waiting: "Waiting", share: "ByteShare") -> None:
        more_bytes, turn = waiting.pop(share)
        if not turn.done():
            share.take(more_bytes)
            turn.set_result(None)


class ByteShare:
    """What one exchange holds. In a `Reply` or an `Answer` it outlives its context, until it is released or dropped."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self.held_bytes = 0
        self._whole_bytes = 0  # of a whole answer that waits to be judged

    async def hold(self, request_bytes: int) -> None:
        """Wait for room for a request and its connection, behind those that wait for it, and take it."""
        if not self._budget.requests and self._budget.may_hold(request_bytes):
            self.take(request_bytes)
        else:
            await self._budget.wait(self._budget.requests, self, request_bytes)

    def try_grow(self, more_bytes: int) -> bool:
        """Take room for more of the answer if there is some; tell whether there was."""
        budget = self._budget
        budget.growing.setdefault(self)
        may = budget.must_finish(self) or (not budget.answers and budget.fits(more_bytes))
        if may:
            self.take(more_bytes)
        return may

    async def grow(self, more_bytes: int) -> None:
        """Wait for room for more of the answer, behind those that wait for it, and take it."""
        if not self.try_grow(more_bytes):
            await self._budget.wait(self._budget.answers, self, more_bytes)

    def shrink(self, fewer_bytes: int) -> None:
        self.take(-fewer_bytes)

    def take(self, more_bytes: int) -> None:
        self.held_bytes += more_bytes
        self._budget.take(more_bytes)

    def __enter__(self) -> "ByteShare":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count the answer as whole; the next oldest becomes the first in line."""
        if kind is not None:
            self.shrink(self.held_bytes)
        self._budget.growing.pop(self, None)
        self._whole_bytes = self.held_bytes
        self._budget.whole_bytes += self._whole_bytes
        self._budget.grant()

    def keep(self, kept_bytes: int) -> None:
        """Hold no more than the image of a judged answer. For any thread; the loop may be gone."""
        spare_bytes, self.held_bytes = max(0, self.held_bytes - kept_bytes), min(self.held_bytes, kept_bytes)
        whole_bytes, self._whole_bytes = self._whole_bytes, 0
        if (spare_bytes or whole_bytes) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._budget.judged, whole_bytes, spare_bytes)

    def release(self) -> None:
        """Give everything back, once. For any thread."""
        self.keep(0)

    def __del__(self) -> None:  # an image that was written, a reply that nobody judged
        self.release()


Waiting = dict[ByteShare, tuple[int, asyncio.Future[None]]]  # how much each waits for, in the order they came
