"""The keys that bound a run: provider, limits, retry, notify. In: a tree. Out: checked models with their defaults.

Descriptions are what an editor shows. It knows nothing of jobs.
"""

from typing import Any, ClassVar

from pydantic import Field, model_validator

from pipeline.manifest.kinds import (
    Address,
    Attempts,
    Kind,
    Parallel,
    PositiveInt,
    Rate,
    Repeats,
    Url,
    VariableName,
)
from pipeline.manifest.mapping import Model, scalar_as
from pipeline.manifest.scalars import MAX_USD, Duration, Filled, Flag, Path, Percentage, Text, Usd, fault
from pipeline.settings import DEFAULT_MODELS
from pipeline.settings import Kind as KindName


class Provider(Model):
    """Whose API is asked, and which key opens the door."""

    kind: Kind = Field("cometapi", description="cometapi | google | simulator")
    model: Filled | None = Field(
        None,
        description=f"The model of every job that names none; free text. Default {DEFAULT_MODELS[KindName.COMETAPI]}.",
        examples=["gemini-nano-banana-2.1", "gemini-3-pro-image", "gemini-3.1-flash-lite-image"],
    )
    base_url: Url | None = Field(None, description="Where requests go.", examples=["https://api.cometapi.com"])
    api_key_env: VariableName | None = Field(
        None, description="The NAME of the environment variable with the key; never the key.", examples=["COMETAPI_KEY"]
    )
    timeout: Duration | None = Field(
        None,
        description="One attempt, whole exchange. Default 300 s; 20 min where a job is of `tier: flex`.",
        examples=["300s", "5m"],
    )
    profile: Path | None = Field(
        None, description="The simulator's profile: a file, or calm, busy, stormy, quick.", examples=["calm", "busy"]
    )


class Concurrency(Model):
    """Requests in flight."""

    short_schema: ClassVar[dict[str, Any]] = {"type": "integer", "minimum": 1, "maximum": 10_000}
    expand = staticmethod(scalar_as("max"))  # type: ignore[assignment] # same shape, without the class
    start: Parallel | None = Field(
        None,
        description="Where slow start begins, after the first answer; else at 32, or `max` below that.",
        examples=[4],
    )
    max: Parallel = Field(8, description="Ceiling of requests in flight.")
    adaptive: Flag = Field(True, description="Slow down when the server pushes back, speed up when it does not.")

    @model_validator(mode="after")
    def _ordered(self) -> "Concurrency":
        if self.start is not None and self.start > self.max:
            raise fault(f"start ({self.start}) is above max ({self.max})", "lower start or raise max")
        return self


class Budget(Model):
    """Ceilings in USD; a bare number means `run`."""

    short_schema: ClassVar[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": MAX_USD}
    expand = staticmethod(scalar_as("run"))  # type: ignore[assignment] # same shape, without the class
    run: Usd | None = Field(None, description="USD of one run.", examples=[20.0])
    day: Usd | None = Field(None, description="USD of one day in `tz`.", examples=[40.0])
    month: Usd | None = Field(None, description="USD of one month in `tz`.", examples=[500.0])


class StopOn(Model):
    """When to stop a run whose tasks fail for good."""

    consecutive_failures: PositiveInt | None = Field(
        None, description="Tasks in a row that failed, or were paid for without an image (default: 5).", examples=[15]
    )
    failure_rate: Percentage | None = Field(None, description="Share of failed tasks.", examples=["30%"])
    after: PositiveInt = Field(25, description="Tasks after which `failure_rate` is judged.")


class Limits(Model):
    """Ceilings of one run."""

    concurrency: Concurrency | None = Field(None, description="Requests in flight: a number, or start, max, adaptive.")
    requests_per_minute: Rate | None = Field(None, description="Exact over any 60 seconds.", examples=[500])
    budget: Budget | None = Field(None, description="USD: a number for one run, or run, day, month.", examples=[20.0])
    max_tasks: PositiveInt | None = Field(None, description="Tasks of one run.", examples=[100_000])
    max_duration: Duration | None = Field(None, description="Of one run; the rest stays pending.", examples=["50m"])
    stop_on: StopOn | None = Field(None, description="When to stop a run whose tasks fail for good.")
    tz: Text = Field(
        "UTC", description="Time zone in which a budget's day and month begin.", examples=["Europe/Lisbon"]
    )


class Wait(Model):
    """Base and cap of the wait between two attempts."""

    initial: Duration = Field(1.0, description="First wait.", examples=["1s"])
    max: Duration = Field(60.0, description="Longest wait.", examples=["60s"])


class Retry(Model):
    """How often one task may be asked."""

    attempts: Attempts = Field(5, description="Attempts of one task, the first one included.")
    wait: Wait | None = Field(None, description="Wait between attempts.")
    unknown: Repeats = Field(
        1, description="Repeats when the outcome of a paid request is unknown. 0: never pay twice."
    )


class Notify(Model):
    """Who is told when a run ends."""

    webhook: Address | None = Field(
        None,
        description="URL that gets the run's summary as JSON; may use {{ vars.* }}.",
        examples=["https://example.com/hooks/{{ vars.hook }}"],
    )
    ping: Address | None = Field(
        None,
        description="URL of a dead man's switch; may use {{ vars.* }}.",
        examples=["https://example.com/ping/{{ vars.check }}"],
    )
    prometheus: Path | None = Field(
        None, description="Text file for a node exporter.", examples=["/var/lib/x/imgpipe.prom"]
    )
