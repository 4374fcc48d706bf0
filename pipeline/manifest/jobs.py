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
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.manifest.fields import MAX_SEED, MatrixValue
from pipeline.manifest.location import decode_utf8, read_bytes
from pipeline.manifest.problems import BadValue, KeyPath, Origin, Problems
from pipeline.manifest.sandbox import Sandbox
from pipeline.manifest.schema import ChecksKeys, Each, Item, Job, Keys, ManifestFile, Matrix
from pipeline.manifest.templates import Scope, Template, compile_template
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


NO_COMBINATION = Combination("", {}, {})  # of a job without a matrix


class Combinations:
    """All combinations of one matrix; iterate as often as needed."""

    def __init__(self, matrix: Matrix) -> None:
        self.axes: Mapping[str, Mapping[str, MatrixValue]] = {
            name: {each.key: each for each in axis} for name, axis in matrix.axes.items()
        }
        self.at_most = len(matrix.include) + (math.prod(map(len, self.axes.values())) if self.axes else 0)
        self._include = matrix.include
        self._exclude = matrix.exclude
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

    def problems(self) -> Iterator[tuple[KeyPath, str, str]]:
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

    def _exclude_problems(self, index: int, excluded: dict[str, str]) -> Iterator[tuple[KeyPath, str, str]]:
        if not excluded:
            yield ("exclude", index), "an empty exclude would take everything out", "write {axis: value}"
        for key, value in excluded.items():
            known = [*self.axes.get(key, self.axes)]
            wanted = value if key in self.axes else key
            if wanted not in known:
                what = f"{value!r} is no value of the axis {key!r}" if key in self.axes else f"there is no axis {key!r}"
                instead = did_you_mean(wanted, known, "known: " + ", ".join(known[:8]))
                yield ("exclude", index, key), f"excludes nothing: {what}", instead

    def _each(self) -> Iterator[Combination]:
        fitted = [False] * len(self._include)
        for choices in itertools.product(*self.axes.values()) if self.axes else ():
            names = dict(zip(self.axes, choices, strict=True))
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
        return {key: self.axes.get(key, {}).get(name, MatrixValue(name, name)) for key, name in names.items()}


def texts_of_chain(chosen: Sequence[Combinations], names: Mapping[str, str]) -> dict[str, str]:
    """Return what an image's matrix stands for in prompts; of the matrices it was `chosen` by, the last one wins."""
    texts: dict[str, str] = {key: MatrixValue(name, name) for key, name in names.items()}
    for combinations in chosen:
        texts |= combinations.texts_of({key: name for key, name in names.items() if key in combinations.axes})
    return texts


MAX_PROMPT_FILE_BYTES = 2**20
BUILT_IN_OUTPUT = "{{ job }}/{{ id }}"
Written = dict[str, tuple[KeyPath, Any]]  # key -> its path in the manifest, and its value; null is a value: it unsets
_PROMPTS = frozenset(("prompt", "prompt_file"))


def _written(keys: Keys | None, path: KeyPath) -> Written:
    own = keys.model_fields_set & Keys.model_fields.keys() if keys is not None else ()
    return {key: ((*path, key), getattr(keys, key)) for key in own}


def _over(outer: Written, inner: Written) -> Written:
    """Lay `inner` over `outer`: each of prompt and prompt_file takes the other one's place."""
    replaced = _PROMPTS if _PROMPTS & inner.keys() else ()
    return {key: value for key, value in outer.items() if key not in replaced} | inner


