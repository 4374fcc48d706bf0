"""TCP and TLS connections to the server, kept for the next request, and large bodies read straight into one buffer.

A connection that was idle for less than 1.5 s carries the next request. A server may close it at that very moment, and
nobody can tell such a loss from a lost paid answer: it counts as `maybe` paid. So it is kept for less time than servers
keep theirs, and checked before it is used. From an answer whose head has arrived follows its whole body, or the error
that aiohttp would have raised.

No iteration of the event loop is long: handshakes are spaced, and bodies share a limit. Measured with 1,000 in flight
over TLS, answers of 2.7 MB after 2 to 8 s, in four pairs of runs on a busy machine: CPU between two timers of 5 ms, 20
to 37 ms (p99), not 67 to 136; timers late by 0.1 to 0.6 s (p99), not 0.3 to 1.8; 0.7 to 0.8 GB resident, not 0.9 to
1.3; of CPU 0.9 to 1.2 x. Measured and not worth it: to resume TLS sessions (0.35 of the 1.5 ms of CPU of a new
connection).
"""

import asyncio
import contextlib
import functools
import heapq
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader
from aiohttp.tracing import Trace

IDLE_S: Final = 1.5  # a connection that was idle for longer is closed: gunicorn closes its own after 2 s, most after 5
KEPT_S: Final = re.compile(r"timeout\s*=\s*\"?(\d{1,9})", re.ASCII | re.IGNORECASE)  # Keep-Alive: timeout=5, max=100
APART_S: Final = 0.003  # between two new connections: a TLS handshake takes 1.0 to 1.5 ms of CPU
MOST_INFORMATIONAL: Final = 10  # answers of status 1xx within a second; relays send `102 Processing` as a heartbeat
READ_BYTES: Final = 4 * 2**20  # that bodies bring in one iteration of the event loop; 1 MB took 5 % more CPU
CHUNK_BYTES: Final = 256 * 1024  # at most read in one call, unless the transport says that it has more in hand
PROBES: Final = (  # 5.5 minutes without an acknowledgement end a connection, later than the usual timeout
    ("TCP_KEEPIDLE", 30),  # seconds; Linux and Windows
    ("TCP_KEEPALIVE", 30),  # the same of macOS
    ("TCP_KEEPINTVL", 30),
    ("TCP_KEEPCNT", 10),
)
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)(?:[ \t]*,[ \t]*\1)*[ \t]*(?=\r\n)", re.I)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*\bchunked[ \t]*\r\n", re.I)
WORTH_IT_BYTES: Final = 256 * 1024  # still to come; less is read in one call either way


