"""Types of values in a manifest: number, duration, dollars, percentage, text, and those that belong to one key.

Resolution of scalars is YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema). Each type carries its
JSON Schema, so that editors and the loader agree. An invalid value raises an error that says what to write instead.
`schema` and `settings` say which key has which type.
"""

import re
import zoneinfo
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from pipeline import model, settings
from pipeline.manifest.location import is_name, path_trouble, place_trouble
from pipeline.manifest.problems import BadValue
from pipeline.manifest.spreadsheets import ENCODINGS
from pipeline.manifest.yaml import FLOAT, PlainText, resolve
from pipeline.text import DURATION_PATTERN, MAX_USD, nearest, parse_duration, parse_usd

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Metadata of a type: what reads a written value, and its JSON Schema."""

    read: Callable[[Any], object]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(
        self, core: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return deepcopy(self.schema)


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
    if isinstance(value, PlainText):
        raise BadValue(f"must be text, this is {shown(value)}", f'put it in quotes: "{value}"')
    raise BadValue(f"must be text, this is {shown(value)}", "write one text")


def _filled(value: object) -> str:
    text = _text(value)
    if not text.strip():
        raise BadValue("is empty", "write a name, or remove the key")
    return text.strip()


def written(value: object) -> str:
    """Accept any scalar as the text that was written: `0123`, `3.10`, `no`, `2026-11-22`."""
    if isinstance(value, str):
        return str(value)
    raise BadValue(f"must be one value, this is {shown(value)}", "write one text or number")


def _part(read: Callable[[Any], T], value: object, part: str | int, *, is_key: bool = False) -> T:
    """Read a part of a list or mapping; what is wrong with it carries its place."""
    try:
        return read(value)
    except BadValue as bad:
        bad.within, bad.is_key = (part,), is_key
        raise


def _parts(read: Callable[[Any], T], values: list[object]) -> tuple[T, ...]:
    return tuple(_part(read, value, n) for n, value in enumerate(values))


def _listed(read: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    return lambda value: _parts(read, value) if isinstance(value, list) else (read(value),)


def _place(find_trouble: Callable[[str], tuple[str, str] | None]) -> Callable[[object], str]:
    def read(value: object) -> str:
        place = _text(value)
        if (trouble := find_trouble(place)) is not None:
            raise BadValue(*trouble)
        return place

    return read


def _metrics(value: object) -> str:
    path = _place(path_trouble)(value)
    if not path.endswith(settings.METRICS_SUFFIX):
        what = f"metrics are written to a file *{settings.METRICS_SUFFIX} only"
        raise BadValue(what, f"write for example metrics/imgpipe{settings.METRICS_SUFFIX}")
    return path


def _zone(value: object) -> str:
    name = _text(value)
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        what = f"the time zone {name!r} is not known on this system"
        is_bare = not zoneinfo.available_timezones()  # a small container image
        instead = "install tzdata, or write UTC" if is_bare else "write UTC, or a name such as Europe/Lisbon"
        raise BadValue(what, instead) from None
    return name


def _flag(value: object) -> bool:
    resolved = resolve(value)
    if isinstance(resolved, bool):
        return resolved
    raise BadValue(f"must be true or false, this is {shown(value)}", "write true or false, without quotes")


def _number(value: object, kind: type[int | float], at_least: float, at_most: float) -> int | float:
    resolved = resolve(value)
    noun, span = "number" if kind is float else "whole number", f"from {at_least:,.10g} to {at_most:,.10g}"
    if isinstance(resolved, bool) or not isinstance(resolved, int if kind is int else int | float):
        raise BadValue(f"must be a {noun}, this is {shown(value)}", f"write a {noun} {span}, without quotes")
    if not at_least <= resolved <= at_most:
        raise BadValue(f"{value} is out of range", f"write a {noun} {span}")
    return kind(resolved)


def _duration(value: object) -> float:
    seconds = parse_duration(value) if isinstance(value, str) else None
    if seconds is None:
        is_number = isinstance(resolve(value), int | float) and not isinstance(resolve(value), bool)
        unit = f"{value}s" if is_number else "300s"
        raise BadValue(
            f"must be a duration with its unit, this is {shown(value)}", f"write {unit}; units: ms s m h d w"
        )
    if not 0 < seconds <= 366 * 86400:
        raise BadValue(f"{value} is out of range", "write a duration above 0, at most 366d")
    return seconds


def _usd(value: object) -> int:
    resolved = resolve(value)
    if isinstance(resolved, bool) or not isinstance(resolved, int | float):
        raise BadValue(f"must be an amount in USD, this is {shown(value)}", "write a plain number: 20.00")
    try:
        return parse_usd(str(value) if FLOAT.fullmatch(str(value)) else repr(resolved))
    except ValueError as error:
        raise BadValue(*error.args) from None


def _percentage(value: object) -> float:
    text = value if isinstance(value, str) else ""
    number = text.removesuffix("%").strip()
    if text.endswith("%") and FLOAT.fullmatch(number) and 0 < float(number) <= 100:
        return float(number) / 100
    resolved = resolve(value)
    if isinstance(resolved, float) and 0 < resolved <= 1:
        return resolved
    raise BadValue(f"must be a percentage above 0%, at most 100%, this is {shown(value)}", "write 30%")


_SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
_DURATION_SCHEMA = {"type": "string", "pattern": f"^(?=.*[1-9]){DURATION_PATTERN}$"}
_PERCENT_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": r"^(?=.*[1-9])\d+(\.\d*)?\s*%$"},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    ]
}
_USD_SCHEMA: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": MAX_USD}


def _or_list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "array", "items": schema}]}


_PATH_PATTERN = r"^(?![\s\S]*\$\{)\s*[^~\s]"

Text = Annotated[str, Checked(_text, {"type": "string"})]
Filled = Annotated[str, Checked(_filled, {"type": "string", "pattern": r"\S"})]
PathText = Annotated[str, Checked(_place(path_trouble), {"type": "string", "pattern": _PATH_PATTERN})]
PlaceText = Annotated[str, Checked(_place(place_trouble), {"type": "string", "pattern": _PATH_PATTERN})]
MetricsPath = Annotated[str, Checked(_metrics, {"type": "string", "pattern": _PATH_PATTERN + r"[\s\S]*\.prom\s*$"})]
Zone = Annotated[str, Checked(_zone, {"type": "string"})]
Written = Annotated[str, Checked(written, _SCALAR)]
WrittenList = Annotated[tuple[str, ...], Checked(_listed(written), _or_list(_SCALAR))]
TextList = Annotated[tuple[str, ...], Checked(_listed(_text), _or_list({"type": "string"}))]
Flag = Annotated[bool, Checked(_flag, {"type": "boolean"})]
Duration = Annotated[float, Checked(_duration, _DURATION_SCHEMA)]
Usd = Annotated[int, Checked(_usd, _USD_SCHEMA)]
Percentage = Annotated[float, Checked(_percentage, _PERCENT_SCHEMA)]
Free = Annotated[Any, Checked(resolve, {})]


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY_VARIABLE = r"^(?!AWS_|GITHUB_|GH_|SSH_)(?=[A-Za-z0-9_]{1,64}$)[A-Za-z_][A-Za-z0-9_]*_(KEY|TOKEN)$"
_ASPECT_RATIO = re.compile(r"[1-9][0-9]?:[1-9][0-9]?")
_DELIMITER = r'^[^"\r\nA-Za-z0-9]$'
DELIVERED = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}  # the forms of deliveries, with their suffixes
SIZES = ("512", "1K", "2K", "4K")
ASPECTS = tuple(aspect.value for aspect in model.Aspect)
_MANY = 10**9
MAX_SEED = 2**31 - 1  # of variants, too


class MatrixValue(str):
    """One value of a matrix axis: its text goes in prompts, `key`, its name, in ids: `{{ matrix.scene.key }}`."""

    __slots__ = ("key",)
    key: str

    def __new__(cls, text: str, key: str) -> "MatrixValue":
        """Return `text` with its key."""
        value = super().__new__(cls, text)
        value.key = key
        return value


def _unless_template(check: Callable[[Any], str]) -> Callable[[object], str]:
    """Let a template pass: its value is known only when it is rendered."""
    return lambda value: str(value) if isinstance(value, str) and "{{" in value else check(value)


def check_aspect_ratio(value: str) -> str:
    """Return `16:9` and the like. Raises for anything else; which ratios a model can do is the catalogue's to say."""
    if _ASPECT_RATIO.fullmatch(value := written(value)):
        return value
    raise BadValue(f"{value[:40]!r} is not an aspect ratio", "write width:height in whole numbers: 16:9")


def check_size(value: str) -> str:
    """Return one of SIZES. Raises for anything else."""
    if (value := written(value)) in SIZES:
        return value
    near = value.upper() if value.upper() in SIZES else "512, 1K, 2K or 4K"
    raise BadValue(f"{value[:40]!r} is not a size", f"write {near}")


def one_of(*names: str) -> Callable[[object], str]:
    """Return a validator of fixed words."""

    def check(value: object) -> str:
        if isinstance(value, str) and value in names:
            return str(value)
        near = nearest(value, names) if isinstance(value, str) else None
        raise BadValue(f"{shown(value)} is not known here", f"write {near or ', '.join(names)}")

    return check


def _name(value: object) -> str:
    name = written(value)
    if not is_name(name):
        raise BadValue(f"the name {name[:40]!r} is not usable in paths", "use letters, digits, - _ . and inner spaces")
    return name


def _variable(value: object) -> str:
    resolved = resolve(value)
    name = resolved if isinstance(resolved, str) else ""
    if not _VARIABLE.fullmatch(name) or len(name) > 64:  # what stands here may be a key by mistake: it is not repeated
        raise BadValue("must be the NAME of an environment variable, never the key itself", "write COMETAPI_KEY")
    if not re.fullmatch(_KEY_VARIABLE, name):
        what = "must be a name that ends with _KEY or _TOKEN, and none of AWS_, GITHUB_, GH_ or SSH_"
        raise BadValue(what, "write COMETAPI_KEY: what it holds is sent to the provider")
    return str(name)


def check_url(value: object, example: str = "https://host/path") -> str:
    """Return an http or https address with a host. BadValue, which does not repeat it, for anything else."""
    if isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+\S*", value):
        return str(value)
    raise BadValue("must be an address that starts with https:// or http://", f"write {example}")


def _delimiter(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_DELIMITER, value):
        return str(value)
    raise BadValue(f"must be one character, this is {shown(value)}", 'write ";" or "," or "\\t" in double quotes')


def _aspects(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadValue("must be a list of prompt, inputs, params, model", "write [prompt, inputs, params, model]")
    return tuple(dict.fromkeys(_parts(one_of(*ASPECTS), value)))


def _axis(value: object) -> tuple[MatrixValue, ...]:
    if isinstance(value, dict):
        values = tuple(MatrixValue(_part(written, text, name), name) for name, text in value.items())
    elif isinstance(value, list):
        values = tuple(MatrixValue(text, text) for text in _parts(written, value))
    else:
        raise BadValue(f"an axis is a list or a mapping, this is {shown(value)}", "write [a, b] or {name: text}")
    names = [each.key for each in values]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if not names or "" in names or twice is not None:
        what = "is empty" if not names else "holds an empty value" if "" in names else f"holds {twice!r} twice"
        raise BadValue(f"the axis {what}", "write each value once: [a, b]")
    return values


def _version(value: object) -> int:
    version = resolve(value)
    if version == 1 and not isinstance(version, bool | float):
        return 1
    raise BadValue(f"version must be 1, this is {shown(value)}", "write version: 1")


def _price(value: object) -> int | dict[str, int]:
    if not isinstance(value, dict):
        return _usd(value)
    for size in value:
        _part(check_size, size, size, is_key=True)
    return {size: _part(_usd, price, size) for size, price in value.items()}


def _between(at_least: float, at_most: float, kind: type[int | float] = int) -> Checked:
    schema = {"type": "integer" if kind is int else "number", "minimum": at_least, "maximum": at_most}
    return Checked(lambda value: _number(value, kind, at_least, at_most), schema)


def _one_of(*names: str) -> Checked:
    return Checked(one_of(*names), {"enum": [*names]})


# `_NAME` without `\w`, which is letters of every script in Python and ASCII alone in JavaScript.
NAME_PATTERN = r"^[^\s!-/:-@\[-^`{-~]([^!-*,/:-@\[-^`{-~]*[^\s!-*,./:-@\[-^`{-~])?$"
_TEMPLATE = {"type": "string", "pattern": r"\{\{"}
_AXIS: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": _SCALAR, "minItems": 1, "uniqueItems": True},
        {"type": "object", "additionalProperties": _SCALAR, "minProperties": 1},
    ]
}
_PRICE: dict[str, Any] = {
    "anyOf": [
        _USD_SCHEMA,
        {"type": "object", "properties": dict.fromkeys(SIZES, _USD_SCHEMA), "additionalProperties": False},
    ]
}
_SIZE: dict[str, Any] = {"anyOf": [{"enum": [*SIZES, 512]}, _TEMPLATE]}
_RATIO: dict[str, Any] = {"anyOf": [{"type": "string", "pattern": f"^{_ASPECT_RATIO.pattern}$"}, _TEMPLATE]}

PositiveInt = Annotated[int, _between(1, _MANY)]
Seed = Annotated[int, _between(-(2**31), MAX_SEED)]
Quality = Annotated[int, _between(1, 100)]
Variants = Annotated[int, _between(1, 10_000)]
Parallel = Annotated[int, _between(1, 10_000)]
Attempts = Annotated[int, _between(1, 100)]
Repeats = Annotated[int, _between(0, 100)]
Rate = Annotated[float, _between(0.01, 1_000_000, float)]
Temperature = Annotated[float, _between(0, 2, float)]
Name = Annotated[str, Checked(_name, {"type": ["string", "number", "boolean"], "pattern": NAME_PATTERN})]
Address = Annotated[str, Checked(_unless_template(check_url), {"type": "string", "pattern": r"^https?://[^\s/]|\{\{"})]
Url = Annotated[
    str, Checked(partial(check_url, example="https://api.cometapi.com"), {"type": "string", "pattern": "^https?://"})
]
VariableName = Annotated[str, Checked(_variable, {"type": "string", "pattern": _KEY_VARIABLE})]
KindKey = Annotated[str, _one_of(*(kind.value for kind in settings.Kind))]
Thinking = Annotated[str, _one_of("minimal", "medium", "high")]
Tier = Annotated[str, _one_of(*(tier.value for tier in model.Tier))]
Delimiter = Annotated[str, Checked(_delimiter, {"type": "string", "pattern": _DELIMITER})]
Encoding = Annotated[str, _one_of(*ENCODINGS)]
Done = Annotated[str, _one_of("done")]
Embedding = Annotated[str, _one_of("embed", "none")]
Check = Annotated[str, _one_of("flag", "redo", "off")]
Chosen = Annotated[str, _one_of("picked", "done")]
ImageKind = Annotated[str, _one_of(*DELIVERED)]
Profile = Annotated[str, _one_of("srgb")]
Metadata = Annotated[str, _one_of("keep", "strip")]
Aspects = Annotated[tuple[str, ...], Checked(_aspects, {"type": "array", "items": {"enum": [*ASPECTS]}})]
AspectRatio = Annotated[str, Checked(_unless_template(check_aspect_ratio), _RATIO)]
Size = Annotated[str, Checked(_unless_template(check_size), _SIZE)]
Axis = Annotated[tuple[MatrixValue, ...], Checked(_axis, _AXIS)]
Version = Annotated[int, Checked(_version, {"enum": [1]})]
Price = Annotated[int | dict[str, int], Checked(_price, _PRICE)]
