"""Jinja2 with walls: the sandbox of the library keeps a template from escaping, this module keeps it small and quick.

In: expressions of a manifest that may come from a stranger. Out: an `Environment` in which every operator, filter and
call is paid for from one `Budget` before it allocates. It knows nothing of tasks; `template` decides when it is used.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from jinja2 import StrictUndefined
from jinja2 import filters as builtin
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from pipeline.manifest.budget import MAX_ITEMS, Budget, Names, check_is_data, json_of, text_of
from pipeline.manifest.kinds import MatrixValue

MAX_WIDTH = 1000  # of a format field
_FORMAT_FIELD = re.compile(r"%(?:\([^)]*\))?[-#0 +]*(\*|\d+)?(?:\.(\*|\d+))?")
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        [
            "capitalize",
            "casefold",
            "center",
            "count",
            "endswith",
            "find",
            "index",
            "isalnum",
            "isalpha",
            "isascii",
            "isdecimal",
            "isdigit",
            "islower",
            "isnumeric",
            "isspace",
            "istitle",
            "isupper",
            "join",
            "ljust",
            "lower",
            "lstrip",
            "partition",
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rjust",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
            "startswith",
            "strip",
            "swapcase",
            "title",
            "upper",
            "zfill",
        ]
    ),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("get", "items", "keys", "values")),
    float: frozenset(("is_integer",)),
    LoopContext: frozenset(("cycle", "changed")),
}
# `random` and `lipsum` are absent on purpose: a prompt that changes by itself would be bought again on every run.
_FILTERS = frozenset(
    [
        "abs",
        "capitalize",
        "center",
        "d",
        "default",
        "dictsort",
        "first",
        "float",
        "format",
        "groupby",
        "int",
        "items",
        "join",
        "last",
        "length",
        "count",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "select",
        "selectattr",
        "sort",
        "string",
        "sum",
        "title",
        "trim",
        "truncate",
        "unique",
        "upper",
        "wordcount",
    ]
)
FENCES = ("steps", "joined", "held")  # filters that only `template` puts in
OPERATORS = frozenset(("+", "-", "*", "/", "//", "%", "**"))


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of every template that is more than names and text."""

    intercepted_binops = OPERATORS

    def __init__(self) -> None:
        self.budget = Budget()
        super().__init__(
            undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=self._printed
        )
        self.globals = {"range": self._range, "dict": dict, "namespace": Namespace}
        self.filters = {name: self._paid(builtin.FILTERS[name]) for name in _FILTERS}
        self.filters |= {"replace": self._replace, "join": self._join, "center": self._center, "format": self._format}
        self.filters |= {"round": self._round, "tojson": self._tojson, "string": self._string}
        self.filters |= {"sum": self._sum}
        self.filters |= {name: getattr(self, f"_{name}") for name in FENCES}
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

    def _held(self, value: Any) -> Any:
        """Pay for what a literal or a slice holds, and for what is compared."""
        return self.budget.weigh(value)

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

    def _string(self, value: Any) -> str:
        text = str(self._printed(value))
        self.budget.text(len(text))
        return text

    def _tojson(self, value: Any) -> str:
        self.budget.weigh(value)
        text = json_of(value)
        self.budget.text(len(text))
        return text


def _printable(value: Any) -> Any:
    """Return a value as `%` may print it: numbers as they are, a mapping for its names, the rest as text."""
    if isinstance(value, dict):
        return {name: _printable(part) for name, part in value.items()}
    return value if isinstance(value, int | float | Decimal) else text_of(value)
