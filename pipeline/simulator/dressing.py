"""Right answers wrapped oddly, or spoilt: what relays and proxies do to a body.

In: the JSON bytes of a good answer and a fault's name. Out: the bytes as that fault leaves them. It works on bytes,
because the Base64 in them is large and most of it stays as it is.
"""

import re
from collections.abc import Callable, Mapping

_DATA = re.compile(rb'("data":")([A-Za-z0-9+/=]*)(")')
_SNAKE = ((b'"inlineData"', b'"inline_data"'), (b'"mimeType"', b'"mime_type"'))


def dress(body: bytes, fault: str) -> bytes:
    """Return the body as the fault leaves it; other faults leave it as it is."""
    spoil = _SPOILT.get(fault)
    return body if spoil is None else spoil(body)


def _each_data(body: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return _DATA.sub(lambda found: found[1] + change(found[2]) + found[3], body)


def _snake(body: bytes) -> bytes:
    for camel, snake in _SNAKE:
        body = body.replace(camel, snake)
    return body


def _url_safe(data: bytes) -> bytes:
    return data.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=")


def _lines(data: bytes) -> bytes:
    return rb"\n".join(data[at : at + 76] for at in range(0, len(data), 76))


def _not_base64(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + b"*!" + data[middle + 2 :]


def _cut(data: bytes) -> bytes:
    return data[: max(64, len(data) * 3 // 5) // 4 * 4]


_SPOILT: Mapping[str, Callable[[bytes], bytes]] = {
    "snake_case": _snake,
    "data_prefix": lambda body: _each_data(body, lambda data: b"data:image/png;base64," + data),
    "url_safe_base64": lambda body: _each_data(body, _url_safe),
    "base64_lines": lambda body: _each_data(body, _lines),
    "escaped_json": lambda body: _each_data(body, lambda data: data.replace(b"/", rb"\/").replace(b"=", rb"\u003d")),
    "bad_base64": lambda body: _each_data(body, _not_base64),
    "cut_image": lambda body: _each_data(body, _cut),
    "broken_json": lambda body: body[: len(body) * 7 // 10],
}
