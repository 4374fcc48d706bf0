"""Turns pydantic's errors into `Problem`s with line, column and advice, and prunes the tree of what was invalid.

The pruned tree lets the loader go on, so that a wrong number at the top does not hide a wrong template below. Positions
are found by composing the YAML again, and only when there is an error: marks of 100,000 values cost more than the
values.
"""

import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import Problem
from pipeline.manifest.fields import shown
from pipeline.manifest.schema import Each, Job, ManifestFile
from pipeline.manifest.settings import LimitsKeys, ProviderKeys, RetryKeys
from pipeline.manifest.templates import TemplateTrouble
from pipeline.manifest.yaml import Loader, Tree
from pipeline.text import nearest

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


_ELSEWHERE: Mapping[str, type[BaseModel]] = {
    "jobs.NAME": Job,
    "jobs.NAME.each": Each,
    "provider": ProviderKeys,
    "limits": LimitsKeys,
    "retry": RetryKeys,
    "the top level": ManifestFile,
}


def problems_of(details: Iterable[ErrorDetails], places: Places) -> list[Problem]:
    """Return one Problem for every mistake pydantic found."""
    return [_problem(detail, places) for detail in details]


def prune(tree: dict[str, Tree], error: ValidationError) -> None:
    """Take everything `error` names out of `tree`, so that the rest can be checked."""
    for detail in error.errors(include_url=False):
        path = [part for part in detail["loc"] if part != "[key]"]
        holder: Any = tree
        owner: dict[str, Any] | None = None
        last = ""
        for part in path:
            if isinstance(holder, dict) and part in holder:
                owner, last, holder = holder, str(part), holder[part]
            elif isinstance(holder, list) and isinstance(part, int) and part < len(holder):
                holder = holder[part]
        if owner is not None:
            owner.pop(last, None)


def _problem(detail: ErrorDetails, places: Places) -> Problem:
    path = detail["loc"]
    if path and path[-1] == "[key]":
        return places.problem(path[:-1], *_words(detail), is_key=True)
    match detail["type"]:
        case "extra_forbidden":
            return places.problem(path, f"unknown key {str(path[-1])!r}", _nearest(path), is_key=True)
        case "missing":
            return places.problem(path[:-1], f"{path[-1]!r} is missing", f"write `{path[-1]}:`", is_key=True)
        case _:
            what, instead = _words(detail)
            named = (
                f"{path[-1]} {what}"
                if path and isinstance(path[-1], str) and what.startswith(("must", "is ", "needs"))
                else what
            )
            return places.problem(path, named, instead)


def _words(detail: ErrorDetails) -> tuple[str, str]:
    if detail["type"] == "imgpipe":
        context = detail.get("ctx", {})
        return context["what"], context["instead"]
    is_list = detail["type"] in ("list_type", "tuple_type")
    if is_list or detail["type"] in ("dict_type", "model_type"):
        shape, example = ("a list", "write [a, b]") if is_list else ("a mapping", "write `key: value` lines below it")
        return f"must be {shape}, this is {shown(detail['input'])}", example
    if detail["type"] in ("too_short", "dict_too_short"):
        return "is empty", "write at least one entry"
    return detail["msg"], "see `imgpipe schema`"


def _nearest(path: tuple[str | int, ...]) -> str:
    unknown = str(path[-1])
    model = _model_at(path[:-1])
    known = sorted(model.model_fields.keys() - {"axes"}) if model is not None else []
    near = nearest(unknown.lower(), known)
    if near:
        return f"did you mean {near!r}?"
    for place, other in _ELSEWHERE.items():
        near = nearest(unknown.lower(), other.model_fields, cutoff=0.75)
        if near and other is not model:
            meant = "it" if near == unknown else repr(near)
            return f"did you mean {meant}? it belongs in {place}" if meant != "it" else f"it belongs in {place}"
    return "known here: " + ", ".join(known)


def _model_at(path: tuple[str | int, ...]) -> type[BaseModel] | None:
    kind: Any = ManifestFile
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = _plain(field.annotation) if field is not None else None
        elif get_origin(kind) in (dict, list):
            kind = _plain(get_args(kind)[-1])
        else:
            return None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _plain(annotation: Any) -> Any:
    """Drop `| None`."""
    if get_origin(annotation) is types.UnionType:
        return next(arg for arg in get_args(annotation) if arg is not types.NoneType)
    return annotation
