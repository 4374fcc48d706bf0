"""What a template handles and what it may cost: namespaces, the look of a value in a text, and one rendering's budget.

In: values. Out: the same values, paid for, or SecurityError. It knows nothing of Jinja's grammar.
"""

import json
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.utils import Namespace

MAX_TEXT = 100_000  # characters of one rendered text, and of every text on the way to it
MAX_ITEMS = 10_000  # of a list or a range
MAX_WORK = 2_000_000  # characters and items handled by one rendering: under a second
MAX_BITS = 1024  # of a whole number


class Names(dict[str, Any]):
    """One namespace of a template (`row`, `vars`, `matrix`, `file`): its keys are data, it has no attributes."""

    __slots__ = ("label",)

    def __init__(self, label: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.label = label

    def unknown(self, key: str) -> str:
        """Say that `key` is not here, with the nearest name that is."""
        return f"{self.label} has no {key!r}; {_nearest(key, tuple(self))}"


@lru_cache(maxsize=64)  # a column that is misspelt is missing from every row of a table
def _nearest(key: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known[:8]) or 'none'}"


def text_of(value: Any) -> Any:
    """Return what a value looks like in a text: null is empty, `true` is lower case, lists and mappings are JSON.

    SecurityError for what is no data.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return json_of(value)
    if isinstance(value, range | KeysView | ValuesView | ItemsView):
        return json_of([*value])
    check_is_data(value)
    return value


def check_is_data(value: Any) -> None:
    """Pass data; SecurityError for functions and for Jinja's own objects.

    As a text they show their address in memory: another one in every run, and every run would buy the image anew.
    """
    if isinstance(value, LoopContext | Namespace):
        name = "loop" if isinstance(value, LoopContext) else "namespace"
        raise SecurityError(f"{name!r} is not a text; write one of its names: {{{{ {name}.x }}}}")
    if callable(value) and not isinstance(value, Undefined):
        name = getattr(value, "__name__", "this").removeprefix("_")
        raise SecurityError(f"{name!r} is a function, not a text; write {name}(), or use a filter: {{{{ x|upper }}}}")


def json_of(value: Any) -> str:
    """Return a value as JSON. SecurityError for what is no data."""
    return json.dumps(value, ensure_ascii=False, default=lambda part: str(text_of(part)))


class Budget:
    """What one rendering may still handle; `reset` before each."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_WORK

    def reset(self) -> None:
        self.left = MAX_WORK

    def spend(self, amount: int) -> None:
        """Pay for `amount` characters or items. SecurityError when the rendering has had its share."""
        self.left -= amount
        if self.left < 0:
            raise SecurityError("the template does too much work; prepare the text in a CSV or JSONL file")

    def text(self, length: int) -> None:
        """Pay for a text of `length` characters. SecurityError when it is longer than any prompt."""
        if length > MAX_TEXT:
            raise SecurityError(f"makes a text of more than {MAX_TEXT:,} characters; make it shorter")
        self.spend(length)

    def items(self, count: int) -> None:
        """Pay for a list of `count` items."""
        if count > MAX_ITEMS:
            raise SecurityError(f"makes a list of more than {MAX_ITEMS:,} items; use `matrix` or `each`")
        self.spend(count)

    def of(self, value: Any) -> Any:
        """Pay for a value that was made, and return it; what is made item by item comes back as a list."""
        if isinstance(value, Iterator):
            value = [*islice(value, MAX_ITEMS + 1)]
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, list | tuple | dict):
            self.items(len(value))
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise SecurityError("makes a number of more than 300 digits; make it smaller")
        return value
