"""What is asked for comes in, its SHA-256 and the digests of its four aspects go out.

Canonical JSON: keys sorted, no white space, absent keys left out, numbers as JSON writes them. It does not depend on
the wire: paths, dates, limits, output names, tags, `tier` (it changes the price, not the picture) and the order of the
manifest are not in it.
"""

import hashlib
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(order="deterministic").encode


def digest(value: object) -> str:
    """Return 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(_encode(value)).hexdigest()[:16]


def fingerprint(
    *, prompt: str, system: str | None, model: str, params: dict[str, Any], inputs: list[str], variant: int
) -> str:
    """Return the hex SHA-256 of one request. `params`: those that are set; `inputs`: hex, in order."""
    request: dict[str, Any] = {"model": model, "prompt": prompt, "variant": variant}
    if system is not None:
        request["system"] = system
    if params:
        request["params"] = params
    if inputs:
        request["inputs"] = inputs
    return hashlib.sha256(_encode(request)).hexdigest()


def text_digest(text: str) -> str:
    """Return 16 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
