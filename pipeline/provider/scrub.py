"""What came from outside, made fit to be shown and kept.

In: text and bytes from the server, and the key. Out: the same without the key in any of its spellings, and text without
control characters. It refuses to know where the text goes.
"""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

MASK = "[key]"
_ESCAPE = re.compile("%..")
_SHORTEST = 8  # characters; a shorter "key" would be cut out of ordinary words
_TEXT_LIMIT = 1000  # characters of one reason


def _base64_cores(key: bytes) -> Iterator[str]:
    """Yield what stands in a Base64 text for the key, wherever in the encoded bytes it began (three alignments)."""
    for offset in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            text = encode(b"\0" * offset + key).decode()
            whole = (offset + len(key)) // 3 * 4  # the last group may hold bytes of what follows
            yield text[(0, 2, 3)[offset] : whole]


def _spellings(key: str) -> Iterator[str]:
    yield key
    for quoted in (quote(key, safe=""), quote(key), quote_plus(key)):
        yield quoted
        yield _ESCAPE.sub(lambda escape: escape[0].lower(), quoted)
    escaped = json.dumps(key)[1:-1]
    yield escaped
    yield escaped.replace("/", "\\/")
    for template in ("\\u{:04x}", "\\u{:04X}"):
        yield "".join(template.format(ord(char)) for char in key)
    yield from _base64_cores(key.encode())


class Scrubber:
    """Takes one key out of whatever it is given. An empty or very short key leaves everything as it is."""

    def __init__(self, key: str) -> None:
        bare = key.split(" ", 1)[1] if key.lower().startswith("bearer ") else key
        found = {s for k in (key, bare) if len(k) >= _SHORTEST for s in _spellings(k) if len(s) >= _SHORTEST}
        self._spellings = sorted(found, key=lambda s: (-len(s), s))
        self._bytes = [(s.encode(), MASK.encode()) for s in self._spellings]

    def __repr__(self) -> str:
        return f"<Scrubber {len(self._spellings)} spellings>"

    def text(self, raw: str, limit: int = _TEXT_LIMIT) -> str:
        """Return one line without the key, its control, bidirectional and invisible characters escaped.

        Anything beyond `limit` characters is cut, and the cut is shown.
        """
        for spelling in self._spellings:
            raw = raw.replace(spelling, MASK)
        line = " ".join(raw[: limit * 2].split())
        if not line.isprintable():
            line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
        return line if len(line) <= limit else line[: limit - 1] + "…"

    def body(self, raw: bytes) -> bytes:
        """Return the bytes without the key."""
        for spelling, mask in self._bytes:
            if spelling in raw:
                raw = raw.replace(spelling, mask)
        return raw
