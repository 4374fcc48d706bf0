"""The bill: one JSON line for every answer, written before its body is sent.

Lines are appended to a file, each in one write. A key is never in it, only its fingerprint. Not part of `api`, because
`server` opens and closes the file.
"""

import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

PROMPT_SHOWN = 80


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Fields of the request are None when it was rejected before it was understood."""

    time: str
    request: int  # counted from 1 over all requests of this server
    request_id: str
    key: str | None  # fingerprint
    status: int
    outcome: str  # image | refused | no_image | error | cut
    billed: bool
    price_microusd: int  # of its tokens, by the list; 0: nothing was executed
    model: str | None = None
    size: str | None = None
    ratio: str | None = None
    prompt_sha256: str | None = None
    prompt: str | None = None  # its first 80 characters
    input_images: int = 0
    images: int = 0  # images that were made and sent, drafts that are billed included
    image_sha256: tuple[str, ...] = ()
    seed: int | None = None  # the one asked for, else the one that was chosen
    fault: str | None = None


def now() -> str:
    """Return the time of an entry, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def digest(prompt: str) -> str:
    """Return the hex SHA-256 of a prompt."""
    return sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


class Bill:
    """The open log; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._fd = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, entry: Entry) -> None:
        """Append one line; it is in the system's hands when this returns."""
        if self._fd is None:
            return
        line = memoryview(msgspec.json.encode(entry) + b"\n")
        while line:
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
