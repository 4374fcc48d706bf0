"""Turns checked models into the settings of other packages: provider, limits, retry, notify, and recipes of `deliver:`.

Paths are resolved against the manifest's folder. No file is opened.
"""

import hashlib
import os
import zoneinfo
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, Problem
from pipeline.manifest.fields import is_url
from pipeline.manifest.files import BadValue, secret_reason
from pipeline.manifest.keys import BudgetKeys, ConcurrencyKeys, LimitsKeys, RetryKeys, StopOnKeys, WaitKeys
from pipeline.manifest.location import Place, is_address
from pipeline.manifest.outputs import output_name
from pipeline.manifest.problems import Origin, Places
from pipeline.manifest.sandbox import Names, Sandbox
from pipeline.manifest.schema import DeliverKeys, Keys, ManifestFile
from pipeline.manifest.templates import Context, Template, TemplateTrouble, compile_template
from pipeline.model import BucketUrl, Tier
from pipeline.settings import (
    DEFAULT_MODELS,
    FLEX_TIMEOUT_S,
    METRICS_SUFFIX,
    Budget,
    Kind,
    Limits,
    Notify,
    ProviderSettings,
    Retry,
    StopOn,
)

SettingProblem = tuple[tuple[str, ...], str, str]  # path of keys, what, instead


def provider_settings(file: ManifestFile, folder: Path, *, simulate: bool) -> ProviderSettings:
    """Return whose API is asked. `simulate` makes it the simulator, whatever is written."""
    timeout_s = FLEX_TIMEOUT_S if any(tier == Tier.FLEX for _, tier in _tiers(file)) else ProviderSettings().timeout_s
    written = file.provider
    if written is None:
        return ProviderSettings(kind=Kind.SIMULATOR if simulate else Kind.COMETAPI, timeout_s=timeout_s)
    kind, vendor = Kind.SIMULATOR if simulate else Kind(written.kind), _vendor(file)
    is_other = simulate or kind.value != written.kind  # then the written address and key belong to somebody else
    return ProviderSettings(
        kind=kind,
        model=DEFAULT_MODELS[vendor] if written.model is None else written.model,
        is_default_model=written.model is None,
        vendor=vendor,
        base_url=None if is_other else written.base_url,
        api_key_env=None if is_other else written.api_key_env,
        timeout_s=timeout_s if written.timeout is None else written.timeout,
        profile=None if written.profile is None else _profile(folder, written.profile),
    )


def _vendor(file: ManifestFile) -> Kind:
    """Return whose models and prices are meant; a manifest of the simulator stands for one of the gateway."""
    kind = Kind.COMETAPI if file.provider is None else Kind(file.provider.kind)
    return Kind.COMETAPI if kind is Kind.SIMULATOR else kind


