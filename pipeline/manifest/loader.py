"""Loads a manifest: a path to a checked `Manifest`, or every problem of the file at once, each with line and column.

The steps: bytes, text, tree, environment variables in `vars` (`${X}`, `${X:-default}`, `${X:?why}`, `$$`), models,
recipes, settings. What is invalid in one step is cut out, so that the next step still checks the rest. Nothing is
expanded here, no data file is opened, nothing is sent. Errors never show the value of an environment variable.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import InputError, Problem
from pipeline.manifest import location
from pipeline.manifest.jobs import Combinations, JobPlan, Planner, stages_of, upstreams
from pipeline.manifest.location import Place
from pipeline.manifest.outputs import DeliveryRecipe, recipes_of
from pipeline.manifest.problems import BadValue, Problems
from pipeline.manifest.sandbox import Names, RenderBudget
from pipeline.manifest.schema import ManifestFile, Matrix, validate
from pipeline.manifest.settings import LimitsKeys, ProviderKeys, RetryKeys
from pipeline.manifest.templates import Context
from pipeline.manifest.yaml import as_yaml, parse
from pipeline.model import Artifact, Task, Tier
from pipeline.settings import KEY_NAMES, Kind, Limits, Notify, ProviderSettings, Retry
from pipeline.text import did_you_mean

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}|(?P<open>\{))")

# Words of a name that mark a secret; AUTHOR and KEYWORD are none, MONKEY costs a flag.
_SECRET = re.compile(
    r"KEY(?!WORD)|TOKEN|SECRET|PASSW|PASSPHRASE|PASSCODE|CREDENTIAL|AUTH(?!OR(?!I))|PRIVATE|COOKIE|SESSION|SIGNATURE|JWT|DSN"
    r"|CONNECTION_STRING|_PASS$|^PASS$|_PWD$|_PAT$|_PIN$|_SALT$|CREDS|WEBHOOK|_PROXY$|INDEX_URL|(?:DATABASE|DB|REDIS|MONGO(?:DB)?|AMQP)_UR[IL]"
    r"|^(?:AWS|AZURE|DOCKER|GH|GITHUB|GITLAB|NPM|PYPI|SSH)_"
)


def looks_secret(name: str) -> bool:
    """True for a variable whose name says that it holds a key, a token or a password."""
    return _SECRET.search(name.upper()) is not None


def interpolate(
    text: str, environ: Mapping[str, str], *, keys: Collection[str] = (), allowed: Collection[str] = ()
) -> str:
    """Return `text` with its variables filled in.

    Raises: BadValue when one is unset, empty or several lines, one of `keys`, or looks like a secret and is not
    `allowed`: what stands in `vars` goes into prompts, and from there into the ledger, the log and the
    pictures' records.
    """
    return _REFERENCE.sub(lambda match: _value(match, environ, keys, allowed), text)


def _value(match: re.Match[str], environ: Mapping[str, str], keys: Collection[str], allowed: Collection[str]) -> str:
    name, how, rest = match["name"], match["how"], match["rest"]
    if match["open"] is not None:
        raise BadValue("${ is not followed by a variable's name and }", "write ${NAME}, or $${ for the text ${")
    if name is None:
        return "$"
    if name in keys:
        raise BadValue(f"{name} is the API key, which must not get into a prompt", "name another variable")
    if looks_secret(name) and name not in allowed:
        what = f"{name} looks like a secret, which must not get into a prompt"
        raise BadValue(what, f"name another variable, or allow this one: --allow-env {name}")
    value = environ.get(name, "")
    if not value and how == "-":
        return str(rest)
    if not value:
        state = "is empty" if name in environ else "is not set"
        what = f"the environment variable {name} {state}" + (f": {rest}" if how == "?" and rest else "")
        raise BadValue(what, f"set it, or write ${{{name}:-default}}")
    if any(character in value for character in "\n\r\0"):
        raise BadValue(f"the environment variable {name} holds several lines", "set it to one line")
    return value


MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One manifest, checked; every default filled in. `expand` turns it into tasks."""

    path: Path
    name: str
    is_named: bool  # `name:` is written; else the file's name is taken
    sha256: str  # of the file's bytes
    provider: ProviderSettings
    limits: Limits
    retry: Retry
    prices: Mapping[str, int | Mapping[str, int]]  # micro-USD per image, or per size
    output_dir: Place  # a folder: absolute, resolved; of a rehearsal always a folder
    is_for_bucket: bool  # `output_dir:` is written as a bucket
    state_dir: Path
    notify: Notify | None
    stages: tuple[tuple[str, ...], ...]  # job names, upstream first
    variables: Mapping[str, str]
    jobs: Mapping[str, JobPlan]  # private to this package
    deliveries: Mapping[str, DeliveryRecipe]
    problems: Problems  # private to this package
    budget: RenderBudget = field(repr=False, compare=False)  # private to this package: of its templates
    secrets: tuple[str, ...] = field(default=(), repr=False)  # keys that must stand in no request and no name

    @property
    def report_dir(self) -> Path:
        """The folder that reports are in: that of the images, or the state directory where they are in a bucket."""
        return self.output_dir if isinstance(self.output_dir, Path) else self.state_dir

    def location_of(self, artifact: Artifact) -> str:
        """Return where an image stands: a path of this machine, or the address of an object."""
        return f"{self.output_dir}/{artifact.path}"

    @property
    def upstream(self) -> Mapping[str, str]:
        """Jobs that take another one's images -> that job."""
        return upstreams(self.jobs)

    def context_of(self, task: Task) -> Context:
        """Return what a template may say of a task; a file of the source by what its row holds."""
        combinations = self.jobs[task.job].combinations or Combinations(Matrix())
        return {
            "vars": Names("vars", self.variables),
            "row": Names("row", task.fields),
            "file": Names("file", task.fields),
            "matrix": Names("matrix", combinations.texts_of(task.matrix)),
            "job": task.job,
            "id": task.row,
            "variant": task.variant,
        }

    def problem_of(self, job: str, what: str) -> Problem:
        """Return what is wrong with a task of `job`, with the place of the job."""
        return self.problems.at(("jobs", job), what, is_key=True)

    @property
    def patient(self) -> frozenset[str]:
        """Jobs that leave young files for a later run (`min_age`)."""
        return frozenset(name for name, plan in self.jobs.items() if plan.each and plan.each.min_age is not None)


