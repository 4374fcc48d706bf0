"""The gateway's public list of models, fetched without a key. Apart from `doctor`, because it alone speaks HTTP.

CometAPI publishes it at `{base_url}/api/models`. Its shape is not promised, so that every text in it counts which is
the name of a model.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pipeline.errors import InputError, Problem
from pipeline.provider import check_address
from pipeline.provider.address import find_proxy
from pipeline.settings import ProviderSettings

if TYPE_CHECKING:
    from aiohttp import StreamReader

PATIENCE_S: Final = 20.0
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
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
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