def _has_prompt(written: Written) -> bool:
    return any(written[key][1] is not None for key in _PROMPTS & written.keys())


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


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How one row becomes requests. Templates are compiled; None means the key is not set. Hashed by identity."""

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


_BUILT_IN = Recipe()
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
    """Turns the jobs of one manifest into plans; what is wrong is added to `problems`."""

    def __init__(self, folder: Path, problems: Problems, *, variables: Collection[str]) -> None:
        self.used_variables: set[str] = set()
        self.sandbox = Sandbox()
        self._folder = folder
        self._problems = problems
        self._variables = frozenset(variables)
        self._upstream: Mapping[str, str] = {}
        self._axes: Mapping[str, frozenset[str]] = {}

    def plans(self, file: ManifestFile, *, damaged: Collection[str]) -> dict[str, JobPlan]:
        """Plan every job. `damaged` jobs had problems before: what they lack may have been cut out."""
        self._upstream = upstreams(file.jobs)
        self._axes = {name: _keys(job) for name, job in file.jobs.items() if name not in damaged}
        defaults = {"output": ((), None)} | _written(file.defaults, ("defaults",))
        return {name: self._plan(name, job, defaults, name in damaged) for name, job in file.jobs.items()}

    def _plan(self, name: str, job: Job, defaults: Written, is_damaged: bool) -> JobPlan:
        path: KeyPath = ("jobs", name)
        combinations = Combinations(job.matrix) if job.matrix is not None else None
        if combinations is not None and not is_damaged:
            for inside, what, instead in combinations.problems():
                self._problems.add((*path, "matrix", *inside), what, instead)
        written, scope = _over(defaults, _written(job, path)), self._scope(name, job)
        recipe, has_prompt = self._fill(Recipe(), written, scope), is_damaged or _has_prompt(written)
        if job.items is None and not has_prompt:
            what = f"the job {name!r} has no prompt"
            self._problems.add(path, what, "write `prompt:` or `prompt_file:`", is_key=True)
        items = {
            key: self._item((*path, "items", key), item, recipe, scope, has_prompt=has_prompt)
            for key, item in (job.items or {}).items()
        }
        plan = JobPlan(name, recipe, None if job.items is None else items, job.each, combinations)
        self._check_size(plan)
        return plan

    def _item(self, path: KeyPath, item: Item, base: Recipe, scope: Scope, *, has_prompt: bool) -> Recipe:
        written = _written(item, path)
        if not (_has_prompt(written) if _PROMPTS & written.keys() else has_prompt):
            what, instead = f"the item {path[-1]!r} has no prompt", f"write `{path[-1]}: the prompt`"
            self._problems.add(path, what, instead, is_key=True)
        return self._fill(base, written, scope)

    def _fill(self, base: Recipe, written: Written, scope: Scope) -> Recipe:
        """Return `base` with what is written; null first, as one of prompt and prompt_file may be null."""
        changes: dict[str, Any] = {}
        for key, (path, value) in sorted(written.items(), key=lambda item: item[1][1] is not None):
            changes |= self._change(key, path, value, scope)
        recipe = replace(base, **changes)
        place = next((written[key][0] for key in ("seed", "variants") if key in written), None)
        if place is not None and recipe.seed is not None and (last := recipe.seed + recipe.variants - 1) > MAX_SEED:
            what = f"the seed of variant {recipe.variants:,} is {last}, above {MAX_SEED}"
            self._problems.add(place, what, f"write a seed of at most {MAX_SEED - recipe.variants + 1}")
        return recipe

    def _change(self, key: str, path: KeyPath, value: Any, scope: Scope) -> dict[str, Any]:
        if key == "metadata":
            return {"embed": value == "embed"}
        if key == "output" and value is None:
            value = BUILT_IN_OUTPUT
        if value is None:
            key = "prompt" if key in _PROMPTS else key
            return {key: getattr(_BUILT_IN, key)}
        match key:
            case "images" | "tags":
                made = (self._template(text, Origin((*path, index)), scope) for index, text in enumerate(value))
                return {key: tuple(template for template in made if template is not None)}
            case "prompt" | "system" | "model" | "aspect_ratio" | "size" | "output":
                return {key: self._template(value, Origin(path), scope)}
            case "prompt_file":
                return {"prompt": self._prompt_file(path, value, scope)}
            case "id":
                outer = {name: keys for name, keys in scope.items() if name not in ("id", "variant")}
                return {key: self._template(value, Origin(path), outer)}
            case "rerun_when":
                return {key: tuple(Aspect(aspect) for aspect in value)}
            case "tier":
                return {key: Tier(value)}
            case "checks":
                return {key: _checks(value)}
            case _:
                return {key: value}

    def _prompt_file(self, path: KeyPath, name: str, scope: Scope) -> Template | None:
        file = self._folder / name
        try:
            data = read_bytes(file, max_bytes=MAX_PROMPT_FILE_BYTES, too_big="a prompt is at most 100,000 characters")
            text = decode_utf8(data, file=str(file)).replace("\r\n", "\n").rstrip()
        except InputError as error:
            problem = error.problems[0]
            instead = "the path is relative to this file" if problem.line is None else problem.instead
            self._problems.add(path, f"prompt_file {name!r}: {problem.what}", instead)
            return None
        return self._template(text, Origin(path, str(file), text), scope)

    def _template(self, text: str, origin: Origin, scope: Scope) -> Template | None:
        try:
            template = compile_template(self.sandbox, text, scope, origin=origin)
        except BadValue as bad:
            self._problems.add_bad(bad)
            return None
        self.used_variables |= {key for root, key in template.refs if root == "vars"}
        return template

    def _scope(self, name: str, job: Job) -> Scope:
        scope: dict[str, Collection[str] | None] = {"vars": self._variables, "job": None, "id": None, "variant": None}
        chain = [*upstream_of(name, self._upstream)]
        if job.matrix is not None or chain:
            is_known = self._axes.keys() >= {name, *chain}  # what is wrong with a job or missing is reported elsewhere
            axes = (self._axes.get(each, frozenset()) for each in (name, *chain))
            scope["matrix"] = frozenset[str]().union(*axes) if is_known else None
        if job.each is not None and job.each.kind != "files":
            scope["row"] = None
        if job.each is not None and job.each.kind in ("files", "job"):
            scope["file"] = FILE_KEYS
        return scope

    def _check_size(self, plan: JobPlan) -> None:
        rows = plan.recipe.variants if plan.items is None else sum(item.variants for item in plan.items.values())
        combined = 1 if plan.combinations is None else plan.combinations.at_most
        tasks = rows * combined
        if tasks > MAX_TASKS and combined <= MAX_COMBINATIONS:  # more are reported for the matrix itself
            what = f"the job {plan.name!r} multiplies to {tasks:,} tasks, at most {MAX_TASKS:,} are allowed"
            self._problems.add(("jobs", plan.name), what, "remove matrix values or variants", is_key=True)


def stages_of(jobs: Mapping[str, Job], problems: Problems) -> tuple[tuple[str, ...], ...]:
    """Return job names in stages, upstream first; what is wrong with `each: {job: ...}` is added to `problems`."""
    upstream, is_sound = upstreams(jobs), True
    for name, wanted in upstream.items():
        chain = [*upstream_of(name, upstream)]
        if wanted in jobs and name not in chain:
            continue
        is_sound = False
        what, instead = f"there is no job {wanted!r}", did_you_mean(wanted, jobs, f"known: {', '.join([*jobs][:8])}")
        if wanted in jobs:
            circle = " -> ".join((name, *chain[: chain.index(name) + 1]))
            what, instead = f"jobs depend on each other in a cycle: {circle}", "remove one `each: {job: ...}`"
        problems.add(("jobs", name, "each", "job"), what, instead)
    if not is_sound:
        return (tuple(jobs),)
    depth = {name: len([*upstream_of(name, upstream)]) for name in jobs}
    levels = range(max(depth.values(), default=0) + 1)
    return tuple(tuple(name for name in jobs if depth[name] == level) for level in levels)


def upstreams(jobs: "Mapping[str, Job | JobPlan]") -> dict[str, str]:
    """Return the jobs that take another one's images -> that job."""
    return {name: job.each.job for name, job in jobs.items() if job.each is not None and job.each.job is not None}


def _keys(job: Job) -> frozenset[str]:
    return Combinations(job.matrix).keys if job.matrix is not None else frozenset()


def upstream_of(name: str, upstream: Mapping[str, str]) -> Iterator[str]:
    """Yield the jobs `name` waits for, nearest first; stops where it has been before."""
    seen: set[str] = set()
    while name in upstream and upstream[name] not in seen:
        name = upstream[name]
        seen.add(name)
        yield name
