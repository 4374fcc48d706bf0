"""Manifest + flags -> one checked set-up. Nothing is opened, locked or sent here.

The command line wins over the manifest. Raises InputError with every problem found.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.compose import exposure
from pipeline.errors import InputError
from pipeline.manifest import Manifest, load
from pipeline.model import Aspect, Task
from pipeline.plan import Rules, Selection
from pipeline.provider import Catalogue, check_address, find_key, known_keys
from pipeline.settings import Kind, Limits, ProviderSettings, Retry


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
    force: bool = False
    repair: bool = False
    is_now: bool = False  # send although a hold lasts
    accept: frozenset[Aspect] = frozenset()
    accept_refused: bool = False  # refusals are taken as they are
    simulate: bool = False
    profile: str | None = None  # of the simulator: a path or a built-in name
    is_yes: bool = False  # spending above the threshold was agreed to
    wait_lock_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One manifest as it will be run."""

    manifest: Manifest
    flags: Flags
    provider: ProviderSettings
    limits: Limits
    retry: Retry
    catalogue: Catalogue
    rules: Rules

    @property
    def is_play_money(self) -> bool:
        return self.provider.kind is Kind.SIMULATOR

    @property
    def profile(self) -> Path | None:
        """Return the embedded simulator's profile: a file, or the name of a built-in one; None is the default."""
        return Path(self.flags.profile) if self.flags.profile else self.provider.profile

    def problem(self, task: Task) -> str | None:
        """Say why a known model cannot do what the task asks."""
        wrong = self.catalogue.unfit(task)
        return wrong and f"{task.id}: {wrong}"

    def key(self, environ: Mapping[str, str] = os.environ) -> str:
        """Find the key; the embedded simulator takes any."""
        if self.is_play_money and self.provider.base_url is None:
            return "simulator"
        return find_key(self.provider, environ=environ, dotenv_dir=self.manifest.path.parent)

    def warnings(self, models: Sequence[str]) -> list[str]:
        """Say which models are retired or about to be, and, for real money, what others here can reach."""
        told: list[str | None] = [*self.retired(models)]
        if not self.is_play_money:
            told += [
                exposure.of_host(self.provider),
                exposure.of_key(self.manifest.path.parent),
                exposure.of_folder(self.manifest.output_dir),
            ]
        return [text for text in told if text is not None]

    @property
    def models(self) -> frozenset[str]:
        """The models that the manifest names, as far as no row decides them."""
        recipes = [each for job in self.manifest.jobs.values() for each in (job.items or {"": job.recipe}).values()]
        named = {self.provider.model if each.model is None else each.model.literal for each in recipes}
        return frozenset(name for name in named if name is not None)

    def retired(self, models: Iterable[str]) -> list[str]:
        """Say which models are retired or about to be, in a rehearsal as for real money."""
        today = datetime.now(UTC).date()
        told = (self.catalogue.warning(model, today, kind=self.provider.vendor) for model in sorted(models))
        return [text for text in told if text is not None]


def prepare(path: Path, flags: Flags) -> Setup:
    """Load a manifest and lay the flags over it."""
    manifest = load(
        path,
        variables=flags.variables,
        allow_env=flags.allow_env,
        simulate=flags.simulate,
        check=_reachable,
    )
    manifest = replace(manifest, secrets=known_keys(environ=os.environ, dotenv_dir=path.parent))
    if strangers := flags.selection.strangers(manifest.jobs):
        raise InputError(*strangers)
    if flags.selection.has_marks:
        from pipeline.compose.marking import marks_of  # only here: most commands ask for no marks

        flags = replace(flags, selection=replace(flags.selection, marks=marks_of(manifest)))
    setup = Setup(
        manifest=manifest,
        flags=flags,
        provider=_reachable(manifest.provider),
        limits=_limits(manifest.limits, flags),
        retry=manifest.retry,
        catalogue=Catalogue.load(manifest.prices),
        rules=Rules(
            repair=flags.repair,
            force=flags.force,
            unknown_repeats=manifest.retry.unknown,
            accept=flags.accept,
            accept_refused=flags.accept_refused,
        ),
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
