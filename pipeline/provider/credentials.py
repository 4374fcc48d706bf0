"""Finds the API key, and checks the address it may be sent to, before the first request.

The key comes from the environment or the `.env` beside the manifest, and is never shown. Proxy variables are honoured.
"""

import ipaddress
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # public, missing from typeshed

from dotenv import dotenv_values

from pipeline.errors import InputError
from pipeline.model import is_loopback
from pipeline.provider.redact import bare
from pipeline.settings import KEY_NAMES, Kind, ProviderSettings

SIMULATOR_KEY = "simulator"
_SPACE = "\ufeff \t\r\n\v\f\u00a0"
_QUOTES = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019", "\u00ab\u00bb", "\u201e\u201c")
_FOREIGN: Final = {Kind.COMETAPI: ("AIza", Kind.GOOGLE), Kind.GOOGLE: ("sk-", Kind.COMETAPI)}  # how others' keys begin
_SHORTEST = 8  # characters of a key of ours that is looked for in texts
_SHORTEST_OTHER = 16


def find_key(settings: ProviderSettings, *, environ: Mapping[str, str], dotenv_dir: Path) -> str:
    """Return the key from the environment, else from `.env` in `dotenv_dir`, without white space, U+FEFF and quotes.

    `docker run --env-file` keeps the quotes around a value, and no key has any (moby/moby#46773).

    Raises: InputError naming the variables that were looked for, never a value. The simulator needs no key.
    """
    names = _names(settings)
    path = dotenv_dir / ".env"
    found = _first(names, environ) or _first(names, _read_dotenv(path))
    if found is None and settings.kind is Kind.SIMULATOR:
        return SIMULATOR_KEY
    if found is None:
        file = f"{path}, which has no such line" if path.is_file() else f"a file .env beside the manifest ({path})"
        set_it = f"export it, or write the line {names[0]}=YOUR-KEY to {file}"
        raise InputError(f"no API key: {' or '.join(names)} is not set; {set_it}")
    name, key = found
    if not key.isascii() or not key.isprintable() or any(char in bare(key) for char in " \"'`"):
        what = "characters no key has, such as a space or a quotation mark"
        raise InputError(f"the API key in {name} holds {what}; copy it again, without a comment behind it")
    return key


def known_keys(*, environ: Mapping[str, str], dotenv_dir: Path) -> tuple[str, ...]:
    """Return every API key that is there, whoever's: none may stand in what is asked, named or shown.

    Short ones are left out, because ordinary words would hold them. A `.env` that cannot be read has none.
    """
    beside = _dotenv_or_nothing(dotenv_dir / ".env")
    own = {name for names in KEY_NAMES.values() for name in names}
    found = []
    for name, value in (*environ.items(), *beside.items()):
        key = bare(_unquoted(value or ""))
        if len(key) >= (_SHORTEST if name in own else _SHORTEST_OTHER) and name.endswith(("_KEY", "_TOKEN")):
            found.append(key)
    return tuple(dict.fromkeys(found))


def key_doubt(settings: ProviderSettings, *, environ: Mapping[str, str], dotenv_dir: Path) -> str | None:
    """Say that the key of `find_key` looks like another kind's, or where another key is, of another account perhaps.

    None: there is one, and it may be right.
    """
    path = dotenv_dir / ".env"
    places = (("the environment", environ), (str(path), _dotenv_or_nothing(path)))
    found = [
        (f"{name} in {place}", key)
        for place, values in places
        for name in _names(settings)
        if (key := _unquoted(values.get(name) or ""))
    ]
    beginning, kind = _FOREIGN.get(settings.kind, (None, ""))
    is_own = settings.base_url in (None, OWN_ADDRESS[settings.kind])
    if found and is_own and beginning is not None and bare(found[0][1]).startswith(beginning):
        return f"{found[0][0]} begins with {beginning}, as keys for `kind: {kind}` do; this is `kind: {settings.kind}`"
    other = next((place for place, key in found if key != found[0][1]), None)
    return None if other is None else f"two API keys are set: {found[0][0]} is used, {other} is not"


def headers(settings: ProviderSettings, key: str) -> dict[str, str]:
    """Return the one header that carries the key. A `Bearer ` prefix is passed on as it is."""
    return {"x-goog-api-key" if settings.kind is Kind.GOOGLE else "Authorization": key}


def _names(settings: ProviderSettings) -> Sequence[str]:
    return (settings.api_key_env,) if settings.api_key_env else KEY_NAMES[settings.kind]


def _first(names: Sequence[str], values: Mapping[str, str | None]) -> tuple[str, str] | None:
    stripped = ((name, _unquoted(values.get(name) or "")) for name in names)
    return next(((name, value) for name, value in stripped if value), None)


def _unquoted(value: str) -> str:
    plain = value.strip(_SPACE)
    while len(plain) >= 2 and f"{plain[0]}{plain[-1]}" in _QUOTES:
        plain = plain[1:-1].strip(_SPACE)
    return plain


