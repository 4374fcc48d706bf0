"""One HTTP exchange: sends a request once and returns a `Reply` with its whole body, or a `Failure`.

Every exception of the network is named here, most specific first; only this module and `connections` import aiohttp's
client. Nothing is ever sent twice: aiohttp repeats idempotent methods only (`IDEMPOTENT_METHODS` in its client).
"""

import io
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp

from pipeline import failpoint
from pipeline.model import Billed, Failure, Fault, Reply
from pipeline.provider.byte_budget import CONNECTION_BYTES, ByteBudget, ByteShare
from pipeline.provider.connections import BodyReader, Connections, take_over_body
from pipeline.provider.credentials import Proxy, trust_advice
from pipeline.provider.decoding import unpacked
from pipeline.provider.errors import request_id
from pipeline.provider.redact import Redactor
from pipeline.provider.response_timeout import ResponseTimeout

_READ_AHEAD_BYTES = 64 * 1024  # of an answer that waits for room: 0.88 MB resident, 1.19 MB with aiohttp's 256 KB
_FIELD_BYTES = 64 * 1024  # of a header line; fronts send cookies and policies of more than aiohttp's 8 KB
_UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})  # OpenSSL's X509_V_ERR_...: no trusted authority signed a certificate
_LATER = frozenset({408, 425, 429})  # of a proxy: the same connection may be let through later
_EVIDENCE_BYTES = 2048  # of a body that was cut
_HEARTBEATS = re.compile(rb"(?:\s|:[^\r\n]*+)*+")  # white space, and the comments of a stream of events


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

    host: str
    proxy: str
    unsent_bytes: int
    let_go: Callable[[], None]  # of the request, once it has left
    sent_at: float | None = None  # when all of the request had left; monotonic
    is_traced: bool = False
    has_connected: bool = False
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    chunks: list[bytes | bytearray] = field(default_factory=list)
    size_bytes: int = 0
    has_begun: bool = False  # the body, with something that is more than a heartbeat, or with the head of an error
    is_whole: bool = False  # the body is in memory to its last byte, whatever happened then

    def begin(self, deadline: ResponseTimeout, content: aiohttp.StreamReader) -> None:
        """Limit from now on how long the body may be quiet."""
        self.has_begun = True
        deadline.body(lambda: content.total_bytes)

    def took(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.size_bytes += len(chunk)

    def sent(self, size_bytes: int) -> None:
        """Count bytes of the request that left."""
        self.unsent_bytes -= size_bytes
        if self.unsent_bytes <= 0:
            self.sent_at = time.monotonic()
            self.let_go()


class TooLargeError(Exception):
    """The body is longer than allowed."""


class Transport:
    """The connections of one client: an async context manager."""

    def __init__(
        self,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        max_body_bytes: int,
        budget: ByteBudget,
        redactor: Redactor,
        proxy: Proxy | None = None,
        patience: Patience = PATIENCE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._headers |= {"Content-Type": "application/json", "Accept": "application/json"}
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._budget = budget
        self._redactor = redactor
        self._proxy = proxy
        self._patience = patience
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._has_answered = False

    def __repr__(self) -> str:
        return f"<Transport {'closed' if self._session is None else 'open'}, {self._budget!r}>"

    async def __aenter__(self) -> "Transport":
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(_on_start)
        trace.on_connection_create_start.append(_on_connecting)
        trace.on_connection_create_end.append(_on_connected)
        trace.on_connection_reuseconn.append(_on_reused)
        trace.on_request_chunk_sent.append(_on_sent)
        self._session = aiohttp.ClientSession(
            connector=Connections(self._tls),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._patience.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,  # `decoding.unpacked` does it, whatever the label says
            read_bufsize=_READ_AHEAD_BYTES,
            max_field_size=_FIELD_BYTES,
            trace_configs=[trace],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, payload: io.BytesIO, share: ByteShare) -> Reply | Failure:
        """Send `payload` once and return the answer, of whatever status; a `Failure` says what came instead.

        An answer whose end did not come may have a whole image all the same: relays forget the last chunk, or name a
        length that is not that of the body (Wei-Shaw/sub2api#6410, spectre-pro/gemini-proxy#3).

        share: holds the request's bytes, and gives them back once they have left. Cancelled: the connection is closed;
        the request may have been executed.
        """
        proxy = "" if self._proxy is None else self._proxy.url
        progress = _Progress(urlsplit(url).netloc, proxy, payload.getbuffer().nbytes, _letting_go(payload, share))
        deadline = ResponseTimeout(
            self._timeout_s, quiet_s=self._patience.quiet_s, quiet_bytes=self._patience.quiet_bytes
        )
        cut: Failure | None = None
        try:
            async with deadline:
                await self._exchange(url, payload, share, deadline, progress)
        except (aiohttp.ClientError, OSError, TooLargeError) as error:
            if not progress.is_whole and (progress.status is None or not 300 <= progress.status < 500):
                cut = self._lost(error, progress, deadline.why)
                if progress.status != 200 or not progress.chunks or cut.fault is not Fault.SILENCE:
                    return cut
            # Nothing is missing; or the server has refused, and the missing rest of its words changes nothing.
        is_first = not self._has_answered
        self._has_answered |= cut is None or not progress.chunks[0].lstrip().startswith(b"<")  # no page of a portal
        chunks = progress.chunks
        return Reply(
            status=progress.status or 0,
            headers=progress.headers,
            body=chunks[0] if len(chunks) == 1 else b"".join(chunks),
            is_first=is_first,
            seconds=0.0 if progress.sent_at is None else time.monotonic() - progress.sent_at,
            hold=share,
            cut=cut,
        )

    async def _exchange(
        self, url: str, payload: io.BytesIO, share: ByteShare, deadline: ResponseTimeout, progress: _Progress
    ) -> None:
        assert self._session is not None, "the client is used outside its context"
        async with self._session.post(
            url,
            data=payload,
            headers=self._headers,
            allow_redirects=False,
            proxy=None if self._proxy is None else self._proxy.url,
            proxy_headers=None if self._proxy is None else self._proxy.headers,
            trace_request_ctx=progress,
        ) as response:
            progress.let_go()
            progress.status = response.status
            progress.headers = tuple((name.lower(), value) for name, value in response.headers.items())
            await self._collect(response, share, deadline, progress)
        share.shrink(CONNECTION_BYTES)  # it carries somebody else's request now

    async def _collect(
        self, response: aiohttp.ClientResponse, share: ByteShare, deadline: ResponseTimeout, progress: _Progress
    ) -> None:
        """Read the body. Where its length is known, room is taken for all of it before any of it is: what a connection
        has read when it must wait for room is not counted, and was 1 MB each.

        It may not be quiet once it has begun: blank heartbeats, and a head sent early, only say that the image is being
        made (QuantumNous/new-api#4506, agent37-platform/gateway#6). Between the events of a stream it is, too. Behind
        the head of an error no image is being made, so its body begins with it.
        """
        is_stream = response.content_type == "text/event-stream"
        room_bytes = response.content_length or 0
        if room_bytes > self._max_body_bytes:
            raise TooLargeError
        await _make_room(share, room_bytes, deadline)
        if not 200 <= response.status < 300:
            progress.begin(deadline, response.content)
        while chunk := await response.content.readany():
            if not (is_stream or progress.has_begun or _HEARTBEATS.fullmatch(chunk)):
                progress.begin(deadline, response.content)
            progress.took(chunk)
            if progress.size_bytes > self._max_body_bytes:
                raise TooLargeError
            if progress.size_bytes > room_bytes:
                await _make_room(share, progress.size_bytes - room_bytes, deadline)
                room_bytes = progress.size_bytes
            reader = take_over_body(response, progress.size_bytes)
            if reader is not None:
                del chunk
                await _read_straight(reader, deadline, progress)
                return

    def _lost(self, error: Exception, progress: _Progress, why: str) -> Failure:
        """Say what is known when no whole answer came; the beginning of a cut body is kept as evidence."""
        fault, billed, words = _name(error, progress, why, is_first=not self._has_answered)
        if isinstance(error, TooLargeError):
            words = f"an answer of more than {self._max_body_bytes} bytes; the rest was not read"
        if progress.chunks:
            words += f" (after {progress.size_bytes} bytes of the body)"
        if self._proxy is not None and billed is Billed.NO and "proxy" not in words:
            advice = "; most proxies are addressed as http://" if self._proxy.url.startswith("https") else ""
            words += f" (through the proxy {self._proxy.url}{advice})"
        beginning = unpacked(b"".join(progress.chunks[:1]), _EVIDENCE_BYTES)[:_EVIDENCE_BYTES]
        return Failure(
            fault=fault,
            billed=billed,
            reason=self._redactor.text(words),
            status=progress.status,
            code=type(error).__name__,
            request_id=request_id(progress.headers, self._redactor),
            body=self._redactor.body(bytes(beginning)) or None,
            suffix=".cut",
        )


async def _read_straight(reader: BodyReader, deadline: ResponseTimeout, progress: _Progress) -> None:
    """Read the rest of a large body; what has come of it is kept, however it ends."""
    reader.put(progress.chunks)
    progress.chunks.clear()
    deadline.body(lambda: reader.arrived_bytes)
    try:
        await reader.read()
    finally:
        progress.chunks, progress.size_bytes = [reader.take()], reader.arrived_bytes
        progress.is_whole = reader.is_whole


def _letting_go(payload: io.BytesIO, share: ByteShare) -> Callable[[], None]:
    """Return what frees a request and its share of memory, once.

    Nothing is ever sent again, and the answer takes up to a minute: until it came, the requests of 13 photographs of
    7 MB would hold all the memory there is, and nobody else could send.
    """

    def let_go() -> None:
        if payload.getbuffer().nbytes:
            payload.seek(0)
            payload.truncate()
            share.shrink(share.held_bytes - CONNECTION_BYTES)

    return let_go


async def _make_room(share: ByteShare, more_bytes: int, deadline: ResponseTimeout) -> None:
    """Take room for more of an answer; the time this waits is not the server's."""
    if more_bytes > 0 and not share.try_grow(more_bytes):
        deadline.pause()
        await share.grow(more_bytes)
        deadline.resume()


def _name(error: Exception, progress: _Progress, why: str, *, is_first: bool) -> tuple[Fault, Billed, str]:
    """Name an exception of the network. Whatever came before the connection stood was not executed.

    is_first: no answer came before it.
    """
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return Fault.ADDRESS, Billed.NO, "the proxy asks for a user and password (407)"
        case aiohttp.ClientHttpProxyError():
            is_forbidden = is_first and 400 <= error.status < 500 and error.status not in _LATER
            words = f"the proxy {progress.proxy} refused a connection to {progress.host}"
            words += f" ({error.status} {error.message})"
            return Fault.ADDRESS if is_forbidden else Fault.UNREACHABLE, Billed.NO, words
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as flaw):
            return Fault.ADDRESS, Billed.NO, _certificate_words(error.host, flaw)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch():
            return Fault.ADDRESS, Billed.NO, f"TLS failed: {error}"
        case aiohttp.InvalidURL():
            return Fault.ADDRESS, Billed.NO, "base_url and model do not form a valid address"
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError(errno=None)):  # asyncio's: in a handshake
            fault = Fault.ADDRESS if is_first else Fault.UNREACHABLE  # a server that did it before may be restarting
            return fault, Billed.NO, "the server ended the TLS handshake; it may offer less than TLS 1.2, or no TLS"
        case aiohttp.ClientProxyConnectionError():
            words = f"the proxy {error.host}:{error.port} cannot be reached: {_system_words(error.os_error)}"
            return Fault.UNREACHABLE, Billed.NO, words
        case aiohttp.ClientConnectorError():
            words = f"Cannot connect to host {error.host}:{error.port}: {_system_words(error.os_error)}"
            return Fault.UNREACHABLE, Billed.NO, words
        case aiohttp.ConnectionTimeoutError():
            return Fault.UNREACHABLE, Billed.NO, f"no connection to {progress.host} in time (DNS included)"
        case ssl.SSLError() if not progress.has_connected and progress.is_traced:
            return Fault.ADDRESS, Billed.NO, f"TLS failed: {error}"
        case _ if progress.is_traced and not progress.has_connected:
            return Fault.UNREACHABLE, Billed.NO, f"no connection: {why or str(error) or type(error).__name__}"
        case TooLargeError():
            return Fault.OTHER, Billed.MAYBE, ""
        case _:
            return Fault.SILENCE, Billed.MAYBE, _silence_words(error, why)


