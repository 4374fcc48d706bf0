"""Environment variables in `vars`: `${X}`, `${X:-default}`, `${X:?why}`, and `$$` for a dollar sign.

In: one value and the environment. Out: its text, or a reason that names the variable and never shows its value.
"""

import re
from collections.abc import Collection, Mapping

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}|(?P<open>\{))")

# Words of a name that mark a secret; AUTHOR and KEYWORD are none, MONKEY costs a flag.
_SECRET = re.compile(
    r"KEY(?!WORD)|TOKEN|SECRET|PASSW|PASSPHRASE|PASSCODE|CREDENTIAL|AUTH(?!OR(?!I))|PRIVATE|COOKIE|SESSION|SIGNATURE|JWT|DSN"
    r"|CONNECTION_STRING|_PASS$|^PASS$|_PWD$|_PAT$|_PIN$|_SALT$|(?:DATABASE|DB|REDIS|MONGO(?:DB)?|AMQP)_UR[IL]"
    r"|^(?:AWS|AZURE|DOCKER|GH|GITHUB|GITLAB|NPM|PYPI|SSH)_"
)


class MissingVariable(Exception):  # noqa: N818 - becomes a Problem where the place is known
    """A variable that is not there, or not usable. `what` and `instead` never hold its value."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what)
        self.what, self.instead = what, instead


def looks_secret(name: str) -> bool:
    """True for a variable whose name says that it holds a key, a token or a password."""
    return _SECRET.search(name.upper()) is not None


def interpolate(
    text: str, environ: Mapping[str, str], *, keys: Collection[str] = (), allowed: Collection[str] = ()
) -> str:
    """Return `text` with its variables filled in.

    Raises: MissingVariable when one is unset, empty or several lines, one of `keys`, or looks like a secret and is not
    `allowed`: what stands in `vars` goes into prompts, and from there into the ledger, the log and the
    pictures' records.
    """
    return _REFERENCE.sub(lambda match: _value(match, environ, keys, allowed), text)


def _value(match: re.Match[str], environ: Mapping[str, str], keys: Collection[str], allowed: Collection[str]) -> str:
    name, how, rest = match["name"], match["how"], match["rest"]
    if match["open"] is not None:
        raise MissingVariable("${ is not followed by a variable's name and }", "write ${NAME}, or $${ for the text ${")
    if name is None:
        return "$"
    if name in keys:
        raise MissingVariable(f"{name} is the API key, which must not get into a prompt", "name another variable")
    if looks_secret(name) and name not in allowed:
        what = f"{name} looks like a secret, which must not get into a prompt"
        raise MissingVariable(what, f"name another variable, or allow this one: --allow-env {name}")
    value = environ.get(name, "")
    if not value and how == "-":
        return str(rest)
    if not value:
        state = "is empty" if name in environ else "is not set"
        what = f"the environment variable {name} {state}" + (f": {rest}" if how == "?" and rest else "")
        raise MissingVariable(what, f"set it, or write ${{{name}:-default}}")
    if any(character in value for character in "\n\r\0"):
        raise MissingVariable(f"the environment variable {name} holds several lines", "set it to one line")
    return value