class ReadLimit:
    """Bounds how much of all bodies is read in one iteration of the event loop; the others are paused until the next.

    Several answers that lie in the kernel would be read to their ends in one iteration, and all else waits meanwhile.
    The body that began first goes on first: bodies that grow side by side would all be in memory.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_bytes = 0
        self._bodies = 0
        self._paused: list[tuple[int, asyncio.Transport]] = []  # a heap
        self._is_called = False  # the next iteration begins with `_go_on`

    def body(self) -> int:
        """Return the number of a body that begins."""
        self._bodies += 1
        return self._bodies

    def count(self, size_bytes: int, body: int, transport: asyncio.Transport) -> None:
        """Count what came of a body that is not whole; pause its transport when it was too much."""
        self._read_bytes += size_bytes
        if self._read_bytes > READ_BYTES:
            transport.pause_reading()
            heapq.heappush(self._paused, (body, transport))
        self._call_again()

    def _call_again(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._read_bytes, self._is_called = 0, False
        for _ in range(min(len(self._paused), READ_BYTES // CHUNK_BYTES)):
            _, transport = heapq.heappop(self._paused)
            if not transport.is_closing():
                transport.resume_reading()
        if self._paused:
            self._call_again()


class Answers(ResponseHandler):
    """The answers of one connection. One that floods informational answers (1xx) is closed.

    aiohttp reads them without end and without a pause: one such connection kept the event loop from 11 of 29 others.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: ReadLimit) -> None:
        super().__init__(loop)
        self.limit = limit
        self._is_head_due = True
        self._informational = 0  # since then
        self._informational_since = 0.0

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take one parsed answer; `data_received` of aiohttp calls this."""
        is_informational = 100 <= data[0].code < 200 and data[0].code != 101
        self._is_head_due = is_informational
        now = self._loop.time()
        if not is_informational or now - self._informational_since > 1.0:
            self._informational, self._informational_since = 0, now
        self._informational += is_informational
        kept = KEPT_S.search(data[0].headers.get("Keep-Alive", ""))
        if kept is not None and int(kept[1]) <= IDLE_S:
            self.force_close()  # the server may close it while the next request is on its way
        if self._informational <= MOST_INFORMATIONAL:
            super().feed_data(data, size)
        elif self._exception is None:
            message = f"more than {MOST_INFORMATIONAL} informational answers (1xx) within a second"
            self.set_exception(HttpProcessingError(code=400, message=message))
            if self.transport is not None:
                self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came, each head on its own.

        aiohttp drops a whole answer when it comes in one piece with bytes behind it that are no HTTP. With its head
        parsed before, it is read to the length that it names.
        """
        while self._is_head_due and (end := data.find(_HEAD_END) + len(_HEAD_END)) >= len(_HEAD_END):
            super().data_received(_with_one_length(data[:end]))
            data = data[end:]
            if not data or self._exception is not None:
                return
        super().data_received(data)

    def set_response_params(self, **params: Any) -> None:
        """Prepare for the answer to the next request."""
        self._is_head_due = True
        super().set_response_params(**params)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Take what TLS still has of an answer, then what aiohttp makes of the end.

        An error among chunks that aiohttp cannot parse is set on the body: it leaves that waiting.
        """
        for piece in _left_over(self.transport):
            self.data_received(piece)
        while self._reading_paused:  # aiohttp's parser keeps what comes meanwhile, and drops it at the end
            self.resume_reading()
        payload, broken = self._payload, self._exception
        super().connection_lost(exc)
        if payload is not None and broken is not None and payload.exception() is None and not payload.is_eof():
            payload.set_exception(aiohttp.ClientPayloadError(f"{broken}"))


def _with_one_length(head: bytes) -> bytes:
    """Return the head of an answer that names its length once: aiohttp drops the others, which servers and relays send.

    The same length twice counts once (RFC 9110, 8.6; Karlson2k/libmicrohttpd#15), and none beside chunks (RFC 9112,
    6.3; timoklimmer/powerproxy-aoai#53).
    """
    lengths, rest = set(_LENGTH.findall(head)), _LENGTH.sub(b"", head)
    if _CHUNKED.search(head):
        return rest
    return rest[:-2] + b"Content-Length: %b\r\n\r\n" % lengths.pop() if len(lengths) == 1 else head


def _left_over(transport: asyncio.BaseTransport | None) -> Iterator[bytes]:
    """Yield what TLS has received, and not handed over before its connection ended.

    uvloop drops it when the server closes behind an answer whose reading is paused (sslproto.pyx, `eof_received`):
    every second answer of 0.25 to 0.9 MB that waited for room was cut.
    """
    with contextlib.suppress(ssl.SSLError, AttributeError):  # nothing more, undecipherable; asyncio's was closed twice
        tls: ssl.SSLObject | None = None if transport is None else transport.get_extra_info("ssl_object")
        while tls is not None and (piece := tls.read(CHUNK_BYTES)):
            yield piece


class Connections(aiohttp.TCPConnector):
    """Keeps connections for the next request, and closes those that the server used or closed since its last answer."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE_S, ssl=True if tls is None else tls, socket_factory=_probed)
        make: Callable[..., ResponseHandler] = Answers
        self._factory = functools.partial(make, loop=asyncio.get_running_loop(), limit=ReadLimit())
        self._seen: WeakSet[ResponseHandler] = WeakSet()
        self._turn = asyncio.Lock()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a new connection, or a kept one on which nothing has come that would be taken for the next answer.

        Waits for its turn before the time limit of a connection begins. Cancelled meanwhile: nothing was sent.
        """
        while True:
            if not self._conns.get(req.connection_key):
                async with self._turn:  # many find a kept one meanwhile
                    await asyncio.sleep(APART_S)
            connection = await super().connect(req, traces, timeout)
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None, "a connection that was just made or taken from the pool"
            if protocol not in self._seen:
                self._seen.add(protocol)
                return connection
            await asyncio.sleep(0)  # an end of TLS behind a large answer is reported in the next iteration
            is_open = protocol.is_connected() and not protocol.should_close
            if is_open and transport is not None and not _is_readable(transport):
                return connection
            connection.close()


def _probed(address: AddrInfoType) -> socket.socket:
    """Return a socket whose connection is probed (TCP keepalive) while nothing is said on it.

    A router with NAT forgets a connection that is silent for 1 to 6 minutes, and the answer that was paid for never
    arrives (googleapis/python-genai#2705, openai/openai-python#3269).
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES:
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


def _is_readable(transport: asyncio.Transport) -> bool:
    """Tell whether the kernel has bytes or an end that the event loop has not read yet (a system call, 1 µs)."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class BodyReader(asyncio.BufferedProtocol):
    """Stands in for aiohttp's protocol while the rest of a body comes, and gives the connection back after it.

    aiohttp's way from the kernel to one `bytes` copies a body three times (received, parsed, joined) and wakes its
    reader for every piece. Measured over TLS on kept connections (uvloop, answers of 2.7 MB, 32 in flight, medians of
    three runs): 12.3 ms of CPU an image in place, 15.6 ms without.
    """

    def __init__(
        self, content: aiohttp.StreamReader, theirs: Answers, transport: asyncio.Transport, size_bytes: int
    ) -> None:
        self.size_bytes = size_bytes
        self.arrived_bytes = 0
        self._content = content
        self._theirs = theirs
        self._transport = transport
        self._body = bytearray(size_bytes)
        self._room = memoryview(self._body)
        self._number = theirs.limit.body()
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_whole(self) -> bool:
        return self.arrived_bytes == self.size_bytes

    def put(self, chunks: Iterable[bytes | bytearray]) -> None:
        """Add what was read elsewhere."""
        for chunk in chunks:
            part = memoryview(chunk)[: self.size_bytes - self.arrived_bytes]
            self._room[self.arrived_bytes : self.arrived_bytes + len(part)] = part
            self.arrived_bytes += len(part)

    async def read(self) -> None:
        """Read to the end of the body. Raises what aiohttp raises when a body ends early. Cancelled: reads no more."""
        try:
            self._transport.set_protocol(self)
            await self._end
        finally:
            self._room.release()
            if self._theirs.transport is not None:  # the connection stands: what follows is aiohttp's to handle
                self._transport.set_protocol(self._theirs)
                if self.is_whole:  # aiohttp keeps it for the next request; else it closes it
                    self._theirs.set_response_params()  # a new parser: the old one waits for what was read here
                    self._content.feed_eof()  # resumes reading, and releases the connection

    def take(self) -> bytes | bytearray:
        """Return what has come of the body, once, when reading is over, and keep nothing.

        TLS transports keep a reference to the last protocol that had a buffer, so an open connection would keep its
        body: 2.7 MB each (asyncio.sslproto, `_app_protocol_get_buffer`; uvloop has the same).
        """
        body, self._body = self._body, bytearray()
        del self._content, self._transport
        return body if self.is_whole else bytes(memoryview(body)[: self.arrived_bytes])

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go. `sizehint`: what TLS has deciphered already, and might not offer again."""
        return self._room[self.arrived_bytes : self.arrived_bytes + max(CHUNK_BYTES, sizehint)]

    def buffer_updated(self, nbytes: int) -> None:
        self.arrived_bytes += nbytes
        if self.is_whole:
            self._transport.pause_reading()  # until aiohttp has the connection again
            self._settle(None)
        else:
            self._theirs.limit.count(nbytes, self._number, self._transport)

    def eof_received(self) -> None:
        self._theirs.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take what TLS still has of the body, then end the reading: with an error where the body is not whole."""
        if not self._body:  # it was taken: TLS had called this before aiohttp had the connection again
            self._theirs.connection_lost(exc)
            return
        self.put(_left_over(self._transport))
        self._theirs.connection_lost(exc)  # it tells the payload what is wrong with it
        if self.is_whole:
            self._settle(None)
            return
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

    Its length must be known, and aiohttp must have nothing of it left.
    """
    size_bytes, content, connection = response.content_length, response.content, response.connection
    if size_bytes is None or size_bytes - read_bytes < WORTH_IT_BYTES or content.exception() is not None:
        return None
    if "Transfer-Encoding" in response.headers:
        return None
    if content.total_bytes != read_bytes or connection is None:
        return None
    protocol, transport = connection.protocol, connection.transport
    if not isinstance(protocol, Answers) or transport is None or transport.is_closing():
        return None
    return BodyReader(content, protocol, transport, size_bytes)
