"""TCP and TLS connections to the server, kept for the next request, and large bodies read straight into one buffer.

A connection that was idle for less than 2 s carries the next request. A server may close it at that very moment, and
nobody can tell such a loss from a lost paid answer: it counts as `maybe` paid. So it is checked before it is used. From
an answer whose head has arrived follows its whole body, or the error that aiohttp would have raised.
"""

import asyncio
import functools
import select
import ssl
from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader
from aiohttp.tracing import Trace

IDLE_S: Final = 2.0  # a connection that was idle for longer is closed: servers close theirs after 5 s and more
MOST_INFORMATIONAL: Final = 10  # answers of status 1xx before one answer; honest servers send one or two


class Answers(ResponseHandler):
    """The answers of one connection. One that floods informational answers (1xx) is closed.

    aiohttp reads them without end and without a pause: one such connection kept the event loop from 11 of 29 others.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._informational = 0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take one parsed answer; aiohttp's parser calls this."""
        is_informational = 100 <= data[0].code < 200 and data[0].code != 101
        self._informational = self._informational + 1 if is_informational else 0
        if self._informational <= MOST_INFORMATIONAL:
            super().feed_data(data, size)
        elif self._exception is None:
            message = f"more than {MOST_INFORMATIONAL} informational answers (1xx)"
            self.set_exception(HttpProcessingError(code=400, message=message))
            if self.transport is not None:
                self.transport.abort()


class Connections(aiohttp.TCPConnector):
    """Keeps connections for the next request, and closes those that the server used or closed since its last answer."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE_S, ssl=True if tls is None else tls)
        make: Callable[..., ResponseHandler] = Answers
        self._factory = functools.partial(make, loop=asyncio.get_running_loop())
        self._seen: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a new connection, or a kept one on which nothing has come that would be taken for the next answer."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None, "a connection that was just made or taken from the pool"
            if protocol not in self._seen:
                self._seen.add(protocol)
                return connection
            if transport is not None and not protocol.should_close and not _is_readable(transport):
                return connection
            connection.close()


def _is_readable(transport: asyncio.Transport) -> bool:
    """Tell whether the kernel has bytes or an end that the event loop has not read yet (a system call, 1 µs)."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


WORTH_IT_BYTES: Final = 256 * 1024  # still to come; less is read in one turn either way
TURN_BYTES: Final = 256 * 1024  # at most read in one call, unless the transport says that it has more in hand


class BodyReader(asyncio.BufferedProtocol):
    """Stands in for aiohttp's protocol while the rest of a body comes, and gives the connection back after it.

    aiohttp's way from the kernel to one `bytes` copies a body three times (received, parsed, joined) and wakes its
    reader for every piece. Measured over TLS on kept connections (uvloop, answers of 2.7 MB, 32 in flight, medians of
    three runs): 12.3 ms of CPU an image in place, 15.6 ms without.
    """

    def __init__(
        self, content: aiohttp.StreamReader, theirs: ResponseHandler, transport: asyncio.Transport, size_bytes: int
    ) -> None:
        """Read an answer of `size_bytes`."""
        self.size_bytes = size_bytes
        self.arrived_bytes = 0
        self._content = content
        self._theirs = theirs
        self._transport = transport
        self._body = bytearray(size_bytes)
        self._room = memoryview(self._body)
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<BodyReader {self.arrived_bytes} of {self.size_bytes} bytes>"

    @property
    def is_whole(self) -> bool:
        return self.arrived_bytes == self.size_bytes

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
                self._hand_back()

    def _hand_back(self) -> None:
        """Give the connection back; after a whole body aiohttp keeps it for the next request, else it closes it."""
        self._transport.set_protocol(self._theirs)
        if self.is_whole:
            self._theirs.set_response_params()  # a new parser: the old one waits for the body that was read here
            self._content.feed_eof()  # resumes reading, and releases the connection

    def take(self) -> bytes | bytearray:
        """Return what has come of the body, once, when reading is over, and keep nothing.

        TLS transports keep a reference to the last protocol that had a buffer, so an open connection would keep its
        body: 2.7 MB each (asyncio.sslproto, `_app_protocol_get_buffer`; uvloop has the same).
        """
        body, self._body = self._body, bytearray()
        del self._content, self._theirs, self._transport
        return body if self.is_whole else bytes(memoryview(body)[: self.arrived_bytes])

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
        cut = aiohttp.ClientPayloadError(f"{self.arrived_bytes} of {self.size_bytes} bytes came")
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


def take_over_body(response: aiohttp.ClientResponse, read_bytes: int) -> BodyReader | None:
    """Return a reader for a body of which `read_bytes` were read; None where it is not worth it, or not possible.

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
    return BodyReader(content, connection.protocol, connection.transport, size_bytes)
