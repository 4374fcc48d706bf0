"""A large body, read straight into the memory it stays in.

In: an answer whose head has come. Out: its whole body, or the error that aiohttp would have raised. It refuses to know
what a body means.
"""

import asyncio
from collections.abc import Iterable
from sys import getsizeof
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

WORTH_IT_BYTES: Final = 256 * 1024  # still to come; less is read in one turn either way
TURN_BYTES: Final = 256 * 1024  # at most read in one call, unless the transport says that it has more in hand
SPARE_BYTES: Final = 32 * 2**20  # at most, of answers that were judged
_EMPTY: Final = getsizeof(bytearray())


class Spares:
    """The memory of answers that were judged, for the next ones. One thread takes, any gives.

    A new `bytearray` is filled with zeros: in the event loop, 0.2 ms for 2.7 MB and 1.2 ms for 14 MB. Measured with
    answers of 2.7 MB, 32 in flight: kept memory takes 3.5 % less CPU an image.
    """

    def __init__(self) -> None:
        self._bodies: list[bytearray] = []

    def __repr__(self) -> str:
        return f"<Spares {[len(body) for body in self._bodies]}>"

    def take(self, size_bytes: int) -> bytearray:
        """Return so many bytes to read into; whatever is in them has to be written over.

        Its memory is at most an eighth larger: that much is not counted by anybody.
        """
        body = self._bodies.pop() if self._bodies else bytearray()
        if not size_bytes < getsizeof(body) - _EMPTY <= size_bytes * 9 // 8:
            return bytearray(size_bytes)
        if len(body) > size_bytes:
            del body[size_bytes:]
        else:
            body.extend(bytes(size_bytes - len(body)))
        return body

    def give(self, body: bytearray) -> None:
        """Take the memory of an answer that nobody will look at again."""
        if sum(map(getsizeof, tuple(self._bodies))) + getsizeof(body) > SPARE_BYTES:
            return
        try:
            body.pop()
        except BufferError:  # somebody has a view of it, and keeps it
            return
        self._bodies.append(body)


class Intake(asyncio.BufferedProtocol):
    """Stands in for aiohttp's protocol while the rest of a body comes, and gives the connection back after it.

    aiohttp's way from the kernel to one `bytes` copies a body three times (received, parsed, joined) and wakes its
    reader for every piece. Measured on loopback with 32 in flight: 6 % less CPU for an answer of 2.7 MB, 14 % less and
    20 % more of them a second for one of 14 MB.
    """

    def __init__(
        self, content: aiohttp.StreamReader, theirs: ResponseHandler, transport: asyncio.Transport, body: bytearray
    ) -> None:
        """Read into `body`, which is as long as the answer."""
        self._content = content
        self._theirs = theirs
        self._transport = transport
        self._body = body
        self._room = memoryview(body)
        self.arrived_bytes = 0
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Intake {self.arrived_bytes} of {len(self._body)} bytes>"

    @property
    def is_whole(self) -> bool:
        return self.arrived_bytes == len(self._body)

    def begin(self, chunks: Iterable[bytes | bytearray]) -> None:
        """Put what was read before in front."""
        for chunk in chunks:
            self._room[self.arrived_bytes : self.arrived_bytes + len(chunk)] = chunk
            self.arrived_bytes += len(chunk)

    async def read(self) -> None:
        """Read to the end of the body. Raises what aiohttp raises when a body ends early. Cancelled: reads no more."""
        try:
            self._transport.set_protocol(self)
            await self._end
        finally:
            self._room.release()
            if self._theirs.transport is not None:  # the connection stands: what follows is aiohttp's to handle
                self._transport.set_protocol(self._theirs)

    def arrived(self) -> bytes | bytearray:
        """Return what has come of the body, when reading is over."""
        return self._body if self.is_whole else bytes(memoryview(self._body)[: self.arrived_bytes])

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go. `sizehint`: what TLS has deciphered already, and might not offer again."""
        return self._room[self.arrived_bytes : self.arrived_bytes + max(TURN_BYTES, sizehint)]

    def buffer_updated(self, nbytes: int) -> None:
        self.arrived_bytes += nbytes
        if self.is_whole:
            self._transport.pause_reading()  # until aiohttp has the connection again
            self._settle(None)

    def eof_received(self) -> None:
        self._theirs.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._theirs.connection_lost(exc)  # it tells the payload what is wrong with it
        cut = aiohttp.ClientPayloadError(f"{self.arrived_bytes} of {len(self._body)} bytes came")
        self._settle(cut if exc is None else self._content.exception() or cut)

    def pause_writing(self) -> None:
        self._theirs.pause_writing()

    def resume_writing(self) -> None:
        self._theirs.resume_writing()

    def _settle(self, error: BaseException | None) -> None:
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)


def begin_intake(response: aiohttp.ClientResponse, read_bytes: int, spares: Spares) -> Intake | None:
    """Return an intake for a body of which `read_bytes` were read; None where it is not worth it, or not possible.

    Its length must be known, it must come as it is, and aiohttp must have nothing of it left.
    """
    size_bytes, content, connection = response.content_length, response.content, response.connection
    if size_bytes is None or size_bytes - read_bytes < WORTH_IT_BYTES or content.exception() is not None:
        return None
    if any(name in response.headers for name in ("Content-Encoding", "Transfer-Encoding")):
        return None
    if content.total_bytes != read_bytes or connection is None:
        return None
    if connection.protocol is None or connection.transport is None or connection.transport.is_closing():
        return None
    return Intake(content, connection.protocol, connection.transport, spares.take(size_bytes))
