"""Turns a manifest and flags into one checked set-up: settings, directories, names, provider.

The command line wins over the manifest. Nothing is opened, locked or sent here. Raises InputError with every problem
found. Permissions under which other users of this machine could read the key or replace files are warnings, not
errors: on a machine with one user nothing is wrong with them.
"""

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pipeline.errors import InputError
from pipeline.manifest.loader import Manifest, load
from pipeline.model import Task, is_loopback
from pipeline.plan.decide import Rules
from pipeline.plan.selection import Selection
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.credentials import OWN_ADDRESS, check_address, find_key, key_doubt, known_keys
from pipeline.settings import KEY_NAMES, Kind, Limits, ProviderSettings


def key_exposure(folder: Path) -> str | None:
    """Say who else can read the `.env` beside the manifest, or whose it is; None when all is well or there is none."""
    path = folder / ".env"
    status = _status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    if status.st_uid not in (os.getuid(), 0):
        return f"{path} belongs to another user, who may change the key; make one of your own"
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"others on this machine can read the key in {path}; write: chmod 600 {path}"
    return None


def of_host(provider: ProviderSettings) -> str | None:
    """Say which key goes to a host that is not the kind's own; None when it is, or this machine."""
    if provider.base_url is None:
        return None
    host, own = (urlsplit(url).hostname or "" for url in (provider.base_url, OWN_ADDRESS[provider.kind]))
    if host == own or is_loopback(host):
        return None
    names = (provider.api_key_env,) if provider.api_key_env else KEY_NAMES[provider.kind]
    return f"the key in {' or '.join(names)} goes to {host}, which is not {own}"


SHORT_NAME_BYTES: Final = 100  # taken by every file system
SPARE_NAME_BYTES: Final = 20  # for suffix, sidecar (.jpeg.xmp), and the number in front of a superseded image


def name_max(folder: Path) -> int:
    """Return how long the name of a file in a folder, made or not, may be; 255 where the file system does not say.

    Some that are mounted by a program (FUSE) say 0; -1 is no limit (fpathconf(3)).
    """
    most = 0
    with suppress(OSError, ValueError):
        most = os.pathconf(next(parent for parent in (folder, *folder.parents) if parent.exists()), "PC_NAME_MAX")
    return most if most > 0 else 255


