"""Removes the key, in any of its spellings, and control characters from text and bytes of the server.

A part of a key is found as well as the whole: its first 8 characters, and any 10 in a row, as they are, in Base64 (at
each of the three alignments) and in hexadecimal; in any case, and each character escaped in any way (JSON, URL, HTML),
however often.
"""

import re
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

MASK: Final = "[key]"
_HEAD = 8  # characters; less of a key would be cut out of ordinary words
_WINDOW = 10
_TEXT_LIMIT = 1000  # characters of one reason
_ESCAPE = re.compile(  # runs of one form at once: a body may be nothing else
    rb"(?P<percent>(?:%[0-9a-f]{2})+(?!(?<=%25)[0-9a-f]{2}))|%(?:25)+(?P<again>[0-9a-f]{2})"
    rb"|(?P<code>(?:\\u00[0-9a-f]{2})+)|\\+(?:u00|x)(?P<deep>[0-9a-f]{2})|\\+"
    rb"|&(?:amp;)*(?:#x0*(?P<hex>[0-9a-f]{2})|#0*(?P<decimal>[0-9]{2,3})|(?P<name>amp|lt|gt|quot|apos));",
    re.IGNORECASE,
)
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Escape(NamedTuple):
    """Bytes that stood escaped: each took as much of the original. A backslash before another character means none."""

    end: int  # in the plain bytes
    size: int  # of them
    start: int  # in the original
    next: int  # where the original goes on


class Plain(NamedTuple):
    """Bytes without escapes, and where each of them stood."""

    data: bytes
    escapes: list[Escape]

    def place(self, at: int) -> tuple[int, int]:
        """Return where the byte `at` stood in the original: its start and end."""
        number = bisect_right(self.escapes, at, key=lambda escape: escape.end)
        if number < len(self.escapes):
            escape = self.escapes[number]
            inside = at - (escape.end - escape.size)
            if inside >= 0:
                width = (escape.next - escape.start) // escape.size
                return escape.start + inside * width, escape.start + (inside + 1) * width
        start = at + (self.escapes[number - 1].next - self.escapes[number - 1].end if number else 0)
        return start, start + 1


def _unescaped(raw: bytes) -> Plain:
    """Return `raw` with every escape of an ASCII character undone."""
    if not (b"%" in raw or b"\\" in raw or b"&" in raw):
        return Plain(raw, [])
    plain, escapes, done = bytearray(), list[Escape](), 0
    for found in _ESCAPE.finditer(raw):
        meaning = _meaning(found)
        plain += raw[done : found.start()]
        plain += meaning
        done = found.end()
        escapes.append(Escape(len(plain), len(meaning), found.start(), done))
    return Plain(bytes(plain + raw[done:]), escapes)


def _meaning(found: re.Match[bytes]) -> bytes:
    kind = found.lastgroup
    value = found[kind] if kind is not None else b""
    match kind:
        case "percent":
            return bytes.fromhex(value.replace(b"%", b"").decode())
        case "code":
            return bytes.fromhex(value.lower().replace(b"\\u00", b"").decode())
        case "again" | "deep" | "hex":
            return bytes([int(value, 16)])
        case "decimal":
            return bytes([int(value) % 256])
        case "name":
            return _NAMED[value.lower()]
        case _:
            return b""


class _Secret(NamedTuple):
    """One text that must not be seen, in lower case: a run of `window` bytes of it is found, or its first `head`."""

    text: bytes
    head: int
    window: int

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where it or a part of it stands.

        Every run of `window` bytes holds one of the probes, which are half as long and begin at each half.
        """
        window = min(self.window, len(self.text))
        step = max(window // 2, 1)
        size = min(window - step + 1, self.head)
        for offset in range(0, len(self.text) - size + 1, step):
            yield from self._around(data, offset, self.text[offset : offset + size])

    def _around(self, data: bytes, offset: int, probe: bytes) -> Iterator[tuple[int, int]]:
        at = data.find(probe)
        while at >= 0:
            start, end = self._widened(data, at, offset, len(probe))
            is_head = start == at - offset and end - start >= self.head
            if is_head or end - start >= self.window:
                yield start, end
            at = data.find(probe, max(end, at + 1))

    def _widened(self, data: bytes, at: int, offset: int, size: int) -> tuple[int, int]:
        """Return how far the bytes around a probe are those of the secret."""
        if at >= offset and data.startswith(self.text, at - offset):
            return at - offset, at - offset + len(self.text)
        before = after = 0
        while before < min(offset, at) and data[at - before - 1] == self.text[offset - before - 1]:
            before += 1
        last = min(len(self.text) - offset, len(data) - at) - size
        while after < last and data[at + size + after] == self.text[offset + size + after]:
            after += 1
        return at - before, at + size + after


def _base64_cores(key: bytes) -> Iterator[bytes]:
    """Yield what stands in a Base64 text for the key, wherever in the encoded bytes it began (three alignments)."""
    for offset in range(3):
        text = b64encode(b"\0" * offset + key)
        whole = (offset + len(key)) // 3 * 4  # the last group may hold bytes of what follows
        yield text[(0, 2, 3)[offset] : whole]


def _folded(data: bytes) -> bytes:
    """Return bytes in the one case and the one alphabet of Base64 that are searched."""
    return data.lower().translate(_URL_SAFE)


class Redactor:
    """Takes one key out of whatever it is given. An empty or very short key leaves everything as it is."""

    def __init__(self, key: str) -> None:
        bare = (key.split(" ", 1)[1] if key.lower().startswith("bearer ") else key).encode()
        self._secrets: list[_Secret] = []
        if len(bare) >= _HEAD:
            texts = dict.fromkeys(map(_folded, (bare, _unescaped(bare).data, *_base64_cores(bare))))
            self._secrets = [_Secret(text, _HEAD, _WINDOW) for text in texts if len(text) >= _HEAD]
            self._secrets.append(_Secret(bare.hex().encode(), 2 * _HEAD, 2 * _WINDOW))

    def __repr__(self) -> str:
        return f"<Redactor {len(self._secrets)} secrets>"

    def text(self, raw: str, limit: int = _TEXT_LIMIT) -> str:
        """Return one line without the key, its control, bidirectional and invisible characters escaped.

        Anything beyond `limit` characters is cut, and the cut is shown.
        """
        raw = self.body(raw.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
        line = " ".join(raw[: limit * 2].split())
        if not line.isprintable():
            line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
        return line if len(line) <= limit else line[: limit - 1] + "…"

    def body(self, raw: bytes) -> bytes:
        """Return the bytes without the key."""
        if not self._secrets:
            return raw
        plain = _unescaped(raw)
        folded = _folded(plain.data)
        spans = sorted(span for secret in self._secrets for span in secret.spans(folded))
        return _masked(raw, plain, spans) if spans else raw


def _masked(raw: bytes, plain: Plain, spans: list[tuple[int, int]]) -> bytes:
    """Put the mask in the place of each span of `plain`; of those that overlap, once."""
    pieces, done, covered = list[bytes](), 0, 0
    for start, end in spans:
        if end <= covered:
            continue
        first, last = plain.place(start)[0], plain.place(end - 1)[1]
        if start >= covered or not pieces:
            pieces += [raw[done:first], MASK.encode()]
        done, covered = last, end
    return b"".join([*pieces, raw[done:]])