def _silence_words(error: Exception, why: str) -> str:
    """Say how a request that may have been executed was left without a whole answer."""
    match error:
        case TimeoutError():
            return why or "no answer in time"
        case aiohttp.ClientResponseError():  # its status 400 is aiohttp's own, not the server's
            return f"an answer that is not HTTP: {error.message}"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before the answer"
        case aiohttp.ClientPayloadError():
            return f"the answer was cut: {error}"
        case _:
            return f"the connection was lost: {error}"


def _system_words(error: OSError) -> str:
    """Return the system's words for an error: of a refused connection asyncio says "Connect call failed"."""
    if error.errno is not None and error.errno > 0:  # the codes of name lookups are negative
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _certificate_words(host: str, flaw: ssl.SSLCertVerificationError) -> str:
    words = f"TLS failed: the certificate of {host} is not accepted: {flaw.verify_message}"
    if flaw.verify_code not in _UNKNOWN_ISSUER:
        return words
    return f"{words}; {trust_advice(os.environ)}"


async def _on_start(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.is_traced = True


async def _on_connecting(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.has_connected = False  # it may have had a connection that was closed meanwhile


async def _on_reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.has_connected = True


async def _on_connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.has_connected = True
    failpoint.reach("connect")


async def _on_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestChunkSentParams
) -> None:
    context.trace_request_ctx.sent(len(params.chunk))
