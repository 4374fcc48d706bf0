"""A server that can lie, pictures to answer with, tasks to ask with."""

import asyncio
import base64
import contextlib
import io
import json
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from PIL import Image

from pipeline.model import Digests, Reply, Task
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.client import Client
from pipeline.provider.transport import Patience
from pipeline.settings import Kind, Limits, ProviderSettings

KEY = "sk-canary/7+hard=to~miss"
HASTE = Patience(connect_s=2.0, quiet_s=0.3, quiet_bytes=1024)
Act = Callable[["Liar", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Liar:
    """A raw server: every connection is handed to `act`, which may do what no honest server does."""

    act: Act | None = None
    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    serving: set[asyncio.Task] = field(default_factory=set)
    release: asyncio.Event = field(default_factory=asyncio.Event)  # set when the test is over

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.add(task := asyncio.current_task())
        task.add_done_callback(self.serving.discard)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            assert self.act is not None
            await self.act(self, reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def take(self, reader: asyncio.StreamReader) -> bytes:
        """Read one whole request."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = next((int(v) for n, v in _lines(head) if n == b"content-length"), 0)
        self.bodies.append(await reader.readexactly(length))
        return head

    def says(self, *pieces: bytes) -> None:
        """Take a request, write the pieces, close."""

        async def act(liar: "Liar", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await liar.take(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

        self.act = act

    def then_hangs(self, *pieces: bytes) -> None:
        """Take a request, write the pieces, and stay silent until the test is over."""

        async def act(liar: "Liar", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await liar.take(reader)
            writer.writelines(pieces)
            await liar.release.wait()

        self.act = act

    def keeps(self, *answers: bytes) -> None:
        """Give these answers to the requests of one connection, one each, and close it at the request after them."""

        async def act(liar: "Liar", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                await liar.take(reader)
                writer.write(answer)
                await writer.drain()
            await liar.take(reader)

        self.act = act

    @staticmethod
    def http(status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, reason: str = "X") -> bytes:
        """Return a whole, honest answer."""
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{n}: {v}" for n, v in fields.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _lines(head: bytes) -> list[tuple[bytes, bytes]]:
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs]


@contextlib.asynccontextmanager
async def _served(liar: Liar, tls: ssl.SSLContext | None = None) -> AsyncIterator[Liar]:
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0, ssl=tls, limit=2**24)
    port = server.sockets[0].getsockname()[1]
    liar.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    try:
        yield liar
    finally:
        liar.release.set()
        server.close()
        if liar.serving:
            await asyncio.wait(liar.serving, timeout=5)


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    async with _served(Liar()) as liar:
        yield liar


@pytest.fixture
async def other_liar() -> AsyncIterator[Liar]:
    async with _served(Liar()) as liar:
        yield liar


@pytest.fixture
def serve():
    """Start a liar with a certificate: `async with serve(Liar(), context)`."""
    return lambda tls=None: _served(Liar(), tls)


@pytest.fixture
def make_client():
    """Return a maker of clients that ask a given address."""

    def make(url: str, *, kind=Kind.COMETAPI, timeout_s=5.0, patience=HASTE, environ=None, tls=None, key=KEY, **limits):
        return Client(
            ProviderSettings(kind=kind, base_url=url, timeout_s=timeout_s),
            key=key,
            limits=Limits(**limits),
            catalogue=Catalogue(),
            environ=environ or {},
            patience=patience,
            tls=tls,
        )

    return make


@pytest.fixture
def make_task():
    def make(**fields) -> Task:
        fixed = {"job": "job", "row": "row", "variant": 1, "prompt": "A red apple", "name": "row", "fingerprint": "f"}
        digests = Digests(prompt="", inputs="", params="", model="")
        return Task(**{"id": "job/row", "model": "gemini-2.5-flash-image", "digests": digests} | fixed | fields)

    return make


@pytest.fixture
def task(make_task) -> Task:
    return make_task()


def png(width: int = 16, height: int = 16, *, rows: bytes | None = None) -> bytes:
    """Return a PNG written by hand, so that a test can damage it knowingly."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = zlib.compress(rows if rows is not None else (b"\0" + bytes(range(3)) * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", raw) + chunk(b"IEND", b"")


class Pictures:
    """Real pictures of every kind, small and with something on them."""

    png = staticmethod(png)

    @staticmethod
    def drawn(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
        picture = Image.effect_noise((width, height), 80).convert("RGB")
        picture.paste((250, 10, 10), (0, 0, width // 2, height // 2))  # red at the top left: tells how it lies
        return picture.convert(mode)

    @classmethod
    def saved(cls, kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 16), **options) -> bytes:
        buffer = io.BytesIO()
        cls.drawn(*size, mode).save(buffer, kind, **options)
        return buffer.getvalue()


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return Pictures()


def answer_json(*images: bytes | str, mime: str = "image/png", finish: str | None = "STOP", **more) -> bytes:
    """Return the body of an answer with these images, as bytes or as Base64 text already."""
    texts = [image if isinstance(image, str) else base64.b64encode(image).decode() for image in images]
    parts = [{"inlineData": {"mimeType": mime, "data": text}} for text in texts]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": finish, "index": 0}
    return json.dumps({"candidates": [candidate], **more}).encode()


@pytest.fixture(scope="session")
def answer_body():
    return answer_json


@pytest.fixture(scope="session")
def make_reply():
    def make(body: bytes, status: int = 200, *, is_first: bool = False, **headers: str) -> Reply:
        pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return Reply(status=status, headers=pairs, body=body, is_first=is_first, seconds=1.0)

    return make
