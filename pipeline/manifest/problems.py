"""What pydantic found comes in, `Problem`s with place and advice go out; and the tree without what was wrong.

The pruned tree lets the loader go on, so that a wrong number at the top does not hide a wrong template below. It knows
the shape of the models, and no rule of its own.
"""

import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import Problem
from pipeline.manifest.document import Tree
from pipeline.manifest.job import Each, Job
from pipeline.manifest.limits import Limits, Provider, Retry
from pipeline.manifest.places import Places
from pipeline.manifest.scalars import shown
from pipeline.manifest.schema import ManifestFile

_ELSEWHERE: Mapping[str, type[BaseModel]] = {
    "jobs.NAME": Job,
    "jobs.NAME.each": Each,
    "provider": Provider,
    "limits": Limits,
    "retry": Retry,
    "the top level": ManifestFile,
}


def translate(details: Iterable[ErrorDetails], places: Places) -> list[Problem]:
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
    near = get_close_matches(unknown.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    for place, other in _ELSEWHERE.items():
        near = get_close_matches(unknown.lower(), other.model_fields, n=1, cutoff=0.75)
        if near and other is not model:
            meant = "it" if near[0] == unknown else repr(near[0])
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
