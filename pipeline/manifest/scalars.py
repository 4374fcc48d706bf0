"""One scalar as it was written comes in, a value of a known kind goes out: number, duration, dollars, percentage,
text.

Resolution is YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema). Each kind carries its JSON Schema,
so that editors and the loader agree. It knows no key by name: `schema` says which key holds which kind.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from pipeline.manifest.document import Plain
from pipeline.manifest.resolution import FLOAT, resolve
from pipeline.manifest.whereabouts import path_trouble

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_USD = 10**9


def fault(what: str, instead: str) -> PydanticCustomError:
    """Build the error a validator raises: both halves of `what is wrong; what to write instead`."""
    return PydanticCustomError("imgpipe", "{what}; {instead}", {"what": what, "instead": instead})


def shown(value: object) -> str:
    """Describe a value in an error: `the text 'abc'`, `the number 12`, `a list`. At most 40 characters of it."""
    value = resolve(value)
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value[:40] + '…' if len(value) > 40 else value!r}"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _text(value: object) -> str:
    resolved = resolve(value)
    if isinstance(resolved, str):
        return resolved
    if isinstance(value, Plain):
        raise fault(f"must be text, this is {shown(value)}", f'put it in quotes: "{value}"')
    raise fault(f"must be text, this is {shown(value)}", "write one text")


def _filled(value: object) -> str:
    text = _text(value)
    if not text.strip():
        raise fault("is empty", "write a name, or take the key out")
    return text.strip()


def written(value: object) -> str:
    """Accept any scalar as the text that was written: `0123`, `3.10`, `no`, `2026-11-22`."""
    if isinstance(value, str):
        return str(value)
    raise fault(f"must be one value, this is {shown(value)}", "write one text or number")


def _written_list(value: object) -> tuple[str, ...]:
    return tuple(written(item) for item in (value if isinstance(value, list) else [value]))


def _text_list(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in (value if isinstance(value, list) else [value]))


def _path(value: object) -> str:
    path = _text(value)
    trouble = path_trouble(path)
    if trouble is not None:
        raise fault(*trouble)
    return path


def _flag(value: object) -> bool:
    resolved = resolve(value)
    if isinstance(resolved, bool):
        return resolved
    raise fault(f"must be true or false, this is {shown(value)}", "write true or false, without quotes")


def _number(value: object, *, at_least: float = -math.inf, at_most: float = math.inf) -> float:
    resolved = resolve(value)
    if isinstance(resolved, bool) or not isinstance(resolved, int | float):
        raise fault(f"must be a number, this is {shown(value)}", "write a number, without quotes")
    if not math.isfinite(resolved) or not at_least <= resolved <= at_most:
        raise fault(f"{value} is out of range", f"write a number {_range(at_least, at_most)}")
    return float(resolved)


def _range(at_least: float, at_most: float) -> str:
    if at_most == math.inf:
        return f"of {at_least:g} or more" if at_least != -math.inf else "that is finite"
    return f"from {at_least:,.10g} to {at_most:,.10g}"


def _whole(value: object, *, at_least: int, at_most: int) -> int:
    resolved = resolve(value)
    if isinstance(resolved, bool) or not isinstance(resolved, int):
        example = f"write a whole number {_range(at_least, at_most)}, without quotes"
        raise fault(f"must be a whole number, this is {shown(value)}", example)
    if not at_least <= resolved <= at_most:
        raise fault(f"{value} is out of range", f"write a whole number {_range(at_least, at_most)}")
    return resolved


def _duration(value: object) -> float:
    match_ = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match_ is None:
        unit = (
            f"{value}s" if isinstance(resolve(value), int | float) and not isinstance(resolve(value), bool) else "300s"
        )
        raise fault(f"must be a duration with its unit, this is {shown(value)}", f"write {unit}; units: ms s m h d")
    seconds = float(match_[1]) * _SECONDS[match_[2]]
    if not 0 < seconds <= 366 * 86400:
        raise fault(f"{value} is out of range", "write a duration above 0, at most 366d")
    return seconds


def usd(value: object) -> int:
    """Return micro-dollars, exactly: `0.039` is 39,000."""
    resolved = resolve(value)
    if isinstance(resolved, bool) or not isinstance(resolved, int | float):
        raise fault(f"must be an amount in USD, this is {shown(value)}", "write a plain number: 20.00")
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal(repr(resolved)) if math.isfinite(resolved) else Decimal(-1)
    if not 0 <= amount <= MAX_USD:
        raise fault(f"{value} USD is out of range", f"write a number from 0 to {MAX_USD:,}")
    microusd = amount * 10**6
    if microusd != microusd.to_integral_value():
        raise fault(f"{value} USD is finer than a millionth of a dollar", "round it to six decimals")
    return int(microusd)


def _percentage(value: object) -> float:
    text = value if isinstance(value, str) else ""
    number = text.removesuffix("%").strip()
    if text.endswith("%") and FLOAT.fullmatch(number) and 0 < float(number) <= 100:
        return float(number) / 100
    resolved = resolve(value)
    if isinstance(resolved, float) and 0 < resolved <= 1:
        return resolved
    raise fault(f"must be a percentage above 0%, at most 100%, this is {shown(value)}", "write 30%")


def whole(at_least: int, at_most: int) -> Callable[[object], int]:
    """Return a validator of whole numbers in a range."""
    return lambda value: _whole(value, at_least=at_least, at_most=at_most)


def number(at_least: float, at_most: float) -> Callable[[object], float]:
    """Return a validator of finite numbers in a range."""
    return lambda value: _number(value, at_least=at_least, at_most=at_most)


_SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
_DURATION_SCHEMA = {"type": "string", "pattern": r"^(?=.*[1-9])\d+(\.\d+)?(ms|s|m|h|d)$"}
_PERCENT_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^(?=.*[1-9])\d+(\.\d*)?\s*%$"},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    ]
}
_USD_SCHEMA = {"type": "number", "minimum": 0, "maximum": MAX_USD}


def _or_list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "array", "items": schema}]}


_PATH_PATTERN = r"^(?![\s\S]*\$\{)\s*[^~\s]"

Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
Filled = Annotated[str, PlainValidator(_filled), WithJsonSchema({"type": "string", "pattern": r"\S"})]
Path = Annotated[str, PlainValidator(_path), WithJsonSchema({"type": "string", "pattern": _PATH_PATTERN})]
Written = Annotated[str, PlainValidator(written), WithJsonSchema(_SCALAR)]
WrittenList = Annotated[tuple[str, ...], PlainValidator(_written_list), WithJsonSchema(_or_list(_SCALAR))]
TextList = Annotated[tuple[str, ...], PlainValidator(_text_list), WithJsonSchema(_or_list({"type": "string"}))]
Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]
Duration = Annotated[float, PlainValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
Usd = Annotated[int, PlainValidator(usd), WithJsonSchema(_USD_SCHEMA)]
Percentage = Annotated[float, PlainValidator(_percentage), WithJsonSchema(_PERCENT_SCHEMA)]
Free = Annotated[Any, PlainValidator(resolve), WithJsonSchema({})]
