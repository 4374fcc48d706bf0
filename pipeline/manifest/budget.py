"""What a template handles and what it may cost: namespaces, the look of a value in a text, and one rendering's budget.

In: values. Out: the same values, paid for, or SecurityError. It knows nothing of Jinja's grammar.
"""

import json
import re
from collections.abc import Collection, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
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
MAX_WORK = 1_000_000  # characters and items handled by one rendering: under a second
MAX_BITS = 1024  # of a whole number
_LONGEST_NAME = 100  # characters of a name that another one is looked for
_MOST_NAMES = 1000
_SHOWN = 8
_PLAIN = re.compile(r"(?!(?:\D*\d){5})[^\W\d_](?:[\w .()/&%€'+-]{0,30}[\w.)%€])?")  # at most 32 characters, 4 digits


_CONTAINER = 4  # what a look into a list or a mapping costs, in characters
_SIZED = (str, list, tuple, dict, range, KeysView, ValuesView, ItemsView)


class Names(dict[str, Any]):
    """One namespace of a template (`row`, `vars`, `matrix`, `file`): its keys are data, it has no attributes."""

    __slots__ = ("label",)

    def __init__(self, label: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.label = label

    def unknown(self, key: str) -> str:
        """Say that `key` is not here, with the nearest name that is."""
        return f"{self.label} has no {key!r}; {_nearest(key, tuple(self))}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant; None when there is none.

    Long texts and long lists are left alone: the search takes the product of both lengths.
    """
    if len(name) > _LONGEST_NAME:
        return None
    candidates = [each for each in islice(known, _MOST_NAMES) if len(each) <= _LONGEST_NAME]
    return next(iter(get_close_matches(name, candidates, n=1, cutoff=0.6)), None)


def is_plain(text: str) -> bool:
    """True for a word or two, as columns and choices are named: a message may show it. A password or key is not.

    Tables may be any file that a manifest of a stranger names.
    """
    return _PLAIN.fullmatch(text) is not None


def plain_names(names: Collection[str]) -> str:
    """List names for a message; those that are no plain words are counted only."""
    shown = [name for name in islice(names, _SHOWN) if is_plain(name)]
    hidden = len(names) - len(shown)
    return ", ".join(shown + [f"{hidden:,} more"] * bool(shown and hidden)) or (f"{hidden:,}" if hidden else "none")


@lru_cache(maxsize=64)  # a column that is misspelt is missing from every row of a table
def _nearest(key: str, known: tuple[str, ...]) -> str:
    near = nearest(key, filter(is_plain, known))
    return f"did you mean {near!r}?" if near is not None else f"it has: {plain_names(known)}"


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
            self.weigh(value)
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise SecurityError("makes a number of more than 300 digits; make it smaller")
        return value

    def weigh(self, value: Any, times: int = 1) -> Any:
        """Pay `times` for all that a value holds, however deep, as if nothing in it were shared, and return it.

        `[x, x, x, x]` takes four pointers, but a text, a comparison or a sort of it goes through all four.
        """
        pending = [value]
        while pending:
            part = pending.pop()
            cost = 1 if not isinstance(part, _SIZED) else len(part) + (1 if isinstance(part, str) else _CONTAINER)
            self.spend(times * cost)
            if isinstance(part, dict):
                pending += [inner for pair in part.items() for inner in pair if isinstance(inner, _SIZED)]
            elif isinstance(part, _SIZED) and not isinstance(part, str | range):
                pending += [inner for inner in part if isinstance(inner, _SIZED)]
        return value
