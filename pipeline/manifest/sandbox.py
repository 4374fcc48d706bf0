"""Jinja2's sandbox with a render budget: expressions of an untrusted manifest cannot escape, and stay small and quick.

Jinja's own sandbox prevents escapes. Here every operator, filter and call is charged to one budget before it allocates;
SecurityError when it is used up. Also the namespaces of a template (`row`, `file`, ...) and how a value is written as
text.
"""

import functools
import json
import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any

from jinja2 import StrictUndefined, Undefined
from jinja2 import filters as builtin
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from pipeline.manifest.fields import MatrixValue
from pipeline.text import did_you_mean, is_plain, plain_names

MAX_TEXT = 100_000  # characters of one rendered text, and of every text on the way to it
MAX_ITEMS = 10_000  # of a list or a range
MAX_WORK = 1_000_000  # characters and items handled by one rendering: under a second
MAX_TOGETHER = 20_000_000  # by all renderings of one expansion, half a minute; beyond it each may handle WORK_EACH
WORK_EACH = 10_000
MAX_PARTS = 1_000_000  # names, texts and operators of all templates of a manifest: two minutes of compiling
MAX_BITS = 1024  # of a whole number
_CONTAINER = 4  # what a look into a list or a mapping costs, in characters
_SIZED = (str, list, tuple, dict, range, KeysView, ValuesView, ItemsView)


class Names(dict[str, Any]):
    """One namespace of a template (`row`, `vars`, `matrix`, `file`): its keys are data, it has no attributes."""

    __slots__ = ("label", "lacking")

    def __init__(self, label: str, values: Mapping[str, Any], lacking: Mapping[str, str] | None = None) -> None:
        """`lacking`: names that have no value, and what they show instead, such as `#N/A`."""
        super().__init__(values)
        self.label = label
        self.lacking = lacking or {}

    def unknown(self, key: str) -> str:
        """Say that `key` is not here, with the nearest name that is."""
        if key in self.lacking:
            return (
                f"{self.label}.{key} is {self.lacking[key]}; calculate or correct it in the spreadsheet, and save that"
            )
        return f"{self.label} has no {key!r}; {_nearest(key, tuple(self))}"


@lru_cache(maxsize=64)  # a column that is misspelt is missing from every row of a table
def _nearest(key: str, known: tuple[str, ...]) -> str:
    return did_you_mean(key, filter(is_plain, known), f"it has: {plain_names(known)}")


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

    As a text they show their address in memory: another one in every run, and every run would buy the image again.
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


class RenderBudget:
    """What one rendering may still handle, all renderings of one expansion together, and all templates of a manifest.

    `begin` before an expansion, `reset` before each rendering.
    """

    __slots__ = ("_given", "_parts_left", "_together", "left")

    def __init__(self) -> None:
        self._parts_left = MAX_PARTS
        self.begin()

    def take_parts(self, count: int) -> bool:
        """Pay for a template of `count` parts; False: the manifest's templates have more than they may."""
        self._parts_left -= count
        return self._parts_left >= 0

    def begin(self) -> None:
        """Give the expansion that follows a whole budget."""
        self._together = MAX_TOGETHER
        self.left = self._given = MAX_WORK

    def reset(self) -> None:
        self._together += WORK_EACH - (self._given - self.left)
        self.left = self._given = max(min(MAX_WORK, self._together), WORK_EACH)

    def spend(self, amount: int) -> None:
        """Pay for `amount` characters or items. SecurityError when the rendering has had its share."""
        self.left -= amount
        if self.left < 0:
            who = "the template does" if self._given == MAX_WORK else "the templates of all tasks together do"
            raise SecurityError(f"{who} too much work; prepare the text in a CSV or JSONL file")

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