def load(
    path: Path,
    *,
    variables: Mapping[str, str] = MappingProxyType({}),
    environ: Mapping[str, str] = os.environ,
    allow_env: Collection[str] = (),
    simulate: bool = False,
    resolve: Callable[[ProviderSettings], ProviderSettings] = lambda provider: provider,
) -> Manifest:
    """Read one manifest. `variables` (`--var`) win over `vars`; `simulate` swaps the provider for the simulator.

    `allow_env` names variables that `vars` may read although they look like secrets.

    `resolve` fills in the address, or says what is wrong with it, by raising InputError.
    Raises InputError with every problem, each as `file:line:column: what; what to write instead`.
    """
    too_big = "move long lists into a CSV, JSONL or Parquet file and use `each`"
    data = location.read_bytes(path, max_bytes=MAX_BYTES, too_big=too_big)
    text = as_yaml(location.decode_utf8(data, file=str(path)))
    tree, structural = parse(text, file=str(path))
    problems = Problems(text, str(path), structural)
    file, damaged = validate(tree, problems)
    reader = _Reader(path, file, problems, simulate=simulate)
    manifest = reader.manifest(
        reader.variables(variables, environ, allow_env), damaged=damaged, sha256=hashlib.sha256(data).hexdigest()
    )
    try:
        manifest = replace(manifest, provider=resolve(manifest.provider))
    except InputError as error:
        for each in error.problems:
            problems.add(("provider", "base_url"), each.what, each.instead)
    if problems.found:
        by_place = sorted(dict.fromkeys(problems.found), key=lambda each: (each.file, each.line or 0, each.column or 0))
        raise InputError(*by_place)
    return manifest


