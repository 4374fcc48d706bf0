"""The keys of provider, limits, retry and notify, and the settings of other packages that they become.

Every mapping of a manifest has the base model here: known keys only, `x-` keys ignored, a short form where there is
one. `schema` adds line and column to errors. Descriptions of fields are what an editor shows. No file is opened.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from pipeline.manifest import fields as f
from pipeline.manifest.fields import shown
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sandbox import Names, Sandbox
from pipeline.manifest.templates import compile_template
from pipeline.manifest.yaml import is_null
from pipeline.settings import DEFAULT_MODEL, FLEX_TIMEOUT_S, Budget, Kind, Limits, ProviderSettings, Retry, StopOn
from pipeline.text import MAX_USD

# Defaults are declared once, in `pipeline.settings`.
_PROVIDER, _LIMITS, _STOP_ON, _RETRY = ProviderSettings(), Limits(), StopOn(), Retry()


class Model(BaseModel):
    """A mapping of known keys. Keys that start with `x-` are ignored; null is as if the key were not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    keeps_nulls: ClassVar[bool] = False
    short_key: ClassVar[str | None] = None  # of the mapping that one value stands for
    short_schema: ClassVar[dict[str, Any] | None] = None  # of that value

    @classmethod
    def expand(cls, value: object) -> object:
        """Turn the short form into the mapping it stands for."""
        return {cls.short_key: value} if cls.short_key is not None and isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, value: object) -> object:
        mapping = cls.expand(value)
        if not isinstance(mapping, dict):
            raise BadValue(f"must be a mapping, this is {shown(value)}", "write `key: value` lines below it")
        known = {key: None if is_null(item) else item for key, item in mapping.items() if not key.startswith("x-")}
        if cls.keeps_nulls:
            return known
        return {key: item for key, item in known.items() if item is not None or key not in cls.model_fields}

    @classmethod
    def or_default(cls, keys: Self | None) -> Self:
        """Return what is written, or the defaults."""
        return cls.model_validate({}) if keys is None else keys

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        schema["patternProperties"] = {"^x-": {}}
        or_null(schema)
        if cls.short_schema is None:
            return schema
        description = schema.pop("description", None)
        return {"anyOf": [cls.short_schema, schema]} | ({"description": description} if description else {})


def or_null(schema: dict[str, Any]) -> None:
    """Let every key that may be left out be null as well: `_tidy` reads it so."""
    for key, value in schema["properties"].items():
        if key not in schema.get("required", ()) and {"type": "null"} not in value.get("anyOf", ()):
            about = {name: value.pop(name) for name in ("description", "default", "examples") if name in value}
            schema["properties"][key] = {"anyOf": [value, {"type": "null"}]} | about


def optional(description: str, *examples: object, default: object = None) -> Any:
    """Declare a key that may be left out, with what editors and the reference say of it."""
    return Field(default, description=description, examples=[*examples] or None)


class ProviderKeys(Model):
    """The API, its model and the name of its key."""

    kind: f.KindKey = optional("cometapi | google | simulator", default=_PROVIDER.kind.value)
    model: f.Filled | None = optional(
        f"The model of every job that names none; free text. Default {_PROVIDER.model}.",
        "gemini-nano-banana-2.1",
        "gemini-3-pro-image",
        "gemini-3.1-flash-lite-image",
    )
    base_url: f.Url | None = optional(
        "Where requests go. Default: the address of the kind.", "https://api.cometapi.com"
    )
    api_key_env: f.VariableName | None = optional(
        "The NAME of the environment variable with the key; never the key. Default: that of the kind.", "COMETAPI_KEY"
    )
    timeout: f.Duration | None = optional(
        f"One attempt, whole exchange. Default {_PROVIDER.timeout_s:g} s; "
        f"{FLEX_TIMEOUT_S / 60:g} min where a job is of `tier: flex`.",
        "300s",
        "5m",
    )
    profile: f.PathText | None = optional(
        "The simulator's profile: a file, or calm, busy, stormy, quick.", "calm", "busy"
    )

    @property
    def vendor(self) -> Kind:
        """Whose models and prices are meant; a manifest of the simulator stands for one of the gateway."""
        return Kind.COMETAPI if self.kind == Kind.SIMULATOR else Kind(self.kind)

    def settings(self, folder: Path, *, simulate: bool, is_flex: bool) -> ProviderSettings:
        """Return whose API is asked. `simulate` makes it the simulator, whatever is written."""
        kind = Kind.SIMULATOR if simulate else Kind(self.kind)
        is_other = simulate or kind.value != self.kind  # then the written address and key are those of another API
        timeout_s = FLEX_TIMEOUT_S if is_flex else _PROVIDER.timeout_s
        return ProviderSettings(
            kind=kind,
            model=DEFAULT_MODEL if self.model is None else self.model,
            is_default_model=self.model is None,
            vendor=self.vendor,
            base_url=None if is_other else self.base_url,
            api_key_env=None if is_other else self.api_key_env,
            timeout_s=timeout_s if self.timeout is None else self.timeout,
            profile=None if self.profile is None else _profile(folder, self.profile),
        )


def _profile(folder: Path, written: str) -> Path:
    """Return a file beside the manifest; a bare word that is none may be a profile that is built in."""
    beside = folder / written
    return beside if beside.exists() or "/" in written or "." in written else Path(written)


