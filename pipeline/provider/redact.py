"""Removes the key, in any of its spellings, and control characters from text and bytes of the server.

A part of a key is found as well as the whole: its first 8 characters, and any 10 in a row, as they are, in Base64 (at
each of the three alignments) and in hexadecimal; in any case, and each character escaped in any way (JSON, URL, HTML),
however often.
"""

import re
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Final, NamedTuple

MASK: Final = "[key]"
_HEAD = 8  # characters; less of a key would be cut out of ordinary words
_WINDOW = 10
_TEXT_LIMIT = 1000  # characters of one reason
_CHUNK = 2**18  # bytes searched at once, which bounds memory: a body may be nothing but escapes
_OVERLAP = 2**14  # bytes of the next chunk that are searched with each: a key may lie across
_MOST = 1000  # places of one chunk where a part of the key begins; nothing but copies of the key has more
_ESCAPE = re.compile(
    rb"(%(?:25)*[0-9a-f]{2}|\\+(?:(?:u00|x)[0-9a-f]{2})?"
    rb"|&(?:amp;)*(?:#x0*[0-9a-f]{2}|#0*[0-9]{2,3}|amp|lt|gt|quot|apos);)",
    re.IGNORECASE,
)
_NAMED = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class _Meanings(dict[bytes, bytes]):
    """What each escape stands for: one byte, or none for a backslash before another character."""

    def __missing__(self, escape: bytes) -> bytes:
        if escape.startswith(b"&") and b"#" not in escape:
            meaning = _NAMED[escape[1:-1].lower().rpartition(b";")[2]]
        elif escape.startswith(b"&") and b"#x" not in escape.lower():
            meaning = bytes([int(escape[-4:-1].lstrip(b"#")) % 256])
        else:
            digits = escape.rstrip(b";")[-2:]
            meaning = b"" if digits.endswith(b"\\") else bytes([int(digits, 16)])
        self[escape] = meaning
        return meaning


class _Plain:
    """Bytes without escapes, and where each of them stood."""

    def __init__(self, raw: bytes) -> None:
        self._raw = _ESCAPE.split(raw)  # what stands between two escapes, the escape, and so on
        self._plain = self._raw.copy()
        self._plain[1::2] = map(_Meanings().__getitem__, self._raw[1::2])
        self.data = b"".join(self._plain)
        self._ends: tuple[Sequence[int], Sequence[int]] | None = None

    def place(self, at: int) -> tuple[int, int]:
        """Return where the byte `at` stood in the original: its start and end."""
        if self._ends is None:
            self._ends = [*accumulate(map(len, self._plain))], [*accumulate(map(len, self._raw))]
        ends, raw_ends = self._ends
        number = bisect_right(ends, at)
        if number % 2:
            return raw_ends[number] - len(self._raw[number]), raw_ends[number]
        start = raw_ends[number] - (ends[number] - at)
        return start, start + 1


class _Secret(NamedTuple):
    """One text that must not be seen, in lower case: a run of `window` bytes of it is found, or its first `head`."""

    text: bytes
    head: int
    window: int

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where it or a part of it stands, and an empty span for what turned out to be less.

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
            is_found = is_head or end - start >= self.window
            yield (start, end) if is_found else (at, at)
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


def bare(key: str) -> str:
    """Return a key without the `Bearer ` that may stand before it."""
    return key.split(" ", 1)[1].strip() if key.lower().startswith("bearer ") else key


class Redactor:
    """Takes one key out of whatever it is given. An empty or very short key leaves everything as it is."""

    def __init__(self, key: str) -> None:
        secret = bare(key).encode()
        self._secrets: list[_Secret] = []
        if len(secret) >= _HEAD:
            texts = dict.fromkeys(map(_folded, (secret, _Plain(secret).data, *_base64_cores(secret))))
            self._secrets = [_Secret(text, _HEAD, _WINDOW) for text in texts if len(text) >= _HEAD]
            self._secrets.append(_Secret(secret.hex().encode(), 2 * _HEAD, 2 * _WINDOW))

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
        spans: list[tuple[int, int]] = []
        for start in range(0, len(raw), _CHUNK):
            spans += (
                (start + first, start + last) for first, last in self._spans(raw[start : start + _CHUNK + _OVERLAP])
            )
        return _masked(raw, spans) if spans else raw

    def _spans(self, raw: bytes) -> list[tuple[int, int]]:
        """Return where the key or parts of it stand; everything, where there are too many to be anything else."""
        plain = _Plain(raw)
        folded = _folded(plain.data)
        found = list(islice((span for secret in self._secrets for span in secret.spans(folded)), _MOST + 1))
        if len(found) > _MOST:
            return [(0, len(raw))]
        return [(plain.place(start)[0], plain.place(end - 1)[1]) for start, end in found if end > start]


def _masked(raw: bytes, spans: list[tuple[int, int]]) -> bytes:
    """Put the mask in the place of each span; of those that overlap, once."""
    pieces, covered = list[bytes](), 0
    for start, end in sorted(spans):
        if start >= covered or not pieces:
            pieces += [raw[covered:start], MASK.encode()]
        covered = max(covered, end)
    return b"".join([*pieces, raw[covered:]])
