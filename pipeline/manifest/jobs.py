"""Merges the layers of keys of each job to one recipe, templates compiled, and makes the combinations of its matrix.

Also checks what needs no data file: missing prompts, matrices that are too large, cycles of jobs; and returns a
`JobPlan` for each job in the order in which they can run. Problems are collected with the path of keys they belong to;
nothing is rendered and no data file is opened.

Include and exclude of a matrix are GitHub Actions' (https://docs.github.com/actions/using-jobs/using-a-matrix-for-your-jobs):
exclude first; an include is added to every original combination it does not contradict, and is a combination of its
own when it fits none. Values are compared by name.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, Problem
from pipeline.manifest.fields import Choice, MatrixValue
from pipeline.manifest.location import decode_utf8, read_bytes
from pipeline.manifest.problems import Origin, Places
from pipeline.manifest.sandbox import Sandbox
from pipeline.manifest.schema import ChecksKeys, Each, Item, Job, Keys, ManifestFile, Matrix
from pipeline.manifest.templates import Template, TemplateTrouble, compile_template
from pipeline.model import Aspect, ImageChecks, Tier
from pipeline.settings import CHECKS, MIN_SIDE
from pipeline.text import did_you_mean

MAX_COMBINATIONS = 1_000_000
_KEPT = 10_000  # combinations remembered between rows; more are worked out again for each row


@dataclass(frozen=True, slots=True)
class Combination:
    """One choice of every axis. `label` is its part of an id; extra keys an include added are not in it."""

    label: str
    names: dict[str, str]
    texts: dict[str, str]


class Combinations:
    """All combinations of one matrix; iterate as often as needed."""

    def __init__(self, matrix: Matrix) -> None:
        self.axes: Mapping[str, tuple[Choice, ...]] = matrix.axes
        self.at_most = math.prod(len(axis) for axis in matrix.axes.values()) if matrix.axes else 0
        self.at_most += len(matrix.include)
        self._include = matrix.include
        self._exclude = matrix.exclude
        self._texts = {name: {choice.name: choice.text for choice in axis} for name, axis in matrix.axes.items()}
        self._kept: tuple[Combination, ...] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """Every name `matrix.` may be followed by; those only some includes bring are among them."""
        return frozenset(self.axes).union(*self._include)

    def __iter__(self) -> Iterator[Combination]:
        if self.at_most > _KEPT:
            return self._each()
        if self._kept is None:
            self._kept = tuple(self._each())
        return iter(self._kept)

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Yield (path inside the matrix, what, instead) of every mistake."""
        if self.at_most == 0:
            yield (), "the matrix is empty", "write an axis: colour: [red, navy]"
        if self.at_most > MAX_COMBINATIONS:
            what = f"the matrix has {self.at_most:,} combinations, at most {MAX_COMBINATIONS:,} are allowed"
            yield (), what, "remove values, or list the wanted rows in a CSV file"
        for index, excluded in enumerate(self._exclude):
            yield from self._exclude_problems(index, excluded)
        for index, included in enumerate(self._include):
            if not included:
                yield ("include", index), "an empty include", "write {axis: value}"
        if 0 < self.at_most <= MAX_COMBINATIONS and next(iter(self), None) is None:
            yield ("exclude",), "the matrix leaves no combination: every one is excluded", "remove an exclude"

    def _exclude_problems(
        self, index: int, excluded: dict[str, str]
    ) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        if not excluded:
            yield ("exclude", index), "an empty exclude would take everything out", "write {axis: value}"
        for key, value in excluded.items():
            known = [choice.name for choice in self.axes[key]] if key in self.axes else [*self.axes]
            wanted = value if key in self.axes else key
            if wanted not in known:
                what = f"{value!r} is no value of the axis {key!r}" if key in self.axes else f"there is no axis {key!r}"
                instead = did_you_mean(wanted, known, "known: " + ", ".join(known[:8]))
                yield ("exclude", index, key), f"excludes nothing: {what}", instead

    def _each(self) -> Iterator[Combination]:
        fitted = [False] * len(self._include)
        for choices in itertools.product(*self.axes.values()) if self.axes else ():
            names = dict(zip(self.axes, (choice.name for choice in choices), strict=True))
            if any(all(names.get(key) == value for key, value in excluded.items()) for excluded in self._exclude):
                continue
            label = "-".join(names.values())
            for index, included in enumerate(self._include):
                if all(names[key] == value for key, value in included.items() if key in self.axes):
                    fitted[index] = True
                    names |= included
            yield Combination(label, names, self.texts_of(names))
        for index, included in enumerate(self._include):
            if not fitted[index]:
                ordered = {key: included[key] for key in (*self.axes, *included) if key in included}
                yield Combination("-".join(ordered.values()), ordered, self.texts_of(ordered))

    def texts_of(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return what the names of one combination stand for in prompts."""
        known = self._texts
        return {
            key: MatrixValue(known[key].get(name, name) if key in known else name, name) for key, name in names.items()
        }


MAX_PROMPT_FILE_BYTES = 2**20
BUILT_IN_OUTPUT = "{{ job }}/{{ id }}"
KeyPath = tuple[str | int, ...]  # of keys
Layers = tuple[tuple[KeyPath, Keys], ...]  # innermost first, each with its path of keys


def _checks(keys: ChecksKeys) -> ImageChecks:
    side = keys.min_side
    actions = {name: getattr(keys, name) for name in CHECKS if name != MIN_SIDE}
    actions |= {} if side is None else {MIN_SIDE: side.action}
    return ImageChecks(
        names=tuple(name for name in CHECKS if actions.get(name, "off") != "off"),
        redo=tuple(name for name in CHECKS if actions.get(name) == "redo"),
        most_redos=keys.redo,
        min_side_px=0 if side is None else side.pixels,
    )


_CHECKS = _checks(ChecksKeys.or_default(None))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one row becomes requests. Templates are compiled; None means the key is not set."""

    prompt: Template | None = None
    system: Template | None = None
    images: tuple[Template, ...] = ()
    model: Template | None = None
    aspect_ratio: Template | None = None
    size: Template | None = None
    output: Template | None = None
    id: Template | None = None
    tags: tuple[Template, ...] = ()
    variants: int = 1
    seed: int | None = None
    temperature: float | None = None
    thinking: str | None = None
    tier: Tier = Tier.STANDARD
    params: dict[str, Any] = field(default_factory=dict)
    safety: dict[str, str] = field(default_factory=dict)
    rerun_when: tuple[Aspect, ...] = tuple(Aspect)
    keep_metadata: bool = False
    embed: bool = False
    skip_broken: bool = False
    checks: ImageChecks = _CHECKS


@dataclass(frozen=True, slots=True)
class Scope:
    """What the templates of one job may use: `names`, and of some of them the only keys there are."""

    names: frozenset[str]
    keys: Mapping[str, frozenset[str]]

    @property
    def for_id(self) -> "Scope":
        """The scope of an `id` template, which cannot use what it makes."""
        return Scope(self.names - {"id", "variant"}, self.keys)


_BUILT_IN = Recipe()


def _unknown_key(root: str, key: str, known: Iterable[str]) -> TemplateTrouble:
    known = sorted(known)
    instead = did_you_mean(key, known, "known: " + (", ".join(known[:8]) or "none"))
    return TemplateTrouble(f"{root} has no {key!r}", instead, needle=key)


def _pick(layers: Layers, key: str) -> tuple[KeyPath, Any]:
    """Return the innermost layer's value of `key`, with its path; null is a value here: it unsets."""
    for path, layer in layers:
        if key in layer.model_fields_set:
            return (*path, key), getattr(layer, key)
    return (), None


MAX_TASKS = 10_000_000
FILE_KEYS = frozenset(("path", "dir", "stem", "name", "suffix"))


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One job, ready to be expanded. `items` has the recipe of each row written in place."""

    name: str
    recipe: Recipe
    items: Mapping[str, Recipe] | None
    each: Each | None
    combinations: Combinations | None


class Planner:
    """Turns the jobs of one manifest into plans; what is wrong goes to `problems`."""

    def __init__(self, folder: Path, places: Places, *, variables: Collection[str]) -> None:
        self.problems: list[Problem] = []
        self.used_variables: set[str] = set()
        self.sandbox = Sandbox()
        self._folder = folder
        self._places = places
        self._variables = frozenset(variables)
        self._upstream: Mapping[str, str] = {}
        self._axes: Mapping[str, frozenset[str]] = {}

    def plans(self, file: ManifestFile, *, damaged: Collection[str]) -> dict[str, JobPlan]:
        """Plan every job. `damaged` jobs had problems before: what they lack may have been cut out."""
        self._upstream = _upstreams(file.jobs)
        self._axes = {name: _keys(job) for name, job in file.jobs.items()}
        return {name: self._plan(name, job, file.defaults, name in damaged) for name, job in file.jobs.items()}

    def _plan(self, name: str, job: Job, defaults: Keys | None, is_damaged: bool) -> JobPlan:
        combinations = Combinations(job.matrix) if job.matrix is not None else None
        if combinations is not None and not is_damaged:
            for path, what, instead in combinations.problems():
                self.problems.append(self._places.problem(("jobs", name, "matrix", *path), what, instead))
        outer: Layers = ((("jobs", name), job),)
        outer += () if defaults is None else ((("defaults",), defaults),)
        scope = self._scope(name, job)
        recipe = self._fill(Recipe(), outer, set(Keys.model_fields), scope)
        items = None
        if job.items is not None:
            items = {
                key: self._item(key, item, recipe, outer, scope=scope, is_damaged=is_damaged)
                for key, item in job.items.items()
            }
        elif not is_damaged and _prompt_of(outer) is None:
            what, instead = f"the job {name!r} has no prompt", "write `prompt:` or `prompt_file:`"
            self._problem(("jobs", name), what, instead)
        self._check_size(name, recipe, items, combinations)
        return JobPlan(name, recipe, items, job.each, combinations)

    def _item(self, key: str, item: Item, base: Recipe, outer: Layers, *, scope: Scope, is_damaged: bool) -> Recipe:
        path = (*outer[0][0], "items", key)
        layers: Layers = ((path, item), *outer)
        if not is_damaged and _prompt_of(layers) is None:
            what, instead = f"the item {key!r} has no prompt", f"write `{key}: the prompt`"
            self._problem(path, what, instead)
        return self._fill(base, layers, set(item.model_fields_set), scope)

    def _fill(self, base: Recipe, layers: Layers, keys: set[str], scope: Scope) -> Recipe:
        changes: dict[str, Any] = {}
        for key in keys - {"prompt", "prompt_file"}:
            path, value = _pick(layers, key)
            changes |= self._change(key, path, value, scope)
        if keys & {"prompt", "prompt_file"}:
            changes["prompt"] = self._prompt(layers, scope)
        return replace(base, **changes) if changes else base

    def _change(self, key: str, path: KeyPath, value: Any, scope: Scope) -> dict[str, Any]:
        if key == "metadata":
            return {"embed": value == "embed"}
        if value is None and key != "output":
            return {key: getattr(_BUILT_IN, key)}
        match key:
            case "images" | "tags":
                made = (self._template(text, Origin((*path, index)), scope) for index, text in enumerate(value))
                return {key: tuple(template for template in made if template is not None)}
            case "system" | "model" | "aspect_ratio" | "size":
                return {key: self._template(value, Origin(path), scope)}
            case "output":
                return {key: self._template(BUILT_IN_OUTPUT if value is None else value, Origin(path), scope)}
            case "id":
                return {key: self._template(value, Origin(path), scope.for_id)}
            case "rerun_when":
                return {key: tuple(Aspect(aspect) for aspect in value)}
            case "tier":
                return {key: Tier(value)}
            case "checks":
                return {key: _checks(value)}
            case _:
                return {key: value}

    def _prompt(self, layers: Layers, scope: Scope) -> Template | None:
        match _prompt_of(layers):
            case (path, "prompt", text):
                return self._template(text, Origin(path), scope)
            case (path, _, name):
                return self._prompt_file(path, name, scope)
            case _:
                return None

    def _prompt_file(self, path: KeyPath, name: str, scope: Scope) -> Template | None:
        file = self._folder / name
        try:
            data = read_bytes(file, max_bytes=MAX_PROMPT_FILE_BYTES, too_big="a prompt is at most 100,000 characters")
            text = decode_utf8(data, file=str(file)).replace("\r\n", "\n").rstrip()
        except InputError as error:
            what = f"prompt_file {name!r}: {error.problems[0].what}"
            self.problems.append(self._places.problem(path, what, "the path is relative to this file"))
            return None
        return self._template(text, Origin(path, str(file), text), scope)

    def _template(self, text: str, origin: Origin, scope: Scope) -> Template | None:
        try:
            template = compile_template(self.sandbox, text, names=scope.names, origin=origin)
            for root, key in sorted(template.refs):
                if key not in scope.keys.get(root, (key,)):
                    raise _unknown_key(root, key, scope.keys[root])
        except TemplateTrouble as trouble:
            self.problems.append(self._places.trouble(origin, trouble))
            return None
        self.used_variables |= {key for root, key in template.refs if root == "vars"}
        return template

    def _problem(self, path: KeyPath, what: str, instead: str) -> None:
        self.problems.append(self._places.problem(path, what, instead, is_key=True))

    def _scope(self, name: str, job: Job) -> Scope:
        names = {"vars", "job", "id", "variant"}
        chain = [*upstream_of(name, self._upstream)]
        axes = frozenset[str]().union(*(self._axes.get(each, ()) for each in (name, *chain)))
        keys = {"vars": self._variables, "file": FILE_KEYS, "matrix": axes}
        if not self._axes.keys() >= {*chain}:  # a job that is not there is reported by `stages_of`
            keys.pop("matrix")
        if job.matrix is not None or chain:
            names.add("matrix")
        if job.each is not None and job.each.kind != "files":
            names.add("row")
        if job.each is not None and job.each.kind in ("files", "job"):
            names.add("file")
        return Scope(frozenset(names), keys)

    def _check_size(
        self, name: str, recipe: Recipe, items: Mapping[str, Recipe] | None, combinations: Combinations | None
    ) -> None:
        rows = sum(item.variants for item in items.values()) if items is not None else recipe.variants
        combined = combinations.at_most if combinations is not None else 1
        tasks = rows * combined
        if tasks > MAX_TASKS and combined <= MAX_COMBINATIONS:  # more are reported for the matrix itself
            what = f"the job {name!r} multiplies to {tasks:,} tasks, at most {MAX_TASKS:,} are allowed"
            instead = "remove matrix values or variants"
            self._problem(("jobs", name), what, instead)


def _prompt_of(layers: Layers) -> tuple[KeyPath, str, str] | None:
    """Return path, key and value of the innermost `prompt` or `prompt_file`; null unsets what is further out."""
    for path, layer in layers:
        for key in ("prompt_file", "prompt"):
            if (value := getattr(layer, key)) is not None:
                return (*path, key), key, value
        if layer.model_fields_set & {"prompt", "prompt_file"}:
            return None
    return None


def stages_of(jobs: Mapping[str, Job], places: Places) -> tuple[tuple[tuple[str, ...], ...], list[Problem]]:
    """Return job names in stages, upstream first, and what is wrong with `each: {job: ...}`."""
    upstream = _upstreams(jobs)
    problems = []
    for name, wanted in upstream.items():
        path = ("jobs", name, "each", "job")
        if wanted not in jobs:
            instead = did_you_mean(wanted, jobs, "known: " + ", ".join(list(jobs)[:8]))
            problems.append(places.problem(path, f"there is no job {wanted!r}", instead))
        elif name in (chain := [*upstream_of(name, upstream)]):
            circle = " -> ".join((name, *chain[: chain.index(name) + 1]))
            problems.append(
                places.problem(path, f"jobs depend on each other in a cycle: {circle}", "remove one `each: {job: ...}`")
            )
    if problems:
        return (tuple(jobs),), problems
    depth = {name: len([*upstream_of(name, upstream)]) for name in jobs}
    levels = range(max(depth.values(), default=0) + 1)
    return tuple(tuple(name for name in jobs if depth[name] == level) for level in levels), []


def _upstreams(jobs: Mapping[str, Job]) -> dict[str, str]:
    return {name: job.each.job for name, job in jobs.items() if job.each is not None and job.each.job is not None}


def _keys(job: Job) -> frozenset[str]:
    """Return what a job's own matrix adds to `matrix.`."""
    return Combinations(job.matrix).keys if job.matrix is not None else frozenset()


def upstream_of(name: str, upstream: Mapping[str, str]) -> Iterator[str]:
    """Yield the jobs `name` waits for, nearest first; stops where it has been before."""
    seen: set[str] = set()
    while name in upstream and upstream[name] not in seen:
        name = upstream[name]
        seen.add(name)
        yield name