class ConcurrencyKeys(Model):
    """Requests in flight."""

    short_schema: ClassVar[dict[str, Any]] = {"type": "integer", "minimum": 1, "maximum": 10_000}
    short_key = "max"
    start: f.Parallel | None = optional(
        "Where slow start begins, after the first answer; else at 32, or `max` below that.", 4
    )
    max: f.Parallel = optional("Ceiling of requests in flight.", default=_LIMITS.concurrency)
    adaptive: f.Flag = optional("Adapt to what the server refuses, below `max`.", default=_LIMITS.adaptive)

    @model_validator(mode="after")
    def _ordered(self) -> "ConcurrencyKeys":
        if self.start is not None and self.start > self.max:
            raise BadValue(f"start ({self.start}) is above max ({self.max})", "lower start or raise max")
        return self


class BudgetKeys(Model):
    """Ceilings of money, in USD; day and month are of all manifests that share a `state_dir`."""

    short_schema: ClassVar[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": MAX_USD}
    short_key = "run"
    run: f.Usd | None = optional("USD of one run.", 20.0)
    day: f.Usd | None = optional("USD of one day in `tz`.", 40.0)
    month: f.Usd | None = optional("USD of one month in `tz`.", 500.0)


class StopOnKeys(Model):
    """When to stop a run whose tasks fail for good."""

    consecutive_failures: f.PositiveInt | None = optional(
        "Tasks in a row that failed, or were paid for without an image. Default 5.", 15
    )
    failure_rate: f.Percentage | None = optional("Share of failed tasks.", "30%")
    after: f.PositiveInt = optional("Tasks after which `failure_rate` is judged.", default=_STOP_ON.after)


class LimitsKeys(Model):
    """Ceilings of one run."""

    concurrency: ConcurrencyKeys | None = optional("Requests in flight: a number, or start, max, adaptive.")
    requests_per_minute: f.Rate | None = optional("Exact over any 60 seconds.", 500)
    budget: BudgetKeys | None = optional("USD: a number for one run, or run, day, month.", 20.0)
    max_tasks: f.PositiveInt | None = optional("Tasks of one run.", 100_000)
    max_duration: f.Duration | None = optional("Of one run; the rest stays pending.", "50m")
    stop_on: StopOnKeys | None = optional("When to stop a run whose tasks fail for good.")
    tz: f.Zone = optional("Time zone in which a budget's day and month begin.", "Europe/Lisbon", default=_LIMITS.tz)

    def settings(self) -> Limits:
        """Return the ceilings of one run."""
        concurrency = ConcurrencyKeys.or_default(self.concurrency)
        return Limits(
            concurrency=concurrency.max,
            start=concurrency.start,
            adaptive=concurrency.adaptive,
            requests_per_minute=self.requests_per_minute,
            budget=Budget(**BudgetKeys.or_default(self.budget).model_dump()),
            tz=self.tz,
            max_tasks=self.max_tasks,
            max_duration_s=self.max_duration,
            stop_on=StopOn(**StopOnKeys.or_default(self.stop_on).model_dump()),
        )


class WaitKeys(Model):
    """Base and cap of the wait between two attempts."""

    initial: f.Duration = optional("First wait.", "1s", default=_RETRY.wait_initial_s)
    max: f.Duration = optional("Longest wait.", "60s", default=_RETRY.wait_max_s)

    @model_validator(mode="after")
    def _ordered(self) -> "WaitKeys":
        if self.initial > self.max:
            raise BadValue("initial is above max", "lower initial or raise max")
        return self


class RetryKeys(Model):
    """How often one task may be asked."""

    attempts: f.Attempts = optional("Attempts of one task, the first one included.", default=_RETRY.attempts)
    wait: WaitKeys | None = optional("Wait between attempts.")
    unknown: f.Repeats = optional(
        "Repeats when the outcome of a paid request is unknown. 0: never pay twice.", default=_RETRY.unknown
    )

    def settings(self) -> Retry:
        """Return how often one task may be asked."""
        wait = WaitKeys.or_default(self.wait)
        return Retry(attempts=self.attempts, wait_initial_s=wait.initial, wait_max_s=wait.max, unknown=self.unknown)


class NotifyKeys(Model):
    """Where runs are reported: webhook, ping, metrics file."""

    webhook: f.Address | None = optional(
        "URL that gets the run's summary as JSON, as Slack, Discord, Mattermost, Google Chat and Teams show it; may use"
        " {{ vars.* }}.",
        "https://example.com/hooks/{{ vars.hook }}",
        "https://ntfy.sh/my-topic?tpl=1&t=%7B%7B.title%7D%7D&m=%7B%7B.text%7D%7D",
    )
    ping: f.Address | None = optional(
        "URL that is asked when a run ends well, with /start behind it when one begins and /fail when one fails, as"
        " healthchecks.io has it; may use {{ vars.* }}.",
        "https://example.com/ping/{{ vars.check }}",
    )
    prometheus: f.MetricsPath | None = optional(
        "Text file for a node exporter, named *.prom; another one for each manifest.", "/var/lib/x/imgpipe.prom"
    )

    def url(self, key: Literal["webhook", "ping"], variables: Mapping[str, str]) -> str | None:
        """Return an address with `{{ vars.* }}` filled in. Raises BadValue, which does not repeat it."""
        written: str | None = getattr(self, key)
        if written is None:
            return None
        return f.check_url(
            compile_template(Sandbox(), written, {"vars": variables}).render({"vars": Names("vars", variables)})
        )
