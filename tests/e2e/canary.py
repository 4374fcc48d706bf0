"""A key that must be seen nowhere, and the search for it in every spelling and every byte."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus


def spellings(key: str) -> dict[str, bytes]:
    """Return the ways in which a key may be written; of Base64 what does not depend on its neighbours."""
    found = {
        "raw": key,
        "quoted": quote(key),
        "quoted-whole": quote(key, safe=""),
        "plus": quote_plus(key),
        "json": json.dumps(key)[1:-1],
        "json-slash": json.dumps(key)[1:-1].replace("/", "\\/"),
        "unicode-escapes": "".join(f"\\u{ord(char):04x}" for char in key),
    }
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + key.encode() + b"xyz").decode()
        found[f"base64-{offset}"] = encoded[4:-8]
        found[f"base64-url-{offset}"] = encoded[4:-8].replace("+", "-").replace("/", "_")
    return {name: text.encode() for name, text in found.items()}


def written(folder: Path, *said: "subprocess.CompletedProcess[str]") -> Iterator[tuple[str, bytes]]:
    """Yield every byte that was written: files, their names, and what the commands said."""
    for path in sorted(folder.rglob("*")):
        yield f"the name of {path}", str(path).encode()
        if path.is_file():
            yield str(path), path.read_bytes()
    for done in said:
        yield f"stdout of {done.args[1:3]}", done.stdout.encode()
        yield f"stderr of {done.args[1:3]}", done.stderr.encode()


def leaks(keys: dict[str, bytes], folder: Path, *said: "subprocess.CompletedProcess[str]", log: str = "") -> list[str]:
    """Name every place that shows a key, and how it is spelled there."""
    places = [*written(folder, *said), ("the log", log.encode())]
    lowered = {spelling.lower(): name for name, spelling in keys.items()}  # most are spelled alike in several ways
    return [
        f"{where}: {name}"
        for where, content in ((where, content.lower()) for where, content in places)
        for spelling, name in lowered.items()
        if spelling in content
    ]
