"""TCP and TLS connections to the server, kept for the next request.

A connection that was idle for less than 2 s carries the next request. A server may close it at that very moment, and
nobody can tell such a loss from a lost paid answer: it is booked as `maybe`. So it is looked at before it is used.

Apart from `transport`, which knows one exchange: a connection outlives it.
"""

import asyncio
import functools
import select
import ssl
from collections.abc import Callable
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
