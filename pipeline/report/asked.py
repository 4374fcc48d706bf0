"""What was asked for an image: prompt, model, parameters, inputs; and facts as lines of a name and a value.

In: plain values, read from a record by whoever has one. Out: text for a console.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.report.foreign import visible

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked. Paths of inputs are absolute, or names where only those are known."""

    prompt: str
    model: str
    system: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    inputs: Sequence[tuple[str, str]] = ()  # path or name, sha256
    matrix: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a task. `when`: `attempts 1, 2 asked for`, `a run asks next for`."""

    when: str
    request: Request


def request_lines(request: Request) -> Iterator[tuple[str, str]]:
    """Yield name and value of each fact; a second input has no name."""
    yield "prompt", request.prompt
    if request.system is not None:
        yield "system", request.system
    yield "model", request.model
    for name, values in (("parameters", request.parameters), ("matrix", request.matrix), ("row", request.fields)):
        if values:
            yield name, ", ".join(f"{key} {_plain(value)}" for key, value in values.items())
    for number, (path, sha256) in enumerate(request.inputs):
        yield "inputs" if number == 0 else "", f"{path}  sha256 {sha256}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def facts(lines: Iterable[tuple[str, str]], console: "Console") -> None:
    """Print one fact a line; a value of several lines stays in its column."""
    from rich.text import Text

    for name, value in lines:
        first, *more = value.splitlines() or [""]
        console.print(Text.assemble((f"{name:<12}", "bold"), visible(first)), soft_wrap=True)
        for line in more:
            console.print(Text(f"{'':<12}{visible(line)}"), soft_wrap=True)
