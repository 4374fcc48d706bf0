"""Where requests go: checked before the first one, because the key goes there too.

In: settings, proxy variables. Out: the address of a model, the proxy. It refuses to know what is sent.
"""

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # public, missing from typeshed

from pipeline.errors import InputError, Problem
from pipeline.settings import Kind, ProviderSettings

_OWN = {
    Kind.COMETAPI: "https://api.cometapi.com",
    Kind.GOOGLE: "https://generativelanguage.googleapis.com",
    Kind.SIMULATOR: "http://127.0.0.1",  # the embedded simulator's port is known once it runs
}
_VERSIONS = ("/v1beta", "/v1")  # people copy them along from other tools' settings


class Proxy(NamedTuple):
    """A proxy without its password, and the password apart, so that no message can show it."""

    url: str
    credentials: tuple[str, str] | None = None


def check_address(settings: ProviderSettings) -> str:
    """Return the resolved base URL, without a trailing slash.

    Raises: InputError for anything but https (http only to this machine), and for user, password, query or fragment.
    The text never repeats the address, which may hold a secret.
    """
    given = (settings.base_url or _OWN[settings.kind]).strip("\ufeff \t\r\n")
    parts = _split(given)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError(
            Problem(
                what="provider.base_url holds a user, password, query or fragment",
                instead="write only scheme, host and path: the key comes from the environment",
            )
        )
    is_local = is_loopback(parts.hostname or "")
    if parts.scheme == "http" and not is_local:
        raise InputError(
            Problem(what="provider.base_url is http, which would show the key to the network", instead="write https")
        )
    if settings.kind is Kind.SIMULATOR and not is_local:
        raise InputError(
            Problem(
                what="provider.base_url of a simulator is not on this machine, its money would be real",
                instead="write http://127.0.0.1:8787, or take it away",
            )
        )
    path = parts.path.rstrip("/")
    for version in _VERSIONS:
        path = path.removesuffix(version).rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def own_address(kind: Kind) -> str:
    """Return where a kind's own API is."""
    return _OWN[kind]


def model_url(base_url: str, model: str) -> str:
    """Return the address that makes images with `model`, which is free text."""
    return f"{base_url}/v1beta/models/{quote(model.removeprefix('models/'), safe='')}:generateContent"


def find_proxy(base_url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy of HTTPS_PROXY or ALL_PROXY; None when NO_PROXY, this machine or silence says direct.

    Raises: InputError for a proxy that cannot be used.
    """
    parts = urlsplit(base_url)
    proxies = {name: environ.get(f"{name}_proxy") or environ.get(f"{name.upper()}_PROXY") for name in ("https", "all")}
    given = proxies["https"] or proxies["all"]
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if parts.scheme != "https" or is_loopback(parts.hostname or "") or not given:
        return None
    if proxy_bypass_environment(parts.netloc, {"no": excluded}):
        return None
    return _read_proxy(given if "://" in given else f"http://{given}")


def _read_proxy(given: str) -> Proxy:
    try:
        parts = urlsplit(given)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("HTTPS_PROXY is not an http:// or https:// address; write http://HOST:PORT or unset it")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    credentials = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return Proxy(f"{parts.scheme}://{host}{port}", credentials)


def is_loopback(host: str) -> bool:
    """Tell whether a host name can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _split(given: str) -> SplitResult:
    try:
        parts = urlsplit(given)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable, parts = False, SplitResult("", "", "", "", "")
    if not is_usable or any(char.isspace() or not char.isprintable() for char in given):
        raise InputError(
            Problem(what="provider.base_url is not an address", instead="write for example https://api.cometapi.com")
        )
    return parts
