"""One scalar as it was written -> its value by YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema).

It knows no kind of value that a key may want: that is `scalars`.
"""

import math
import re
from typing import Any

from pipeline.manifest.document import Plain

_INT = re.compile(r"[-+]?[0-9]+")
_BASED_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
MAX_DIGITS = 40  # of a number; longer ones are ids, and ids are text


def resolve(value: object) -> Any:
    """Return a tree's YAML 1.2 core value: `16:9`, `no`, `1_000` and dates stay text, `0123` is 123, `0o17` is 15."""
    if isinstance(value, Plain):
        return _resolve_plain(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    return value


def _resolve_plain(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= MAX_DIGITS:
        if _INT.fullmatch(text):
            return int(text)
        if _BASED_INT.fullmatch(text):
            return int(text[2:], 8 if text[1] == "o" else 16)
        if FLOAT.fullmatch(text):
            return float(text)
    return _SPECIAL.get(text.lower(), str(text))


def is_null(value: object) -> bool:
    """True for an unquoted null or nothing at all after the colon."""
    return value is None or (isinstance(value, Plain) and _WORDS.get(value, 0) is None)
