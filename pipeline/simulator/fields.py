"""Reads Proto-JSON fields as the model owner does: both casings of a name, and a 400 that says which field is wrong."""

import re
from collections.abc import Collection, Mapping

import msgspec

from pipeline.simulator.error_responses import RequestRejected, bad_argument


def camel(name: str) -> str:
    """Turn `inline_data` into `inlineData`; what is camelCase already stays."""
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


def snake(name: str) -> str:
    """Turn `inlineData` into `inline_data`, the way error messages name fields."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class Node:
    """One value of a request and its place, e.g. `generation_config.image_config`."""

    def __init__(self, value: object, path: str = "") -> None:
        self.value = value
        self.path = path

    def __repr__(self) -> str:
        return f"<Node {self.path or '(root)'}: {type(self.value).__name__}>"

    def wrong(self, kind: str) -> RequestRejected:
        """Return the 400 for a value of the wrong type or outside its range."""
        shown = msgspec.json.encode(self.value).decode()
        return bad_argument(f"Invalid value at '{self.path}' ({kind}), {shown[:200]}")

    def fields(self, known: Collection[str]) -> Mapping[str, "Node"]:
        """Return the fields by camelCase name, without nulls; a name outside `known` is refused."""
        if not isinstance(self.value, dict):
            raise self.wrong("TYPE_MESSAGE")
        found: dict[str, Node] = {}
        for name, value in self.value.items():
            if camel(name) not in known:
                place = f" at '{self.path}'" if self.path else ""
                raise bad_argument(f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.')
            if value is not None:
                found[camel(name)] = Node(value, f"{self.path}.{snake(name)}" if self.path else snake(name))
        return found

    def items(self) -> list["Node"]:
        """Return the members of a list; a single value stands for a list of one, as proto-JSON reads it."""
        if isinstance(self.value, list):
            return [Node(value, f"{self.path}[{place}]") for place, value in enumerate(self.value)]
        return [self]

    def text(self) -> str:
        """Return a string."""
        if not isinstance(self.value, str):
            raise self.wrong("TYPE_STRING")
        return self.value

    def number(self, kind: str = "TYPE_FLOAT") -> float:
        """Return a number; digits in quotes are one too."""
        value = self.value
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                raise self.wrong(kind) from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(kind)
        return float(value)

    def whole(self) -> int:
        """Return a 32-bit whole number."""
        value = self.number("TYPE_INT32")
        if not value.is_integer() or not -(2**31) <= value < 2**31:
            raise self.wrong("TYPE_INT32")
        return int(value)

    def flag(self) -> bool:
        """Return a truth value."""
        if not isinstance(self.value, bool):
            raise self.wrong("TYPE_BOOL")
        return self.value

    def one_of(self, names: Collection[str], kind: str) -> str:
        """Return one of an enumeration's names."""
        if not isinstance(self.value, str) or self.value not in names:
            raise self.wrong(kind)
        return self.value
