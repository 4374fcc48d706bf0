"""Checked models come in, one `JobPlan` a job goes out, and the order in which jobs can run.

What is known without opening a data file is judged here: prompts that are missing, matrices that explode, jobs that
wait for each other. It renders nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from pipeline.errors import Problem
from pipeline.manifest.job import Each, Item, Job, Keys
from pipeline.manifest.matrix import MAX_COMBINATIONS, Combinations
from pipeline.manifest.places import Places
from pipeline.manifest.recipe import Layers, Recipe, Recipes, Scope
from pipeline.manifest.schema import ManifestFile

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

    def __init__(self, recipes: Recipes, places: Places, *, variables: Collection[str]) -> None:
        self.problems: list[Problem] = []
        self._recipes = recipes
        self._places = places
        self._variables = frozenset(variables)
        self._upstream: Mapping[str, str] = {}
        self._axes: Mapping[str, frozenset[str]] = {}

    def plans(self, file: ManifestFile, *, damaged: Collection[str]) -> dict[str, JobPlan]:
        """Plan every job. `damaged` jobs had problems before: what they lack may have been cut out."""
        self._upstream = _upstreams(file.jobs)
        self._axes = {name: _keys(job) for name, job in file.jobs.items()}
        plans = {name: self._plan(name, job, file.defaults, name in damaged) for name, job in file.jobs.items()}
        self.problems += self._recipes.problems
        return plans

    def _plan(self, name: str, job: Job, defaults: Keys | None, is_damaged: bool) -> JobPlan:
        combinations = Combinations(job.matrix) if job.matrix is not None else None
        if combinations is not None and not is_damaged:
            for path, what, instead in combinations.problems():
                self.problems.append(self._places.problem(("jobs", name, "matrix", *path), what, instead))
        outer: Layers = (
            ((("jobs", name), job),) if defaults is None else ((("jobs", name), job), (("defaults",), defaults))
        )
        scope = self._scope(name, job)
        recipe = self._recipes.of_job(outer, scope)
        items = None
        if job.items is not None:
            items = {
                key: self._item(key, item, recipe, outer, scope=scope, is_damaged=is_damaged)
                for key, item in job.items.items()
            }
        elif not is_damaged and not _has_prompt(outer):
            what, instead = f"the job {name!r} has no prompt", "write `prompt:` or `prompt_file:`"
            self.problems.append(self._places.problem(("jobs", name), what, instead, is_key=True))
        self._check_size(name, recipe, items, combinations)
        return JobPlan(name, recipe, items, job.each, combinations)

    def _item(self, key: str, item: Item, base: Recipe, outer: Layers, *, scope: Scope, is_damaged: bool) -> Recipe:
        path = (*outer[0][0], "items", key)
        layers: Layers = ((path, item), *outer)
        if not is_damaged and not _has_prompt(layers):
            what, instead = f"the item {key!r} has no prompt", f"write `{key}: the prompt`"
            self.problems.append(self._places.problem(path, what, instead, is_key=True))
        return self._recipes.of_item(base, layers, scope)

    def _scope(self, name: str, job: Job) -> Scope:
        names = {"vars", "job", "id", "variant"}
        chain = [*upstream_of(name, self._upstream)]
        axes = frozenset[str]().union(*(self._axes.get(each, ()) for each in (name, *chain)))
        keys = {"vars": self._variables, "file": FILE_KEYS, "matrix": axes}
        if not self._axes.keys() >= {*chain}:  # a job that is not there is told by `stages_of`
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
        if tasks > MAX_TASKS and combined <= MAX_COMBINATIONS:  # more are told of the matrix itself
            what = f"the job {name!r} multiplies to {tasks:,} tasks, at most {MAX_TASKS:,} are allowed"
            instead = "take matrix values or variants out"
            self.problems.append(self._places.problem(("jobs", name), what, instead, is_key=True))


def _has_prompt(layers: Layers) -> bool:
    for _, layer in layers:
        if layer.prompt is not None or layer.prompt_file is not None:
            return True
        if layer.model_fields_set & {"prompt", "prompt_file"}:
            return False
    return False


def stages_of(jobs: Mapping[str, Job], places: Places) -> tuple[tuple[tuple[str, ...], ...], list[Problem]]:
    """Return job names in stages, upstream first, and what is wrong with `each: {job: ...}`."""
    upstream = _upstreams(jobs)
    problems = []
    for name, wanted in upstream.items():
        path = ("jobs", name, "each", "job")
        if wanted not in jobs:
            near = get_close_matches(wanted, jobs, n=1, cutoff=0.6)
            instead = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(list(jobs)[:8])
            problems.append(places.problem(path, f"there is no job {wanted!r}", instead))
        elif name in (chain := [*upstream_of(name, upstream)]):
            circle = " -> ".join((name, *chain[: chain.index(name) + 1]))
            problems.append(
                places.problem(path, f"jobs wait for each other: {circle}", "take one `each: {job: ...}` out")
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