MAX_WIDTH = 1000  # of a format field
_FORMAT_FIELD = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_STR_METHODS = frozenset((
    "capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust", "lower",
    "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition",
    "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill",
))  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: _STR_METHODS,
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("get", "items", "keys", "values")),
    float: frozenset(("is_integer",)),
    LoopContext: frozenset(("cycle", "changed")),
}
# `random` and `lipsum` are absent on purpose: a prompt that changes by itself would be bought again on every run.
_FILTERS = frozenset((
    "abs", "capitalize", "center", "d", "default", "dictsort", "first", "float", "format", "groupby", "int",
    "items", "join", "last", "length", "count", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "replace", "reverse", "round", "select", "selectattr", "sort", "string", "sum", "title", "trim", "truncate",
    "unique", "upper", "wordcount",
))  # fmt: skip
FENCES = ("steps", "joined", "held")  # filters that only `template` puts in
OPERATORS = frozenset(("+", "-", "*", "/", "//", "%", "**"))


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of every template that is more than names and text."""

    intercepted_binops = OPERATORS

    def __init__(self) -> None:
        self.budget = RenderBudget()
        super().__init__(
            undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=self._printed
        )
        self.globals = {"range": self._range, "dict": dict, "namespace": Namespace}
        self.filters = {name: self._paid(builtin.FILTERS[name]) for name in _FILTERS}
        self.filters |= {"replace": self._replace, "join": self._join, "center": self._center, "format": self._format}
        self.filters |= {"round": self._round, "sum": self._sum, "tojson": self._paid(json_of)}
        self.filters |= {"string": self._paid(lambda value: str(text_of(value)))}
        self.filters |= {"steps": self._steps, "joined": self._joined, "held": self.budget.weigh}  # FENCES
        tests: dict[str, Any] = self.tests
        self.tests = {name: self._paid(test, is_test=True) for name, test in tests.items()}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look into data first, so that a column may be called `items`."""
        self.budget.spend(1)
        if isinstance(obj, Names):
            return obj[attribute] if attribute in obj else self.undefined(obj.unknown(attribute))
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, MatrixValue) and attribute == "key":
            return obj.key
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.budget.weigh(argument)
        if isinstance(obj, Names):
            return obj[argument] if argument in obj else self.undefined(obj.unknown(str(argument)))
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - Jinja's own form
        """Call what is on the list of harmless things, and pay for the result."""
        if __obj in (__self.globals["range"], dict, Namespace):
            return __self.budget.of(super().call(__context, __obj, *args, **kwargs))
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        kind = next((kind for kind in _METHODS if isinstance(owner, kind)), None)
        if kind is None or name not in _METHODS[kind]:
            raise SecurityError(f"{name or 'this'}() is not available in templates; use a filter: {{{{ x|upper }}}}")
        if isinstance(owner, str):
            __self._check_growth(owner, name, args)
        return __self.budget.of(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Work out `left operator right` when the result is sure to be small."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.budget.text(len(left) + len(right))
        elif operator == "+" and isinstance(left, list | tuple) and isinstance(right, list | tuple):
            self.budget.items(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            self._check_format(left)
            self.budget.weigh(right)
            right = tuple(map(_printable, right)) if isinstance(right, tuple) else _printable(right)
        else:
            self._check_numbers(operator, left, right)
        return self.budget.of(super().call_binop(context, operator, left, right))

    def _check_numbers(self, operator: str, left: Any, right: Any) -> None:
        self.budget.spend(1)
        if not all(isinstance(value, int | float | Decimal) for value in (left, right)):
            if operator == "*" and any(isinstance(value, str | list | tuple) for value in (left, right)):
                raise SecurityError("repeating text or lists with * is refused; write the text out")
            return
        if operator == "**" and not (abs(right) <= 64 and abs(left) <= 2**16):
            raise SecurityError("a power this large is refused; use a smaller number")

    def _check_growth(self, text: str, name: str, args: tuple[Any, ...]) -> None:
        if name in ("ljust", "rjust", "center", "zfill") and args and isinstance(args[0], int):
            self.budget.text(args[0])
        elif name == "replace" and len(args) >= 2:
            self._check_replace(text, str(args[0]), str(args[1]))
        elif name == "join" and args:
            parts = args[0] if isinstance(args[0], str | list | tuple | dict) else ()
            if parts == () and args[0] != ():
                raise SecurityError("join() needs a list; use the filter: {{ x|join(', ') }}")
            self.budget.text(sum(len(str(part)) + len(text) for part in parts))

    def _check_replace(self, text: str, old: str, new: str) -> None:
        self.budget.text(len(text) + (text.count(old) if old else len(text) + 1) * len(new))

    def _check_format(self, pattern: str) -> None:
        for field in _FORMAT_FIELD.finditer(pattern):
            for width in field.groups(default="0"):
                if width == "*" or len(width) > 4 or int(width) > MAX_WIDTH:
                    raise SecurityError(f"a format wider than {MAX_WIDTH:,} characters is refused; use a smaller width")

    def _paid(self, function: Callable[..., Any], *, is_test: bool = False) -> Callable[..., Any]:
        """Wrap a filter or test of the library: all it is given, and what it makes, is paid for.

        Sorting goes through its input once for each halving of it.
        """
        position = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def paid(*args: Any, **kwargs: Any) -> Any:
            for value in (*args[position:], *kwargs.values()):
                if not is_test:  # `x is callable` may ask about anything
                    check_is_data(value)
                size = len(value) if isinstance(value, list | tuple | dict | range) else 0
                self.budget.spend(size)
                self.budget.weigh(value, 1 + (0 if is_test else size.bit_length()))
            return self.budget.of(function(*args, **kwargs))

        return paid

    def _printed(self, value: Any) -> Any:
        """Pay for what `{{ }}` prints, also into a `{% set %}` block, and return it as it looks in a text."""
        self.budget.weigh(value)
        return text_of(value)

    def _sum(self, values: Any, attribute: str | int | None = None, start: int | float = 0) -> Any:
        """Add numbers up: lists would be copied once for every one of them."""
        if not isinstance(start, int | float):
            raise SecurityError("sum adds numbers only; write a loop")
        items = values if isinstance(values, list | tuple | range) else self.budget.of(iter(values))
        self.budget.spend(len(items))
        numbers = [item if attribute is None else self.getitem(item, attribute) for item in items]
        return self.budget.of(sum(numbers, start))

    def _range(self, *args: int) -> range:
        numbers = range(*args)
        if len(numbers) > MAX_ITEMS:
            raise SecurityError(f"a range of more than {MAX_ITEMS:,} numbers is refused; use `matrix` or `each`")
        self.budget.spend(len(numbers))
        return numbers

    def _steps(self, items: Iterable[Any], cost: int) -> Iterator[Any]:
        """Pass a loop's items through, each paid for: `template` puts this around the iterable of every `for`.

        cost: of one turn, by the size of the loop's body.
        """
        for item in items:
            self.budget.spend(cost)
            yield item

    def _joined(self, parts: Iterable[Any]) -> str:
        """Do what `~` does, paid for."""
        texts = [str(self._printed(part)) for part in parts]
        self.budget.text(sum(map(len, texts)))
        return "".join(texts)

    def _join(self, items: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        values = list(items)
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        return self._joined(part for value in values for part in (d, value)).removeprefix(d) if values else ""

    def _replace(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(text_of(text))
        self._check_replace(text, old, new)
        return str(text.replace(old, new, -1 if count is None else count))

    def _center(self, text: Any, width: int = 80) -> str:
        self.budget.text(width)
        return str(text_of(text)).center(width)

    def _format(self, pattern: Any, *args: Any, **kwargs: Any) -> str:
        self._check_format(str(pattern))
        self.budget.weigh([args, kwargs])
        named = {name: _printable(value) for name, value in kwargs.items()}
        return str(self.budget.of(str(pattern) % (named or tuple(map(_printable, args)))))

    def _round(self, value: Any, precision: int = 0, method: Any = "common") -> float:
        if not -15 <= precision <= 15:
            raise SecurityError("round takes a precision from -15 to 15")
        return builtin.do_round(value, precision, method)


def _printable(value: Any) -> Any:
    """Return a value as `%` may print it: numbers as they are, a mapping for its names, the rest as text."""
    if isinstance(value, dict):
        return {name: _printable(part) for name, part in value.items()}
    return value if isinstance(value, int | float | Decimal) else text_of(value)
