"""Can the provider be reached? A connection and a TLS handshake, closed again: nothing is asked, nothing is paid.

In: provider settings. Out: reached or not, in words a person can act on. It never sees the key.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pipeline.errors import InputError
from pipeline.provider import check_address
from pipeline.provider.address import find_proxy
from pipeline.settings import ProviderSettings

PATIENCE_S: Final = 10.0
TLS_ADVICE: Final = "is a proxy in between? SSL_CERT_FILE names its certificate; a wrong clock makes this too"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How the attempt went."""

    is_reached: bool
    text: str
    advice: str = ""


async def reach(settings: ProviderSettings, environ: Mapping[str, str], *, patience_s: float = PATIENCE_S) -> Reached:
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