def _read_dotenv(path: Path) -> Mapping[str, str | None]:
    if not path.is_file():
        return {}
    if not path.resolve().name.startswith(".env"):
        raise InputError(f"{path} is a link to a file of another name, which may hold other secrets; make it a file")
    try:
        return dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:  # PowerShell's `>` writes UTF-16
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; make it readable, or remove it") from error


def _dotenv_or_nothing(path: Path) -> Mapping[str, str | None]:
    try:
        return _read_dotenv(path)
    except InputError:
        return {}


OWN_ADDRESS: Final = {
    Kind.COMETAPI: "https://api.cometapi.com",
    Kind.GOOGLE: "https://generativelanguage.googleapis.com",
    Kind.SIMULATOR: "http://127.0.0.1",  # the embedded simulator's port is known once it runs
}


class Proxy(NamedTuple):
    """A proxy without its password, and the password apart, so that no message can show it."""

    url: str
    credentials: tuple[str, str] | None = None

    @property
    def headers(self) -> dict[str, str] | None:
        """What it is sent to let us through; None: it asks for no password."""
        if self.credentials is None:
            return None
        return {"Proxy-Authorization": f"Basic {b64encode(':'.join(self.credentials).encode()).decode()}"}


def check_address(settings: ProviderSettings) -> str:
    """Return the resolved base URL, without what people copy along: a version, a whole endpoint, a trailing slash.

    Raises: InputError for anything but https (http only to this machine), and for user, password, query or fragment.
    The text never repeats the address, which may hold a secret.
    """
    given = (settings.base_url or OWN_ADDRESS[settings.kind]).strip("\ufeff \t\r\n")
    parts = _parts(given)
    is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    if not is_usable or any(char.isspace() or not char.isprintable() for char in given):
        raise InputError("provider.base_url is not an address", instead="write for example https://api.cometapi.com")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        instead = "write only scheme, host and path: the key comes from the environment"
        raise InputError("provider.base_url holds a user, password, query or fragment", instead=instead)
    is_local = is_loopback(parts.hostname or "")
    if parts.scheme == "http" and not is_local:
        raise InputError("provider.base_url is http, which would show the key to the network", instead="write https")
    if settings.kind is Kind.SIMULATOR and not is_local:
        what = "provider.base_url of a simulator is not on this machine, its money would be real"
        raise InputError(what, instead="write http://127.0.0.1:8787, or remove it")
    path = f"{parts.path}/".partition("/v1beta/")[0].rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def model_url(base_url: str, model: str) -> str:
    """Return the address that makes images with `model`, which is free text."""
    return f"{base_url}/v1beta/models/{quote(model.removeprefix('models/'), safe='')}:generateContent"


def find_proxy(base_url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy of HTTPS_PROXY or ALL_PROXY; None when NO_PROXY, this machine or silence says direct.

    Raises: InputError for a proxy that cannot be used.
    """
    parts = urlsplit(base_url)
    names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    name = next((name for name in names if environ.get(name)), None)
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if is_loopback(parts.hostname or "") or name is None:  # no other address is http
        return None
    return None if _is_excluded(parts, excluded) else _read_proxy(name, environ[name])


def _is_excluded(parts: SplitResult, excluded: str) -> bool:
    """Tell whether NO_PROXY names the host: as Python reads it, and as curl and Go do, with `*.` and networks.

    https://github.com/python/cpython/issues/149746
    """
    names = [name.removeprefix("*.") for name in excluded.replace(",", " ").split()]
    host = parts.netloc if parts.port else f"{parts.netloc}:443"
    if proxy_bypass_environment(host, {"no": ",".join(names)}):
        return True
    address = _network(parts.hostname or "")
    return address is not None and any(
        address.version == network.version and address.subnet_of(network)  # type: ignore[arg-type]
        for network in map(_network, names)
        if network is not None
    )


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network of a name, of one address too, in the brackets of a URL or without; None for other names."""
    try:
        return ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        return None


def _read_proxy(name: str, given: str) -> Proxy:
    parts = _parts(given if "://" in given else f"http://{given}")
    is_torn = "@" in given and parts.username is None  # by a character of the password that means something in a URL
    if parts.scheme not in ("http", "https") or not parts.hostname or is_torn:
        advice = "write http://HOST:PORT or unset it"
        advice += "; in a password, / # ? are %2F %23 %3F" if "@" in given else ""
        raise InputError(f"{name} is not an http:// or https:// address; {advice}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    credentials = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    port = "" if parts.port is None else f":{parts.port}"
    return Proxy(f"{parts.scheme}://{host}{port}", credentials)


def trust_advice(environ: Mapping[str, str]) -> str:
    """Say what helps where nobody known signed a server's certificate. OpenSSL ignores a file that it cannot read."""
    file = environ.get("SSL_CERT_FILE")
    try:
        ssl.create_default_context(cafile=file or None)
    except OSError:  # of ssl, too
        return f"SSL_CERT_FILE is {file}, which cannot be read as certificates in PEM form"
    return "if a company's proxy is in between, SSL_CERT_FILE names its certificate"


def _parts(given: str) -> SplitResult:
    """Return the parts of an address; empty ones where it is none."""
    try:
        parts = urlsplit(given)
        parts.port  # noqa: B018 - is it a number?
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts
