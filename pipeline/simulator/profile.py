"""How a simulator behaves: speed, limits, capacity over time, faults and pictures, read from YAML.

Every mistake of a file is reported at once, with its line and column.
"""

from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from pipeline.errors import InputError, Problem
from pipeline.simulator.faults import FAULTS
from pipeline.simulator.validation import Ask
from pipeline.text import nearest, parse_duration


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    seconds = parse_duration(value)
    if seconds is None:
        raise ValueError("write a duration such as 500ms, 3s or 2m")
    return seconds


def _known_fault(name: str) -> str:
    if name in FAULTS:
        return name
    near = nearest(name, FAULTS)
    raise ValueError(f"no such fault {name!r}" + (f"; did you mean {near}?" if near else ""))


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
FaultName = Annotated[str, AfterValidator(_known_fault)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(_Part):
    """How long an answer takes: one of `fixed`, `uniform` [least, most], or `p50` with `p95` (lognormal)."""

    fixed: Seconds | None = None
    uniform: tuple[Seconds, Seconds] | None = None
    p50: Seconds | None = None
    p95: Seconds | None = None
    by_size: dict[Literal["512", "1K", "2K", "4K"], Annotated[float, Field(gt=0)]] = {}

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Latency":
        kinds = [self.fixed is not None, self.uniform is not None, self.p50 is not None or self.p95 is not None]
        if sum(kinds) != 1:
            raise ValueError("write one of: fixed, uniform, or p50 with p95")
        if kinds[2] and not (self.p50 and self.p95 and self.p50 < self.p95):
            raise ValueError("p50 and p95 belong together, with 0 < p50 < p95")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError("uniform is [least, most]")
        return self


Hint = Literal["retry_after", "retry_info", "text", "none"]


class RateLimits(_Part):
    """What one key may do; beyond it the answer is `status`. `hint` says how the delay of a 429 is named.

    `window`: the length in which requests are counted; of 600 a minute it holds 10 in a window of 1 s. `burst`: they
    are counted by a token bucket that holds so many instead; 1 is nginx's limit_req without a burst.
    """

    requests_per_minute: Count | None = None
    window: Annotated[Seconds, Field(gt=0)] = 60.0
    burst: Count | None = None
    status: Literal[429, 503] = 429
    concurrency: Count | None = None
    hint: Hint = "retry_after"


class CapacityStep(_Part):
    """From `after` on (since the start) this capacity holds, until the next step."""

    after: Seconds
    requests_per_minute: Count | None = None
    concurrency: Count | None = None
    slower: Annotated[float, Field(gt=0)] = 1.0  # latency is multiplied by it
    outage: FaultName | None = None  # every request meets this fault


class Match(_Part):
    """Which requests a rule is for; all that is written must fit."""

    prompt: str | None = None  # part of the prompt, any case
    model: str | None = None  # a name, `*` stands for anything
    images: bool | None = None  # with or without input images

    def fits(self, ask: Ask) -> bool:
        return (
            (self.prompt is None or self.prompt.casefold() in ask.prompt.casefold())
            and (self.model is None or fnmatchcase(ask.model.name, self.model))
            and (self.images is None or self.images == bool(ask.images))
        )


class FaultRule(_Part):
    """One fault and when it strikes. Without probability, every, first or at it always does."""

    name: FaultName
    probability: Share | None = None
    every: Count | None = None  # every n-th request
    first: Count | None = None  # the first n
    at: tuple[Count, ...] | None = None  # these, counted from 1
    per: Literal["server", "request"] = "server"  # counted over all that match, or over repeats of the same request
    match: Match = Match()
    retry_after: Seconds | None = None  # the delay that a 429 or 503 names
    seconds: Seconds | None = None  # how long a stall, hang or trickle lasts

    @model_validator(mode="after")
    def _is_one_way(self) -> "FaultRule":
        ways = (self.probability, self.every, self.first, self.at)
        if sum(way is not None for way in ways) > 1:
            raise ValueError("write one of: probability, every, first, at")
        return self


class Profile(_Part):
    """One rehearsal."""

    about: str = ""
    seed: int = 0  # the same seed, the same chances
    latency: Latency = Latency(uniform=(0.4, 1.2), by_size={"512": 0.7, "2K": 1.6, "4K": 2.5})
    limits: RateLimits = RateLimits()
    capacity: tuple[CapacityStep, ...] = ()
    capacity_repeats: Seconds | None = None  # the steps begin again after this time
    faults: tuple[FaultRule, ...] = ()
    picture: Literal["drawn", "tiny"] = "drawn"
    picture_bytes: Annotated[int, Field(ge=0, le=48 * 2**20)] = 0  # tiny pictures are filled up to this size
    max_request_bytes: Count = 20 * 2**20

    @field_validator("latency", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"fixed": value} if isinstance(value, int | float | str) else value

    @field_validator("capacity")
    @classmethod
    def _is_in_order(cls, steps: tuple[CapacityStep, ...]) -> tuple[CapacityStep, ...]:
        if [step.after for step in steps] != sorted(step.after for step in steps):
            raise ValueError("the steps must be in the order of `after`")
        return steps


DEFAULT = "calm"
_SOURCES = files("pipeline.simulator").joinpath("profiles")
_MOST_BYTES = 2**20
Marks = dict[tuple[object, ...], yaml.Mark]  # where each value stands, by its path of keys
_SCALARS = yaml.constructor.SafeConstructor()


def built_in() -> tuple[str, ...]:
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _SOURCES.iterdir() if entry.name[-5:] == ".yaml"))


