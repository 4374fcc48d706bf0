"""Environment variables in `vars`: `${X}`, `${X:-default}`, `${X:?why}`, and `$$` for a dollar sign.

In: one value and the environment. Out: its text, or a reason that names the variable and never shows its value.
"""

import re
from collections.abc import Collection, Mapping

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}|(?P<open>\{))")


class MissingVariable(Exception):  # noqa: N818 - becomes a Problem where the place is known
    """A variable that is not there, or not usable. `what` and `instead` never hold its value."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what)
        self.what, self.instead = what, instead


def interpolate(text: str, environ: Mapping[str, str], *, keys: Collection[str] = ()) -> str:
    """Return `text` with its variables filled in.

    Raises: MissingVariable when one is unset, empty or several lines, or one of `keys`: what stands in `vars` goes into
    prompts, and from there into the ledger, the log and the pictures' records.
    """
    return _REFERENCE.sub(lambda match: _value(match, environ, keys), text)


def _value(match: re.Match[str], environ: Mapping[str, str], keys: Collection[str]) -> str:
    name, how, rest = match["name"], match["how"], match["rest"]
    if match["open"] is not None:
        raise MissingVariable("${ is not followed by a variable's name and }", "write ${NAME}, or $${ for the text ${")
    if name is None:
        return "$"
    if name in keys:
        raise MissingVariable(f"{name} is the API key, which must not get into a prompt", "name another variable")
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
