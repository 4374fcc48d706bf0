"""Parses YAML text to a tree of dict, list and text, and collects what is wrong with it, each at its line and column.

Every scalar stays the text that was written: `PlainText` where it stood without quotes (`resolve` gives its value by
YAML 1.2's core schema, https://yaml.org/spec/1.2.2/#103-core-schema), `str` where it was quoted. One pass over the
parser's events, without recursion, so that deep nesting, alias bombs and merge bombs are found before they cost
anything.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.errors import InputError, Problem

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
    if isinstance(value, PlainText):
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
    return value is None or (isinstance(value, PlainText) and _WORDS.get(value, 0) is None)


MAX_DEPTH = 64
MAX_ALIASES = 10_000  # expansions: an alias to a subtree counts the aliases inside it again
MAX_ALIASED_NODES = 1_000_000
MAX_MERGED_PAIRS = 10_000
MAX_PROBLEMS = 100

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the pure one where PyYAML was built without libyaml
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")
_SHAPE_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_QUOTE_ADVICE = "put the value in quotes"
_TOO_DEEP = (f"nested more than {MAX_DEPTH} levels deep", "reduce the nesting")
# Behind text: a comment without a space, such as #1 of `A mug #1 in red`.
_SWALLOWED = re.compile(r"[ \t]+(#[^\s#]\S*)")
_WITH_PROMPTS = ("jobs", "defaults", "vars", "x-")
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}\b")
_BRACES_ADVICE = 'a value that starts with {{ needs quotes: "{{ ... }}"'


class PlainText(str):
    """An unquoted scalar, its text exactly as written."""

    __slots__ = ()


Tree = PlainText | str | list["Tree"] | dict[str, "Tree"]


class _Stop(Exception):  # noqa: N818 - the rest of the text cannot be read
    pass


@dataclass(slots=True)
class _Frame:
    """One open collection."""

    value: "dict[str, Tree] | list[Tree]"
    anchor: str | None
    key: str | None = None
    key_lines: dict[str, int] = field(default_factory=dict)
    merges: "list[dict[str, Tree]]" = field(default_factory=list)
    wants_key: bool = True
    is_merge: bool = False
    aliases: int = 0
    nodes: int = 1


def _place(event: Any) -> tuple[int, int]:
    """Return line and column of an event, counted from 1."""
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Builder:
    """Consumes events one by one; `root` is the document's value once `finished`."""

    def __init__(self, text: str, file: str) -> None:
        self.problems: list[Problem] = []
        self.root: Tree | None = None
        self._text = text
        self._file = file
        self._frames: list[_Frame] = []
        # Value, aliases and nodes of each; None: still open, so an alias to it would never end.
        self._anchors: dict[str, tuple[Tree, int, int] | None] = {}
        self._documents = 0
        self._aliases = 0
        self._aliased_nodes = 0
        self._merged = 0

    def feed(self, event: yaml.Event) -> None:
        """Take the next event."""
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop(event, "a second document starts here", "keep one document a file, remove the ---")
            case _:
                pass

    def _report(self, event: yaml.Event, what: str, instead: str) -> None:
        line, column = _place(event)
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Stop
        self.problems.append(Problem(file=self._file, line=line, column=column, what=what, instead=instead))

    def _stop(self, event: yaml.Event, what: str, instead: str) -> None:
        self._report(event, what, instead)
        raise _Stop

    def _check_tag(self, event: Any, allowed: tuple[str, ...]) -> None:
        if event.tag is not None and event.tag not in allowed:
            shown = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._report(
                event, f"the tag {shown[:60]} is refused", "remove it: a manifest holds text, lists and mappings"
            )

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._check_tag(event, _TEXT_TAGS)
        is_plain = event.implicit[0] and event.tag is None
        value: Tree = PlainText(event.value) if is_plain else str(event.value)
        if is_plain:
            self._check_comment(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, 0, 1
        self._put(event, value, aliases=0, nodes=1)

    def _check_comment(self, event: Any) -> None:
        """Report words that YAML takes for a comment: they would be missing from a prompt that is paid for."""
        section = self._frames[0].key if self._frames else None
        if section is None or not section.startswith(_WITH_PROMPTS):
            return
        swallowed = _SWALLOWED.match(self._text, event.end_mark.index)
        if swallowed is not None and (" " in event.value or _COLOUR.match(swallowed[1])):
            what = f"the text ends before {swallowed[1][:60]!r}: YAML takes it for a comment"
            self._report(event, what, f"{_QUOTE_ADVICE}, or write a space behind the # of a comment")

    def _open(self, event: Any) -> None:
        self._check_tag(event, _SHAPE_TAGS)
        if len(self._frames) >= MAX_DEPTH:
            self._stop(event, *_TOO_DEEP)
        parent = self._frames[-1] if self._frames else None
        if parent is not None and isinstance(parent.value, dict) and parent.wants_key:
            is_braces = isinstance(event, yaml.MappingStartEvent) and bool(event.flow_style)
            advice = _BRACES_ADVICE if is_braces else "write a plain word before the colon"
            self._stop(event, "a key must be text, this is a list or a mapping", advice)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._frames.append(_Frame({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))

    def _close(self, event: yaml.Event) -> None:
        frame = self._frames.pop()
        if frame.merges and isinstance(frame.value, dict):
            frame.value = self._merge(event, frame)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = frame.value, frame.aliases, frame.nodes
        self._put(event, frame.value, aliases=frame.aliases, nodes=frame.nodes)

    def _merge(self, event: yaml.Event, frame: _Frame) -> "dict[str, Tree]":
        assert isinstance(frame.value, dict)
        self._merged += sum(len(source) for source in frame.merges)
        if self._merged > MAX_MERGED_PAIRS:
            self._stop(event, f"merge keys (<<) copy more than {MAX_MERGED_PAIRS:,} entries", "use `defaults:` instead")
        merged: dict[str, Tree] = {}
        for source in frame.merges:
            for key, value in source.items():
                merged.setdefault(key, value)
        return merged | frame.value

    def _alias(self, event: yaml.AliasEvent) -> None:
        target = self._anchors.get(event.anchor or "")
        if target is None:
            what = f"nothing above is named &{event.anchor}"
            if event.anchor in self._anchors:
                what = f"*{event.anchor} stands inside &{event.anchor} itself"
            self._report(event, what, f"{_QUOTE_ADVICE} if the * is text")
            target = "", 0, 1
        value, aliases, nodes = target
        self._aliases += 1 + aliases
        self._aliased_nodes += nodes
        if self._aliases > MAX_ALIASES or self._aliased_nodes > MAX_ALIASED_NODES:
            self._stop(
                event, f"aliases expand more than {MAX_ALIASES:,} times", "write the values out, or use a CSV file"
            )
        self._put(event, value, aliases=1 + aliases, nodes=nodes)

    def _put(self, event: yaml.Event, value: Tree, *, aliases: int, nodes: int) -> None:
        """Hang a finished value into the collection that is open around it."""
        if not self._frames:
            self.root = value
            return
        frame = self._frames[-1]
        frame.aliases += aliases
        frame.nodes += nodes
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.wants_key:
            self._key(event, frame, value)
        else:
            frame.wants_key = True
            if frame.is_merge:
                self._merge_source(event, frame, value)
            elif frame.key is not None:
                frame.value[frame.key] = value

    def _key(self, event: yaml.Event, frame: _Frame, value: Tree) -> None:
        frame.wants_key = False
        line, _ = _place(event)
        frame.is_merge = value == "<<" and isinstance(value, PlainText)
        if not isinstance(value, str):
            self._stop(event, "a key must be text, this is a list or a mapping", "write a plain word before the colon")
            return
        frame.key = str(value)
        if isinstance(value, PlainText) and value and not (value[0].isascii() or value[0].isprintable()):
            self._stop(event, *_indentation(value[0]))
        if value == "":
            self._report(event, "an empty key", "write a name before the colon")
            frame.key = None
        elif frame.key in frame.key_lines:
            first = frame.key_lines[frame.key]
            self._report(event, f"duplicate key {frame.key!r} (first on line {first})", "keep one of the two lines")
            frame.key = None  # the first one is kept, so that its own problems are reported too
        else:
            frame.key_lines[frame.key] = line

    def _merge_source(self, event: yaml.Event, frame: _Frame, value: Tree) -> None:
        for source in value if isinstance(value, list) else [value]:
            if isinstance(source, dict):
                frame.merges.append(source)
            else:
                self._report(event, "<< merges mappings only", "point it at a mapping: <<: *name")


_PAIR = re.compile(r"\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)


def as_yaml(text: str) -> str:
    """Return text that libyaml reads: programs write 😀 as two escapes in JSON, which it refuses (yaml/libyaml#110)."""
    if not text.lstrip().startswith("{"):
        return text
    return _PAIR.sub(lambda pair: f"\\U{ord(bytes.fromhex(pair[1] + pair[2]).decode('utf-16-be')):08X}", text)


def parse(text: str, *, file: str) -> "tuple[dict[str, Tree], list[Problem]]":
    """Return the document's top mapping, and every structural problem with it.

    Raises InputError when there is no mapping to go on with: a syntax error, a bomb, an empty file, a list.
    """
    builder = _Builder(text, file)
    try:
        for event in yaml.parse(text, Loader=Loader):  # it keeps no more than one line of look-ahead
            builder.feed(event)
    except _Stop:
        raise InputError(*builder.problems) from None
    except yaml.YAMLError as error:
        raise InputError(*builder.problems, _syntax_problem(error, text, file)) from None
    if isinstance(builder.root, dict):
        return builder.root, builder.problems
    raise InputError(*builder.problems, _not_a_mapping(builder.root, file))


def _not_a_mapping(root: Tree | None, file: str) -> Problem:
    if is_null(root):
        what, instead = "the file is empty", "start with `imgpipe init`"
    else:
        what = f"a manifest is a mapping, this is {'a list' if isinstance(root, list) else 'text'}"
        instead = "start with `jobs:`"
    return Problem(file=file, line=1, column=1, what=what, instead=instead)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return Problem(file=file, what=f"is not YAML: {error}")
    lines = text.split("\n")
    line = lines[mark.line] if mark.line < len(lines) else ""
    began = getattr(error, "context_mark", None) or mark
    for number in dict.fromkeys((mark.line, began.line)):  # a bad line may show only on the next one
        bad = _bad_indentation(lines[number]) if number < len(lines) else None
        if bad is not None:
            what, instead = _indentation(lines[number][bad])
            return Problem(file=file, line=number + 1, column=bad + 1, what=what, instead=instead)
    what = str(getattr(error, "problem", "") or "is not YAML")
    if "nesting depth" in what:  # libyaml's own bound, since 0.2.6: it looks ahead of the events we count
        what, instead = _TOO_DEEP
    else:
        what, instead = f"not YAML: {what}", _syntax_advice(what, line)
    return Problem(file=file, line=mark.line + 1, column=mark.column + 1, what=what, instead=instead)


def _bad_indentation(line: str) -> int | None:
    """Return where a line is indented by something else than spaces."""
    indentation = line[: len(line) - len(line.lstrip())].rstrip("\r\n")
    return next((index for index, character in enumerate(indentation) if character != " "), None)


def _indentation(character: str) -> tuple[str, str]:
    name = {"\t": "a tab", "\u00a0": "a no-break space (U+00A0)"}.get(character, f"U+{ord(character):04X}")
    return f"{name} is used for indentation", "use spaces"


def _syntax_advice(what: str, line: str) -> str:
    value = line.partition(": ")[2].lstrip()
    if value.startswith("{{"):
        return _BRACES_ADVICE
    if "mapping values" in what:
        return "text with a colon and a space in it needs quotes; or check the indentation"
    if "cannot start any token" in what:
        return "a value that starts with @ ` % or a tab needs quotes"
    if "quoted scalar" in what or "end of stream" in what:
        return "a quote or bracket is opened and never closed"
    if "escape" in what:
        return r"inside double quotes write \\ for a backslash, or use single quotes"
    if "',' or" in what:
        return "a bracket or brace is opened and never closed; text with , [ ] { } inside it needs quotes"
    return "check the indentation and the quotes of this line and the one above"
