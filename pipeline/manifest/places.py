"""A path of keys comes in, its line and column in the manifest goes out. Composes the YAML again, and only when asked.

Nothing is composed while all is well: marks of 100,000 values cost more than the values. It judges nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import yaml

from pipeline.errors import Problem
from pipeline.manifest.document import Loader
from pipeline.manifest.template import TemplateTrouble

Path = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a template was written: a path of keys in the manifest, or the file a `prompt_file` names."""

    path: tuple[str | int, ...]
    file: str | None = None
    source: str = ""  # of that file


class Places:
    """Finds keys and values of one manifest again."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._text = text

    @cached_property
    def _root(self) -> yaml.Node | None:
        try:
            node: yaml.Node | None = yaml.compose(self._text, Loader=Loader)
        except yaml.YAMLError:
            return None
        return node

    def problem(self, path: Path, what: str, instead: str = "", *, is_key: bool = False) -> Problem:
        """Build a Problem at the value of `path`, or at its key. Parts that are not in the file are skipped."""
        key, value = self._find(path)
        mark = (key if is_key and key is not None else value).start_mark if value is not None else None
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return Problem(file=self.file, line=line, column=column, what=what, instead=instead)

    def trouble(self, origin: Origin, trouble: TemplateTrouble, *, of: str = "") -> Problem:
        """Build a Problem at the very word a template fails at, as near as the text tells. `of` names the row."""
        what = f"{of}: {trouble.what}" if of else trouble.what
        if origin.file is not None:
            line = origin.source.split("\n")[trouble.line - 1 : trouble.line]
            column = line[0].find(trouble.needle) + 1 if line and trouble.needle else 0
            return Problem(file=origin.file, line=trouble.line, column=column or 1, what=what, instead=trouble.instead)
        _, node = self._find(origin.path)
        if node is None:
            return Problem(file=self.file, line=1, column=1, what=what, instead=trouble.instead)
        line_number, column_number = self._inside(node, trouble)
        return Problem(file=self.file, line=line_number, column=column_number, what=what, instead=trouble.instead)

    def _inside(self, node: yaml.Node, trouble: TemplateTrouble) -> tuple[int, int]:
        start, end = node.start_mark, node.end_mark
        raw = self._text[start.index : end.index]
        opened = re.search(r"\{[{%]", raw)
        found = None
        if trouble.needle and opened is not None:
            found = re.compile(rf"(?<!\w)({re.escape(trouble.needle)})(?!\w)").search(raw, opened.end())
        if found is None:
            is_block = getattr(node, "style", None) in ("|", ">")
            return (start.line + 1 + trouble.line, 1) if is_block else (start.line + 1, start.column + 1)
        before = raw[: found.start(1)]
        lines = before.count("\n")
        column = found.start(1) - before.rfind("\n") if lines else start.column + found.start(1) + 1
        return start.line + 1 + lines, column

    def _find(self, path: Path) -> tuple[yaml.Node | None, yaml.Node | None]:
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
