"""The key: found, never shown.

In: settings, the environment, the folder of the manifest (for its `.env`). Out: the key, fit for a header. It
refuses to know where it goes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dotenv import dotenv_values

from pipeline.errors import InputError
from pipeline.settings import KEY_NAMES, Kind, ProviderSettings

SIMULATOR_KEY = "simulator"
_SPACE = "\ufeff \t\r\n\v\f\u00a0"
_QUOTES = ('""', "''", "``", "\u201c\u201d", "\u2018\u2019", "\u00ab\u00bb", "\u201e\u201c")
_SHORTEST = 8  # characters of a key of ours that is looked for in texts
_SHORTEST_OTHER = 16


def find_key(settings: ProviderSettings, *, environ: Mapping[str, str], dotenv_dir: Path) -> str:
    """Return the key from the environment, else from `.env` in `dotenv_dir`, without white space, U+FEFF and quotes.

    `docker run --env-file` keeps the quotes around a value, and no key has any (moby/moby#46773).

    Raises: InputError naming the variables that were looked for, never a value. The simulator needs no key.
    """
    names = (settings.api_key_env,) if settings.api_key_env else KEY_NAMES[settings.kind]
    found = _first(names, environ) or _first(names, _read_dotenv(dotenv_dir / ".env"))
    if found is None and settings.kind is Kind.SIMULATOR:
        return SIMULATOR_KEY
    if found is None:
        raise InputError(
            f"no API key: {' or '.join(names)} is not set; export it, or write it to a file .env beside the manifest"
        )
    name, key = found
    if not key.isascii() or not key.isprintable() or any(quote in key for quote in "\"'`"):
        raise InputError(f"the API key in {name} holds characters no key has, such as a quotation mark; copy it again")
    return key


def known_keys(*, environ: Mapping[str, str], dotenv_dir: Path) -> tuple[str, ...]:
    """Return every API key that is there, whoever's: none may stand in what is asked, named or shown.

    Short ones are left out, because ordinary words would hold them. A `.env` that cannot be read has none.
    """
    try:
        beside = _read_dotenv(dotenv_dir / ".env")
    except InputError:
        beside = {}
    own = {name for names in KEY_NAMES.values() for name in names}
    found = []
    for name, value in (*environ.items(), *beside.items()):
        key = _unquoted(value or "")
        bare = key.split(" ", 1)[1] if key.lower().startswith("bearer ") else key
        if len(bare) >= (_SHORTEST if name in own else _SHORTEST_OTHER) and name.endswith(("_KEY", "_TOKEN")):
            found.append(bare)
    return tuple(dict.fromkeys(found))


def headers(settings: ProviderSettings, key: str) -> dict[str, str]:
    """Return the one header that carries the key. A `Bearer ` prefix is passed on as it is."""
    return {"x-goog-api-key" if settings.kind is Kind.GOOGLE else "Authorization": key}


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
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); mend it or remove it") from error
