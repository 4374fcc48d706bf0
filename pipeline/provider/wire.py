"""One exchange on the wire: a request goes out once, a whole answer comes back, or what was seen instead.

In: an address, headers and a body. Out: a `Reply` whose body is in memory, or a `Failure`. Every exception of the
network is named here, most specific first; nothing else of the program knows aiohttp. It refuses to know what an answer
means, and it never sends anything twice.

One connection carries one request (`Connection: close`). An idle connection may be closed by the other side at the
very moment it is used again, and nobody can tell such a loss from a lost paid answer: it would be booked as `maybe` for
nothing. A fresh connection costs two or three round trips of an exchange of 5 to 60 s, hidden by the requests beside
it, and 2 ms of CPU (5 ms with TLS; measured with answers of 2.7 MB).
"""

import io
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp

from pipeline import failpoint
from pipeline.model import Billed, Failure, Fault, Reply
from pipeline.provider.address import Proxy
from pipeline.provider.faults import request_id
from pipeline.provider.memory import Memory, Share
from pipeline.provider.scrub import Scrubber
from pipeline.provider.watch import Watch

_EVIDENCE_BYTES = 2048  # of a body that was cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the wire is waited for; changed by tests only."""

    connect_s: float = 10.0
    quiet_s: float = 30.0  # a body that brings less than `quiet_bytes` in this time is given up
    quiet_bytes: int = 1024


PATIENCE = Patience()


@dataclass(slots=True)
class _Progress:
    """How far one exchange came."""

    is_traced: bool = False
    has_connected: bool = False
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    chunks: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


class TooLargeError(Exception):
    """The body is longer than allowed."""


class Wire:
    """The connections of one client: an async context manager."""

    def __init__(
        self,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        max_body_bytes: int,
        memory: Memory,
        scrubber: Scrubber,
        proxy: Proxy | None = None,
        patience: Patience = PATIENCE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._headers |= {"Content-Type": "application/json", "Accept": "application/json"}
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._memory = memory
        self._scrubber = scrubber
        self._proxy = proxy
        self._patience = patience
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._has_answered = False

    def __repr__(self) -> str:
        return f"<Wire {'closed' if self._session is None else 'open'}, {self._memory!r}>"

    async def __aenter__(self) -> "Wire":
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(_on_start)
        trace.on_connection_create_end.append(_on_connected)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=True if self._tls is None else self._tls),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._patience.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            trace_configs=[trace],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, payload: io.BytesIO, share: Share) -> Reply | Failure:
        """Send `payload` once and return the whole answer, of whatever status; a `Failure` says what came instead.

        share: holds the request's bytes, and gives them back once it has left. Cancelled: the connection is closed; the
        request may have been executed.
        """
        progress, started = _Progress(), time.monotonic()
        watch = Watch(self._timeout_s, quiet_s=self._patience.quiet_s, quiet_bytes=self._patience.quiet_bytes)
        try:
            async with watch:
                await self._exchange(url, payload, share, watch, progress)
        except (aiohttp.ClientError, OSError, TooLargeError) as error:
            if progress.status is None or not 300 <= progress.status < 500:
                return self._lost(error, progress, watch.why)
            # The server has refused; the missing rest of its words changes nothing.
        self._has_answered, is_first = True, not self._has_answered
        chunks = progress.chunks
        return Reply(
            status=progress.status or 0,
            headers=progress.headers,
            body=chunks[0] if len(chunks) == 1 else b"".join(chunks),
            is_first=is_first,
            seconds=time.monotonic() - started,
            hold=share,
        )

    async def _exchange(self, url: str, payload: io.BytesIO, share: Share, watch: Watch, progress: _Progress) -> None:
        assert self._session is not None, "the client is used outside its context"
        async with self._session.post(
            url,
            data=payload,
            headers=self._headers,
            allow_redirects=False,
            proxy=None if self._proxy is None else self._proxy.url,
            proxy_headers=_proxy_headers(self._proxy),
            trace_request_ctx=progress,
        ) as response:
            payload.close()
            share.shrink(share.held_bytes)
            progress.status = response.status
            progress.headers = tuple((name.lower(), value) for name, value in response.headers.items())
            watch.body(lambda: response.content.total_bytes)
            await self._collect(response.content, share, watch, progress)

    async def _collect(self, content: aiohttp.StreamReader, share: Share, watch: Watch, progress: _Progress) -> None:
        while chunk := await content.readany():
            progress.size_bytes += len(chunk)
            if progress.size_bytes > self._max_body_bytes:
                raise TooLargeError
            if not share.try_grow(len(chunk)):
                watch.pause()
                await share.grow(len(chunk))
                watch.resume()
            progress.chunks.append(chunk)

    def _lost(self, error: Exception, progress: _Progress, why: str) -> Failure:
        """Say what is known when no whole answer came; the beginning of a cut body is kept as evidence."""
        fault, billed, words = _name(error, progress, why)
        if isinstance(error, TooLargeError):
            words = f"an answer of more than {self._max_body_bytes} bytes; the rest was not read"
        if progress.chunks:
            words += f" (after {progress.size_bytes} bytes of the body)"
        beginning = b"".join(progress.chunks[:1])[:_EVIDENCE_BYTES]
        found = request_id(progress.headers)
        return Failure(
            fault=fault,
            billed=billed,
            reason=self._scrubber.text(words),
            status=progress.status,
            code=type(error).__name__,
            request_id=None if found is None else self._scrubber.text(found, 80),
            body=self._scrubber.body(beginning) or None,
            suffix=".cut",
        )