def load_profile(path: Path | None = None) -> Profile:
    """Read a profile. `path` may also be the name of a built-in one; None is the default.

    Raises `InputError` with every problem as file:line:column.
    """
    if path is None or (str(path) in built_in() and not path.is_file()):
        name = DEFAULT if path is None else str(path)
        return parse(_SOURCES.joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise InputError(Problem(what="a profile is at most 1 MB", file=str(path)))
        return parse(data.decode("utf-8-sig"), str(path))
    except OSError as error:
        what, instead = f"profile cannot be read: {error.strerror}", f"built in are {', '.join(built_in())}"
        raise InputError(Problem(what=what, instead=instead, file=str(path))) from error
    except UnicodeDecodeError as error:
        raise InputError(Problem(what=f"not UTF-8 at byte {error.start}", file=str(path))) from error


def parse(text: str, file: str) -> Profile:
    """Read a profile from its text; `file` is named in problems."""
    marks: Marks = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return Profile.model_validate({} if root is None else _value(root, (), marks, file))
    except yaml.MarkedYAMLError as error:
        raise InputError(_at(error.problem_mark or error.context_mark, str(error.problem), file)) from error
    except yaml.YAMLError as error:
        raise InputError(_at(None, str(error), file)) from error
    except RecursionError as error:
        raise InputError(_at(None, "nested too deep", file)) from error
    except ValidationError as error:
        raise InputError(*(_problem(detail, marks, file) for detail in error.errors())) from error


def _value(node: yaml.Node, path: tuple[object, ...], marks: Marks, file: str) -> object:
    """Turn a node into plain values, and note where each stands."""
    marks[path] = node.start_mark
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, place), marks, file) for place, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _SCALARS.construct_object(node)
    found: dict[str, object] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in found:
            raise InputError(_at(key.start_mark, f"duplicate key {name!r}", file))
        found[name] = _value(value, (*path, name), marks, file)
        marks[(*path, name)] = key.start_mark
    return found


def _problem(detail: ErrorDetails, marks: Marks, file: str) -> Problem:
    path = detail["loc"]
    what = "no such key" if detail["type"] == "extra_forbidden" else detail["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, path))
    while path and path not in marks:
        path = path[:-1]
    return _at(marks.get(path), f"{name}: {what}" if name else what, file)


def _at(mark: yaml.Mark | None, what: str, file: str) -> Problem:
    line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
    return Problem(what=what, file=file, line=line, column=column)
