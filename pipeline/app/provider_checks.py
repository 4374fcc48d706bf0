"""Tests the provider without a paid request: a TCP connection with TLS handshake, and the public list of models.

Never reads the key. CometAPI publishes its list at `{base_url}/api/models`; its shape is not promised, so every text in
it counts that is the name of a model.
"""

import asyncio
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pipeline.errors import InputError, Problem
from pipeline.provider.credentials import check_address, find_proxy
from pipeline.settings import ProviderSettings

if TYPE_CHECKING:
    from aiohttp import StreamReader


PATIENCE_S: Final = 10.0
TLS_ADVICE: Final = "is a proxy in between? SSL_CERT_FILE names its certificate; a wrong clock makes this too"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How the attempt went."""

    is_reached: bool
    text: str
    advice: str = ""


async def connect(settings: ProviderSettings, environ: Mapping[str, str], *, patience_s: float = PATIENCE_S) -> Reached:
    """Connect once to where requests would go, or to the proxy in between."""
    try:
        address = check_address(settings)
        proxy = find_proxy(address, environ)
    except InputError as error:
        return Reached(is_reached=False, text=str(error))
    parts = urlsplit(address if proxy is None else proxy.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    where = f"{host}:{port}" + ("" if proxy is None else " (a proxy)")
    started = time.monotonic()
    try:
        async with asyncio.timeout(patience_s):
            await _connect(host, port, is_tls=parts.scheme == "https")
    except TimeoutError:
        return _not(
            where, f"no answer within {patience_s:g} s", "check the network, a firewall, or the proxy variables"
        )
    except socket.gaierror:
        return _not(where, "the name is not known", "check provider.base_url and DNS")
    except ssl.SSLError as error:
        return _not(where, f"TLS failed ({error.reason or error})", TLS_ADVICE)
    except OSError as error:
        return _not(where, error.strerror or str(error), "check provider.base_url, the network and HTTPS_PROXY")
    took = f"{(time.monotonic() - started) * 1000:.0f} ms"
    return Reached(is_reached=True, text=f"{where} answers{' over TLS' if parts.scheme == 'https' else ''} in {took}")


async def _connect(host: str, port: int, *, is_tls: bool) -> None:
    context = ssl.create_default_context() if is_tls else None
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.transport.abort()  # not one byte was sent; there is nothing to say goodbye to


def _not(where: str, why: str, advice: str) -> Reached:
    return Reached(is_reached=False, text=f"{where}: {why}", advice=advice)


LIST_PATIENCE_S: Final = 20.0
MOST_BYTES: Final = 16 * 2**20
_NAME: Final = re.compile(r"gemini-[a-z0-9.-]{1,60}")
_IMAGE: Final = re.compile(r"image|banana")


async def listed_models(settings: ProviderSettings, environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the Gemini models in the list. Raises InputError: there is no list to be had."""
    import aiohttp  # takes 0.3 s to import: only for who asks

    address = check_address(settings)
    url, proxy = f"{address}/api/models", find_proxy(address, environ)
    credentials = None if proxy is None or proxy.credentials is None else aiohttp.BasicAuth(*proxy.credentials)
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIST_PATIENCE_S)) as session,
            session.get(
                url, proxy=None if proxy is None else proxy.url, proxy_auth=credentials, allow_redirects=False
            ) as reply,
        ):
            body = await _whole(reply.content)
            status = reply.status
        names = frozenset(_names(json.loads(body)))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
        raise _unlisted(url, f"{type(error).__name__}: {error}") from error
    if status != 200 or not names:
        raise _unlisted(url, f"HTTP {status}, {len(names)} Gemini models")
    return names


def is_image_model(name: str) -> bool:
    """Tell whether a name is that of a model which makes images."""
    return _IMAGE.search(name) is not None


async def _whole(content: "StreamReader") -> bytes:
    data = bytearray()
    async for chunk in content.iter_chunked(2**16):
        data += chunk
        if len(data) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES // 2**20} MB")
    return bytes(data)


def _names(node: object) -> Iterator[str]:
    """Yield every text of a tree of JSON, keys included, that is the name of a Gemini model."""
    if isinstance(node, str) and _NAME.fullmatch(node):
        yield node
    for child in (*node, *node.values()) if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _names(child)


def _unlisted(url: str, why: str) -> InputError:
    return InputError(Problem(what=f"{url} gave no list of models ({why})", instead="try later"))
