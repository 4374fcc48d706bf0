"""The door of the API: which key was shown, and what stands behind a path.

In: headers, query and path. Out: the key, or the answer of a door that stays shut. It refuses to know bodies.
"""

from collections.abc import Mapping
from hashlib import sha256

from pipeline.simulator.envelopes import TurnedAway, WireReply, comet, html


def find_key(headers: Mapping[str, str], query: Mapping[str, str], request_id: str) -> str:
    """Return the key of whichever of the four forms was used: `x-goog-api-key`, then `?key=`, then `Authorization`."""
    shown = headers.get("x-goog-api-key") or query.get("key") or headers.get("Authorization", "")
    key = shown.removeprefix("Bearer ").removeprefix("bearer ").strip()
    if not key or key.casefold() == "bearer":
        raise TurnedAway(comet(401, "Invalid token", request_id))
    return key


def fingerprint(key: str) -> str:
    """Return what a bill may show of a key: enough to tell two apart, nothing to unlock with."""
    return sha256(b"imgpipe simulator\0" + key.encode()).hexdigest()[:12]


def wrong_path(method: str, path: str, request_id: str) -> WireReply:
    """Answer a path that is not of the API: under /v1 a JSON 404, slips of the slash a 301, all else a web page."""
    tidy = "/" + "/".join(part for part in path.split("/") if part)
    if tidy != path and path != "/":
        return html(301, "301 Moved Permanently", "", headers={"Location": tidy})
    if path.startswith(("/models/", "/v1beta1/")):
        return html(301, "301 Moved Permanently", "", headers={"Location": "/v1beta" + path.removeprefix("/v1beta1")})
    if path.startswith("/v1"):
        return comet(404, f"Invalid URL ({method} {path})", request_id, kind="invalid_request_error")
    return html(200, "Image API simulator", "This is a web page, not the API. The API begins with /v1beta/models/.")
