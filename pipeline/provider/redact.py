"""Removes the key, in any of its spellings, and control characters from text and bytes of the server."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from typing import AnyStr, Generic
from urllib.parse import quote

MASK = "[key]"
_SHORTEST = 8  # characters; less of a key would be cut out of ordinary words
_ESCAPE = re.compile("%..")
_TEXT_LIMIT = 1000  # characters of one reason


def _base64_cores(key: bytes) -> Iterator[str]:
    """Yield what stands in a Base64 text for the key, wherever in the encoded bytes it began (three alignments)."""
    for offset in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            text = encode(b"\0" * offset + key).decode()
            whole = (offset + len(key)) // 3 * 4  # the last group may hold bytes of what follows
            yield text[(0, 2, 3)[offset] : whole]


def _heads(secret: str) -> Iterator[str]:
    """Yield the ways in which its first characters are written: there a search begins."""
    first = secret[:_SHORTEST]
    for quoted in (quote(first, safe=""), quote(first)):
        yield quoted
        yield _ESCAPE.sub(lambda escape: escape[0].lower(), quoted)
    escaped = json.dumps(first)[1:-1]
    yield escaped
    yield escaped.replace("/", "\\/")
    for template in ("\\u{:04x}", "\\u{:04X}"):
        yield "".join(template.format(ord(char)) for char in first)
    yield first


def _escapes(char: str) -> str:
    """Return a pattern of one character, however often it was escaped: JSON in JSON, quoted twice, HTML."""
    code = f"{ord(char):02x}"
    forms = [rf"\\*{re.escape(char)}", rf"\\+u00(?i:{code})", rf"%(?:25)*(?i:{code})"]
    return "|".join([*forms, re.escape(html.escape(char))])


class _Secret(Generic[AnyStr]):
    """One text that must not be seen, searched in str or in bytes: whole, or its beginning where something cut it."""

    def __init__(self, heads: list[AnyStr], chars: list[AnyStr], mask: AnyStr) -> None:
        self._heads: list[AnyStr] = heads
        self._chars: list[re.Pattern[AnyStr]] = [re.compile(char) for char in chars]
        self._mask: AnyStr = mask

    def removed(self, raw: AnyStr) -> AnyStr:
        for head in self._heads:
            if head in raw:
                raw = self._mask.join(self._around(raw, head))
        return raw

    def _around(self, raw: AnyStr, head: AnyStr) -> Iterator[AnyStr]:
        """Yield what stands before, between and after the places that begin with `head`."""
        rest, at = 0, raw.find(head)
        while at >= 0:
            yield raw[rest:at]
            rest = max(self._end(raw, at), at + len(head))
            at = raw.find(head, rest)
        yield raw[rest:]

    def _end(self, raw: AnyStr, at: int) -> int:
        for char in self._chars:
            found = char.match(raw, at)
            if found is None:
                break
            at = found.end()
        return at


class Redactor:
    """Takes one key out of whatever it is given. An empty or very short key leaves everything as it is."""

    def __init__(self, key: str) -> None:
        bare = key.split(" ", 1)[1] if key.lower().startswith("bearer ") else key
        texts = (bare, *_base64_cores(bare.encode())) if len(bare) >= _SHORTEST else ()
        secrets = sorted({text for text in texts if len(text) >= _SHORTEST}, key=lambda text: (-len(text), text))
        spelled = [(list(dict.fromkeys(_heads(secret))), [_escapes(char) for char in secret]) for secret in secrets]
        self._in_text = [_Secret(heads, chars, MASK) for heads, chars in spelled]
        self._in_bytes = [
            _Secret([head.encode() for head in heads], [char.encode() for char in chars], MASK.encode())
            for heads, chars in spelled
        ]

    def __repr__(self) -> str:
        return f"<Redactor {len(self._in_text)} secrets>"

    def text(self, raw: str, limit: int = _TEXT_LIMIT) -> str:
        """Return one line without the key, its control, bidirectional and invisible characters escaped.

        Anything beyond `limit` characters is cut, and the cut is shown.
        """
        for secret in self._in_text:
            raw = secret.removed(raw)
        line = " ".join(raw[: limit * 2].split())
        if not line.isprintable():
            line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
        return line if len(line) <= limit else line[: limit - 1] + "…"

    def body(self, raw: bytes) -> bytes:
        """Return the bytes without the key."""
        for secret in self._in_bytes:
            raw = secret.removed(raw)
        return raw