class _Reader:
    """Takes what the models let through; everything else that is wrong goes to `problems`."""

    def __init__(self, path: Path, file: ManifestFile, problems: Problems, *, simulate: bool) -> None:
        self._path = path
        self._folder = location.folder_of(path)
        self._file = file
        self._problems = problems
        self._simulate = simulate
        self._provider = ProviderKeys.or_default(file.provider)
        self._given: Mapping[str, str] = {}

    def variables(
        self, given: Mapping[str, str], environ: Mapping[str, str], allowed: Collection[str]
    ) -> dict[str, str]:
        """Return `vars` with the environment filled in; `given` ones win and need no environment."""
        self._given = given
        known: dict[str, str] = {}
        keys = {name for names in KEY_NAMES.values() for name in names} | {self._provider.api_key_env or ""}
        for name, text in (self._file.vars or {}).items():
            try:
                known[name] = given[name] if name in given else interpolate(text, environ, keys=keys, allowed=allowed)
            except BadValue as missing:
                known[name] = ""
                self._problems.add(("vars", name), missing.what, missing.instead)
        return known | dict(given)

    def manifest(self, variables: Mapping[str, str], *, damaged: Collection[str], sha256: str) -> Manifest:
        """Build the manifest; meaningful only when no problem was found."""
        file, problems = self._file, self._problems
        planner = Planner(self._folder, problems, variables=variables)
        plans = planner.plans(file, damaged=damaged)
        self._check_unused(planner.used_variables)
        name = self._name()
        output_dir, state_dir = self._directories(name)
        taken: dict[Place, str] = {output_dir: "the output directory", state_dir: "the state directory"}
        return Manifest(
            path=self._path,
            name=name,
            is_named=file.name is not None,
            sha256=sha256,
            provider=self._provider_settings(),
            limits=LimitsKeys.or_default(file.limits).settings(),
            retry=RetryKeys.or_default(file.retry).settings(),
            prices=file.prices or {},
            output_dir=output_dir,
            is_for_bucket=file.output_dir is not None and location.is_address(file.output_dir),
            state_dir=state_dir,
            notify=self._notify(variables),
            stages=stages_of(file.jobs, problems),
            variables=variables,
            jobs=plans,
            deliveries=recipes_of(
                file.deliver or {},
                taken,
                folder=self._folder,
                is_simulated=self._simulate,
                sandbox=planner.sandbox,
                problems=problems,
            ),
            problems=problems,
            budget=planner.sandbox.budget,
        )

    def _name(self) -> str:
        name = self._file.name if self._file.name is not None else self._path.stem
        if not location.is_name(name):
            what = f"the file's name {name[:40]!r} is not usable as the manifest's name"
            self._problems.add((), what, "write `name:` with letters, digits, - and _")
        return name

    def _directories(self, name: str) -> location.Directories:
        output_dir, state_dir = location.directories(
            self._folder,
            name=name,
            kind=self._provider.kind,
            output_dir=self._file.output_dir,
            state_dir=self._file.state_dir,
            simulate=self._simulate,
        )
        if state_dir == output_dir:
            what = "is the output directory itself"
            self._problems.add(("state_dir",), what, "leave it out, or name another directory")
        existing = {
            next(parent for parent in (path, *path.parents) if parent.exists()): key
            for key, path in (("state_dir", state_dir), ("output_dir", output_dir))
            if isinstance(path, Path)
        }
        for path, key in existing.items():
            if not path.is_dir():
                self._problems.add((key,), f"{path} is a file", "name a directory")
        return output_dir, state_dir

    def _provider_settings(self) -> ProviderSettings:
        flex = [path for path, tier in self._file.tiers() if tier == Tier.FLEX]
        if self._provider.vendor is not Kind.GOOGLE:
            for path in flex:
                what = "tier: flex is offered by kind google alone"
                self._problems.add(path, what, "write tier: standard, or provider.kind: google")
        profile = self._provider.profile
        refused = None if profile is None else location.secret_reason(str(self._folder / profile))
        if refused is not None:
            self._problems.add(("provider", "profile"), f"the profile is refused: {refused}", "name a profile")
        return self._provider.settings(self._folder, simulate=self._simulate, is_flex=bool(flex))

    def _notify(self, variables: Mapping[str, str]) -> Notify | None:
        keys = self._file.notify
        if keys is None:
            return None
        urls: dict[str, str | None] = {}
        for key in ("webhook", "ping"):
            try:
                urls[key] = keys.url(key, variables)
            except BadValue as bad:
                self._problems.add(("notify", key), bad.what, bad.instead)
        return Notify(**urls, prometheus=None if keys.prometheus is None else self._folder / keys.prometheus)

    def _check_unused(self, used: set[str]) -> None:
        declared = [*(self._file.vars or {}), *sorted(used)]
        for name in sorted(set(self._given).difference(declared)):
            instead = did_you_mean(name, declared, "write it under `vars:` or remove the flag")
            self._problems.found.append(Problem(what=f"--var {name}: no template uses it", instead=instead))
