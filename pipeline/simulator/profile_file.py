"""Profiles from YAML files and the built-in ones by name.

In: a path, or the name of a built-in profile, or None. Out: a `Profile`; every mistake at once with its line and
column. It refuses to know what a profile does.
"""

from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError

from pipeline.errors import InputError, Problem
from pipeline.simulator.profile import Profile

DEFAULT = "calm"
_SOURCES = files("pipeline.simulator").joinpath("profiles")
_MOST_BYTES = 2**20
Place = tuple[int, int]


def built_in() -> tuple[str, ...]:
    """Return the names of the built-in profiles."""
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _SOURCES.iterdir() if entry.name[-5:] == ".yaml"))


def load_profile(path: Path | None = None) -> Profile:
    """Read a profile. `path` may also be the name of a built-in one; None is the default.

    Raises `InputError` with every problem as file:line:column.
    """
    if path is None or (str(path) in built_in() and not path.is_file()):
        name = DEFAULT if path is None else str(path)
        return parse(_SOURCES.joinpath(f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise InputError(Problem(what="a profile is at most 1 MB", file=str(path)))
        return parse(data.decode("utf-8-sig"), str(path))
    except OSError as error:
        names = ", ".join(built_in())
        raise InputError(
            Problem(what=f"profile cannot be read: {error.strerror}", instead=f"built in are {names}", file=str(path))
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(Problem(what=f"not UTF-8 at byte {error.start}", file=str(path))) from error


def parse(text: str, file: str) -> Profile:
    """Read a profile from its text; `file` is named in problems."""
    places: dict[tuple[object, ...], Place] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = {} if root is None else _Walk(file, places).value(root, ())
        return Profile.model_validate(value)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        raise InputError(Problem(what=str(error.problem), file=file, line=line, column=column)) from error
    except yaml.YAMLError as error:
        raise InputError(Problem(what=str(error), file=file)) from error
    except RecursionError as error:
        raise InputError(Problem(what="nested too deep", file=file)) from error
    except ValidationError as error:
        raise InputError(*(_problem(dict(found), places, file) for found in error.errors())) from error


class _Walk:
    """Turns YAML nodes into plain values and notes where each stands; sharing and repeated keys are refused."""

    def __init__(self, file: str, places: dict[tuple[object, ...], Place]) -> None:
        self._file = file
        self._places = places
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: tuple[object, ...]) -> object:
        self._places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, place)) for place, item in enumerate(node.value)]
        return self._scalars.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, path: tuple[object, ...]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in node.value:
            name = str(key.value)
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if name in found:
                raise InputError(
                    Problem(what=f"the key {name} stands here twice", file=self._file, line=line, column=column)
                )
            found[name] = self.value(value, (*path, name))
            self._places[(*path, name)] = (line, column)
        return found


def _problem(found: dict[str, object], places: dict[tuple[object, ...], Place], file: str) -> Problem:
    loc = found["loc"]
    path = loc if isinstance(loc, tuple) else ()
    what = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        what = "no such key"
    while path and path not in places:
        path = path[:-1]
    line, column = places.get(path, (None, None))
    name = ".".join(str(part) for part in (loc if isinstance(loc, tuple) else ()))
    return Problem(what=f"{name}: {what}" if name else what, file=file, line=line, column=column)