def folder_exposure(folder: Path) -> str | None:
    """Say that everybody may put files where images land; None when all is well or it is not there yet."""
    status = _status(folder)
    if status is None or not status.st_mode & stat.S_IWOTH or status.st_mode & stat.S_ISVTX:
        return None
    return f"everybody on this machine can write to {folder}; write: chmod o-w {folder}"


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # what it means is said by whoever needs the file
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the command line says. None: the manifest decides."""

    variables: Mapping[str, str] = field(default_factory=dict)
    allow_env: frozenset[str] = frozenset()  # variables that `vars` may read although they look like secrets
    selection: Selection = field(default_factory=Selection)
    concurrency: int | None = None
    rpm: float | None = None
    budget_microusd: int | None = None
    max_duration_s: float | None = None
    drain_s: float = 25.0
    pilot: int | None = None  # so many tasks first, then the run ends
    is_strict_select: bool = False  # a pattern that matches nothing is an error
    rules: Rules = field(default_factory=Rules)  # all but `unknown_repeats`, which the manifest says
    is_now: bool = False  # send although a hold lasts
    simulate: bool = False
    profile: str | None = None  # of the simulator: a path or a built-in name
    is_yes: bool = False  # spending above the threshold was agreed to
    wait_lock_s: float = 0.0
    ray: str | None = None  # local, auto or HOST:PORT: workers of a cluster send; None: this process does
    workers: int | None = None  # None: one a node; local: one a core
    counted: Callable[[Iterable[Task]], Iterator[Task]] = iter  # shows how many tasks were read

    def words(self, *, is_selecting: bool = False) -> list[str]:
        """Return the flags that make another command mean the same tasks: a rehearsal, variables, maybe the selection.

        Every hint has them: one of a rehearsal that left out `--simulate` would spend money.
        """
        words: list[str] = []
        if self.simulate:
            words += ["--simulate", *([self.profile] if self.profile else [])]
        words += [word for name, value in self.variables.items() for word in ("--var", f"{name}={value}")]
        words += [word for name in sorted(self.allow_env) for word in ("--allow-env", name)]
        return words + (self.selection.words() if is_selecting else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One manifest as it will be run."""

    manifest: Manifest
    flags: Flags
    provider: ProviderSettings
    limits: Limits
    catalogue: Catalogue
    rules: Rules

    @property
    def command(self) -> str:
        """What is typed behind `imgpipe VERB` to mean this manifest, as it is meant now."""
        return shlex.join([str(self.manifest.path), *self.flags.words()])

    @property
    def command_of_selection(self) -> str:
        """The same with the selection, for a verb that asks the same tasks again."""
        return shlex.join([str(self.manifest.path), *self.flags.words(is_selecting=True)])

    @property
    def is_play_money(self) -> bool:
        return self.provider.kind is Kind.SIMULATOR

    @property
    def profile(self) -> Path | None:
        """Return the embedded simulator's profile: a file, or the name of a built-in one; None is the default."""
        return Path(self.flags.profile) if self.flags.profile else self.provider.profile

    def problem(self, task: Task) -> str | None:
        """Say why a known model cannot do what the task asks, or no file can have the name of its image."""
        wrong = self.catalogue.unfit(task) or self._too_long(task.name)
        return wrong and f"{task.id}: {wrong}"

    def _too_long(self, name: str) -> str | None:
        """Say that a file system takes shorter names than ours may be: an encrypted folder (eCryptfs), 143 bytes."""
        output_dir, longest = self.manifest.output_dir, max(len(part.encode()) for part in name.split("/"))
        if longest <= SHORT_NAME_BYTES or not isinstance(output_dir, Path):
            return None
        most = min(map(name_max, (output_dir, self.manifest.state_dir))) - SPARE_NAME_BYTES
        if longest <= most:
            return None
        return f"the output name has a part of {longest} bytes, this file system takes {most}; write a shorter `output`"

    def key(self) -> str:
        """Find the key; the embedded simulator takes any."""
        if self.is_play_money and self.provider.base_url is None:
            return "simulator"
        return find_key(self.provider, environ=os.environ, dotenv_dir=self.manifest.path.parent)

    def warnings(self, models: Iterable[str]) -> list[str]:
        """Say which models are retired or soon will be; for real money also which key is used, and who can reach it."""
        manifest, exposures = self.manifest, list[str | None]()
        if not self.is_play_money:
            folder = manifest.output_dir if isinstance(manifest.output_dir, Path) else manifest.state_dir
            exposures = [of_host(self.provider), key_exposure(manifest.path.parent), folder_exposure(folder)]
            exposures.append(key_doubt(self.provider, environ=os.environ, dotenv_dir=manifest.path.parent))
        return [*self.retired(models), *(text for text in exposures if text is not None)]

    @property
    def models(self) -> frozenset[str]:
        """The models that the manifest names, as far as no row decides them."""
        recipes = [each for job in self.manifest.jobs.values() for each in (job.items or {"": job.recipe}).values()]
        named = {self.provider.model if each.model is None else each.model.literal for each in recipes}
        return frozenset(name for name in named if name is not None)

    def retired(self, models: Iterable[str]) -> list[str]:
        """Say which models are retired or about to be, in a rehearsal as for real money."""
        today = datetime.now(UTC).date()
        warnings = (self.catalogue.warning(model, today, kind=self.provider.vendor) for model in sorted(models))
        return [text for text in warnings if text is not None]


def prepare(path: Path, flags: Flags) -> Setup:
    """Load a manifest and lay the flags over it."""
    manifest = load(
        path, variables=flags.variables, allow_env=flags.allow_env, simulate=flags.simulate, resolve=_reachable
    )
    manifest = replace(manifest, secrets=known_keys(environ=os.environ, dotenv_dir=path.parent))
    if unknown := flags.selection.unknown_jobs(manifest.jobs):
        raise InputError(*unknown)
    if flags.selection.has_marks:
        from pipeline.app.redo import marks_of  # only here: most commands ask for no marks

        flags = replace(flags, selection=replace(flags.selection, marks=marks_of(manifest)))
    setup = Setup(
        manifest=manifest,
        flags=flags,
        provider=manifest.provider,
        limits=_limits(manifest.limits, flags),
        catalogue=Catalogue(manifest.prices),
        rules=replace(flags.rules, unknown_repeats=manifest.retry.unknown),
    )
    if setup.is_play_money and setup.provider.base_url is None and setup.profile is not None:
        from pipeline.simulator.profile import load_profile  # late: few runs name a profile

        load_profile(setup.profile)
    return setup


def _reachable(provider: ProviderSettings) -> ProviderSettings:
    """Return it with its resolved address; the embedded simulator has none. Raises InputError for a bad one."""
    if provider.kind is Kind.SIMULATOR and provider.base_url is None:
        return provider
    return replace(provider, base_url=check_address(provider))


def _limits(limits: Limits, flags: Flags) -> Limits:
    if flags.concurrency is not None:
        limits = replace(limits, concurrency=flags.concurrency)
    if flags.rpm is not None:
        limits = replace(limits, requests_per_minute=flags.rpm)
    if flags.budget_microusd is not None:
        limits = replace(limits, budget=replace(limits.budget, run=flags.budget_microusd))
    if flags.max_duration_s is not None:
        limits = replace(limits, max_duration_s=flags.max_duration_s)
    return limits
