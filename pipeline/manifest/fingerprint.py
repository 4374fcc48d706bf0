"""What is asked for comes in, its SHA-256 and the digests of its four aspects go out.

Canonical JSON: keys sorted, no white space, absent keys left out, numbers as JSON writes them. It does not depend on
the wire: paths, dates, limits, output names, tags and the order of the manifest are not in it.
"""

import hashlib
from typing import Any

import msgspec

from pipeline.model import Digests

_encode = msgspec.json.Encoder(order="deterministic").encode


def canonical(value: object) -> bytes:
    """Return the one JSON form of a value."""
    return _encode(value)


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


def digests(*, prompt: str, system: str | None, model: str, params_digest: str, inputs_digest: str) -> Digests:
    """Return one digest an aspect. `params_digest` and `inputs_digest` come from `digest`; many tasks share them."""
    text = prompt if system is None else f"{prompt}\0{system}"
    return Digests(
        prompt=hashlib.sha256(text.encode()).hexdigest()[:16], inputs=inputs_digest, params=params_digest, model=model
    )