def _name(error: Exception, progress: _Progress, why: str) -> tuple[Fault, Billed, str]:
    """Name an exception of the network. Whatever came before the connection stood was not executed."""
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return Fault.ADDRESS, Billed.NO, "the proxy asks for a user and password (407)"
        case aiohttp.ClientHttpProxyError():
            return Fault.UNREACHABLE, Billed.NO, f"the proxy does not let us through ({error.status})"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch():
            return Fault.ADDRESS, Billed.NO, f"TLS failed: {error}"
        case aiohttp.InvalidURL():
            return Fault.ADDRESS, Billed.NO, "base_url and model do not make an address"
        case aiohttp.ClientConnectorError():
            return Fault.UNREACHABLE, Billed.NO, f"{error}"
        case aiohttp.ConnectionTimeoutError():
            return Fault.UNREACHABLE, Billed.NO, "no connection in time"
        case ssl.SSLError() if not progress.has_connected and progress.is_traced:
            return Fault.ADDRESS, Billed.NO, f"TLS failed: {error}"
        case _ if progress.is_traced and not progress.has_connected:
            return Fault.UNREACHABLE, Billed.NO, f"no connection: {why or type(error).__name__}"
        case TooLargeError():
            return Fault.OTHER, Billed.MAYBE, ""
        case TimeoutError():
            return Fault.SILENCE, Billed.MAYBE, why or "no answer in time"
        case aiohttp.ClientResponseError():  # its status 400 is aiohttp's own, not the server's
            return Fault.SILENCE, Billed.MAYBE, f"an answer that is not HTTP: {error.message}"
        case aiohttp.ServerDisconnectedError():
            return Fault.SILENCE, Billed.MAYBE, "the connection was closed before the answer"
        case aiohttp.ClientPayloadError():
            return Fault.SILENCE, Billed.MAYBE, f"the answer was cut: {error}"
        case _:
            return Fault.SILENCE, Billed.MAYBE, f"the connection was lost: {error}"


def _proxy_headers(proxy: Proxy | None) -> dict[str, str] | None:
    if proxy is None or proxy.credentials is None:
        return None
    return {"Proxy-Authorization": aiohttp.encode_basic_auth(*proxy.credentials)}


async def _on_start(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.is_traced = True


async def _on_connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.has_connected = True
    failpoint.reach("connect")