def _tiers(file: ManifestFile) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every `tier` that is written, with its path of keys."""
    layers: dict[tuple[str, ...], Keys | None] = {("defaults",): file.defaults}
    for name, job in file.jobs.items():
        layers[("jobs", name)] = job
        layers |= {("jobs", name, "items", key): item for key, item in (job.items or {}).items()}
    for path, keys in layers.items():
        if keys is not None and keys.tier is not None:
            yield (*path, "tier"), keys.tier


def _profile(folder: Path, written: str) -> Path:
    """Return a file beside the manifest; a bare word that is none may be a profile that is built in."""
    beside = folder / written
    return beside if beside.exists() or "/" in written or "." in written else Path(written)


def limit_settings(file: ManifestFile) -> Limits:
    """Return the ceilings of one run."""
    written = file.limits or LimitsKeys.model_validate({})
    concurrency, budget, stop_on = (
        written.concurrency or ConcurrencyKeys.model_validate({}),
        written.budget or BudgetKeys.model_validate({}),
        written.stop_on or StopOnKeys.model_validate({}),
    )
    return Limits(
        concurrency=concurrency.max,
        start=concurrency.start,
        adaptive=concurrency.adaptive,
        requests_per_minute=written.requests_per_minute,
        budget=Budget(**budget.model_dump()),
        tz=written.tz,
        max_tasks=written.max_tasks,
        max_duration_s=written.max_duration,
        stop_on=StopOn(**stop_on.model_dump()),
    )


def retry_settings(file: ManifestFile) -> Retry:
    """Return how often one task may be asked."""
    written = file.retry or RetryKeys.model_validate({})
    wait = written.wait or WaitKeys.model_validate({})
    return Retry(attempts=written.attempts, wait_initial_s=wait.initial, wait_max_s=wait.max, unknown=written.unknown)


def notify_settings(
    file: ManifestFile, folder: Path, variables: Mapping[str, str]
) -> tuple[Notify | None, list[SettingProblem]]:
    """Return who is notified, with `{{ vars.* }}` filled in, and what is wrong with the addresses (not repeated)."""
    if file.notify is None:
        return None, []
    troubles: list[SettingProblem] = []
    urls: dict[str, str | None] = {}
    for key in ("webhook", "ping"):
        try:
            urls[key] = _url(getattr(file.notify, key), variables)
        except TemplateTrouble as trouble:
            troubles.append((("notify", key), trouble.what, trouble.instead))
    prometheus = file.notify.prometheus
    return Notify(**urls, prometheus=None if prometheus is None else folder / prometheus), troubles


def _url(written: str | None, variables: Mapping[str, str]) -> str | None:
    if written is None:
        return None
    url = compile_template(Sandbox(), written, names=("vars",)).render({"vars": Names("vars", variables)})
    if not is_url(url):
        raise TemplateTrouble("must be an address that starts with https:// or http://", "write https://host/path")
    return url


def setting_problems(file: ManifestFile, folder: Path, output_dir: Place, state_dir: Path) -> Iterator[SettingProblem]:
    """Yield what is wrong with settings that pass one by one."""
    if file.limits is not None:
        try:
            zoneinfo.ZoneInfo(file.limits.tz)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            what = f"the time zone {file.limits.tz!r} is not known on this system"
            yield ("limits", "tz"), what, "write UTC, or a name such as Europe/Lisbon"
    if file.notify is not None and file.notify.prometheus and not file.notify.prometheus.endswith(METRICS_SUFFIX):
        what = f"metrics are written to a file *{METRICS_SUFFIX} only"
        yield ("notify", "prometheus"), what, f"write for example metrics/imgpipe{METRICS_SUFFIX}"
    if file.retry is not None and file.retry.wait is not None and file.retry.wait.initial > file.retry.wait.max:
        yield ("retry", "wait"), "initial is above max", "lower initial or raise max"
    for keys, tier in _tiers(file):
        if tier == Tier.FLEX and _vendor(file) is not Kind.GOOGLE:
            yield keys, "tier: flex is offered by kind google alone", "write tier: standard, or provider.kind: google"
    if state_dir == output_dir:
        yield ("state_dir",), "is the output directory itself", "leave it out, or name another directory"
    if file.provider is not None and file.provider.profile is not None:
        refused = secret_reason(str(folder / file.provider.profile))
        if refused is not None:
            yield ("provider", "profile"), f"the profile is refused: {refused}", "name a profile"
    files = set()
    for key, path in (("output_dir", output_dir), ("state_dir", state_dir)):
        if isinstance(path, BucketUrl):
            continue
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        if not existing.is_dir() and existing not in files:
            yield (key,), f"{existing} is a file", "name a directory"
        files.add(existing)


NAMES = frozenset(("vars", "matrix", "row", "file", "job", "id", "variant"))
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecipe:
    """One delivery."""

    name: str
    place: Place  # a folder is absolute
    rehearsed: Path  # where a rehearsal puts what belongs in a bucket
    is_picked: bool  # else every done image
    select: tuple[str, ...]
    template: Template | None  # of the file's name, without suffix; None: as below the output directory
    kind: str | None  # jpeg, png, webp; None: as it is
    quality: int
    max_side: int | None
    is_srgb: bool
    is_stripped: bool

    @property
    def suffix(self) -> str | None:
        """Of every file; None: that of its image."""
        return None if self.kind is None else SUFFIXES[self.kind]

    @property
    def digest(self) -> str:
        """What tells apart recipes that make other bytes."""
        asked = (self.kind, self.quality, self.max_side, self.is_srgb, self.is_stripped)
        return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]

    def place_of(self, *, is_simulated: bool) -> Place:
        """Return where files go; those of a rehearsal go to a folder of their own."""
        folder = self.place if isinstance(self.place, Path) else self.rehearsed
        return folder.with_name(f"{folder.name}-simulated") if is_simulated else self.place

    def file_name(self, context: Context, *, task_id: str, image_name: str) -> str:
        """Return the name of one file without suffix. Raises InputError."""
        if self.template is None:
            return image_name
        try:
            return output_name(self.template.render(context), task_id=task_id)
        except (TemplateTrouble, BadValue) as trouble:
            what = f"{task_id}: deliver.{self.name}.name: {trouble.what}"
            raise InputError(Problem(what=what, instead=trouble.instead)) from trouble


def recipes_of(
    keys: Mapping[str, DeliverKeys], *, folder: Path, sandbox: Sandbox, places: Places
) -> tuple[dict[str, DeliveryRecipe], list[Problem]]:
    """Return the recipes, and what is wrong with their templates."""
    recipes: dict[str, DeliveryRecipe] = {}
    problems: list[Problem] = []
    for name, each in keys.items():
        origin, template = Origin(("deliver", name, "name")), None
        try:
            template = None if each.name is None else compile_template(sandbox, each.name, names=NAMES, origin=origin)
        except TemplateTrouble as trouble:
            problems.append(places.trouble(origin, trouble))
        recipes[name] = DeliveryRecipe(
            name=name,
            place=BucketUrl.of(each.to) if is_address(each.to) else Path(os.path.normpath(folder / each.to)),
            rehearsed=folder / name,
            is_picked=each.source == "picked",
            select=() if each.select is None else tuple(each.select),
            template=template,
            kind=each.format,
            quality=each.quality,
            max_side=each.max_side,
            is_srgb=each.profile == "srgb",
            is_stripped=each.metadata == "strip",
        )
    return recipes, problems


def place_problems(
    recipes: Mapping[str, DeliveryRecipe], output_dir: Place, state_dir: Path, *, is_simulated: bool
) -> Iterator[SettingProblem]:
    """Yield which recipes have no place of their own: a delivery withdraws what does not belong to it."""
    owners: dict[Place, str] = {output_dir: "the output directory", state_dir: "the state directory"}
    for name, recipe in recipes.items():
        place = recipe.place_of(is_simulated=is_simulated)
        if place in owners:
            yield ("deliver", name, "to"), f"deliver.{name}.to is {owners[place]}", "name a directory of its own"
        owners.setdefault(place, f"that of {name}")
