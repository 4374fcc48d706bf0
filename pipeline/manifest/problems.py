"""Collects what is wrong with a manifest, each at its line and column.

Places are found by composing the text again, and only when there is an error: marks of 100,000 values cost more than
the values.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import yaml

from pipeline.errors import Problem
from pipeline.manifest.yaml import Loader

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a template was written: a path of keys in the manifest, or the file a `prompt_file` names."""

    path: KeyPath
    file: str | None = None
    source: str = ""  # of that file


class BadValue(ValueError):  # noqa: N818 - no error of the program; a ValueError, as pydantic's validators raise it
    """What is wrong with a value, template or file, and what to write instead; a Problem where its place is known.

    `line` counts from 1 inside a template or a table; `needle` is the word of a template that fails.
    """

    def __init__(self, what: str, instead: str = "", line: int | None = None, *, needle: str | None = None) -> None:
        super().__init__(what)
        self.what, self.instead, self.line, self.needle = what, instead, line, needle
        self.origin: Origin | None = None  # the template's, once it is known
        self.within: KeyPath = ()  # from the value that was read to the part of it that is wrong
        self.is_key = False  # that part is a key
        self.is_input = False  # an input image that cannot be used, which `skip_broken` may leave out
        self.others: tuple[BadValue, ...] = ()  # what is wrong beside it, in the same row


class Problems:
    """What is wrong with one manifest; `found` is what was added so far."""

    def __init__(self, text: str, file: str, found: list[Problem] | None = None) -> None:
        self.found = found or []
        self._file = file
        self._text = text

    @cached_property
    def _root(self) -> yaml.Node | None:
        try:
            node: yaml.Node | None = yaml.compose(self._text, Loader=Loader)
        except yaml.YAMLError:
            return None
        return node

    def add(self, path: KeyPath, what: str, instead: str = "", *, is_key: bool = False) -> None:
        """Collect what is wrong at `path`."""
        self.found.append(self.at(path, what, instead, is_key=is_key))

    def add_bad(self, bad: BadValue) -> None:
        """Collect what is wrong with a template."""
        self.found.append(self.of_template(bad))

    def at(self, path: KeyPath, what: str, instead: str = "", *, is_key: bool = False) -> Problem:
        """Return a Problem at the value of `path`, or at its key. Parts that are not in the file are skipped."""
        key, value = self._find(path)
        node = key if is_key and key is not None else value
        line, column = (1, 1) if node is None else (node.start_mark.line + 1, node.start_mark.column + 1)
        return Problem(file=self._file, line=line, column=column, what=what, instead=instead)

    def of_template(self, bad: BadValue, *, of: str = "") -> Problem:
        """Return a Problem at the very word a template fails at, as near as the text tells. `of` names the row."""
        what, origin, inner = f"{of}: {bad.what}" if of else bad.what, bad.origin, bad.line or 1
        if origin is not None and origin.file is not None:
            line = origin.source.split("\n")[inner - 1 : inner]
            column = line[0].find(bad.needle) + 1 if line and bad.needle else 0
            return Problem(file=origin.file, line=inner, column=column or 1, what=what, instead=bad.instead)
        _, node = self._find(origin.path if origin is not None else ())
        place = (1, 1) if node is None else self._inside(node, inner, bad.needle)
        return Problem(file=self._file, line=place[0], column=place[1], what=what, instead=bad.instead)

    def _inside(self, node: yaml.Node, inner: int, needle: str | None) -> tuple[int, int]:
        """Return line and column of `needle`, or of line `inner`, in a text that is written at `node`."""
        start, end = node.start_mark, node.end_mark
        raw = self._text[start.index : end.index]
        opened = re.search(r"\{[{%]", raw)
        found = None
        if needle and opened is not None:
            found = re.compile(rf"(?<!\w)({re.escape(needle)})(?!\w)").search(raw, opened.end())
        if found is None:
            is_block = getattr(node, "style", None) in ("|", ">")
            return (start.line + 1 + inner, 1) if is_block else (start.line + 1, start.column + 1)
        before = raw[: found.start(1)]
        lines = before.count("\n")
        column = found.start(1) - before.rfind("\n") if lines else start.column + found.start(1) + 1
        return start.line + 1 + lines, column

    def _find(self, path: KeyPath) -> tuple[yaml.Node | None, yaml.Node | None]:
        key: yaml.Node | None = None
        node = self._root
        for part in path:
            found = _child(node, part)
            if found is not None:
                key, node = found
        return key, node


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    if not isinstance(node, yaml.MappingNode):
        return None
    merged: list[yaml.Node] = []
    for key, value in node.value:
        if key.value == str(part):
            return key, value
        if key.value == "<<":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
    inner = (_child(source, part) for source in merged if source is not node)
    return next((found for found in inner if found is not None), None)
