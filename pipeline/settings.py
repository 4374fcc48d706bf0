"""What a person may set, with every default, and the days and months that budgets count by.

The settings are types only: `manifest` makes them from YAML, flags replace them.

A day is a span of real time, so that a budget counts each midnight once. It begins at the first moment whose local date
is that day or a later one. So a midnight that occurs twice (clocks go back over it: America/Havana, Atlantic/Azores)
begins one day, one that is skipped (clocks go forward over it) begins it when the clocks have moved on, and a day that
a zone leaves out (Pacific/Apia, 2011-12-30) is empty. Spans of one kind follow each other without gap or overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Final


class Kind(StrEnum):
    """Whose API is asked. All speak the same wire."""

    COMETAPI = "cometapi"
    GOOGLE = "google"
    SIMULATOR = "simulator"


KEY_NAMES: Final[Mapping[Kind, Sequence[str]]] = {  # environment variables, where `api_key_env` names none
    Kind.COMETAPI: ("COMETAPI_KEY",),
    Kind.GOOGLE: ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    Kind.SIMULATOR: (),
}


DEFAULT_MODEL: Final = "gemini-nano-banana-2.1"  # where a person names none
FLEX_TIMEOUT_S: Final = 1200.0  # instead of `timeout_s` where a job is of `tier: flex`: answers take 1 to 15 minutes
FORMER_DEFAULTS: Final = frozenset({"gemini-2.5-flash-image"})  # their images are not bought again


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """Where requests go, and the name of the API key."""

    kind: Kind = Kind.COMETAPI
    model: str = DEFAULT_MODEL
    is_default_model: bool = True  # nobody wrote it
    vendor: Kind = Kind.COMETAPI  # whose models and prices are meant: the kind, or the one that a rehearsal stands for
    base_url: str | None = None  # None: the kind's own
    api_key_env: str | None = None  # None: the kind's own
    timeout_s: float = 300.0  # one attempt, whole exchange; see FLEX_TIMEOUT_S
    profile: Path | None = None  # the embedded simulator's


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Ceilings in micro-dollars; None means no ceiling."""

    run: int | None = None
    day: int | None = None
    month: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOn:
    """When to stop a run whose tasks fail for good. `failure_rate` (0 to 1) is judged from `after` tasks on."""

    consecutive_failures: int | None = None
    failure_rate: float | None = None
    after: int = 25


SPARE_FILES: Final = 96  # descriptors for the ledger, writers and libraries, beside one for each request in flight


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings of one run."""

    concurrency: int = 8  # ceiling of requests in flight
    start: int | None = None  # slow start begins here, after the canary; None: at 32, or at the ceiling below that
    adaptive: bool = True
    requests_per_minute: float | None = None
    budget: Budget = field(default_factory=Budget)
    tz: str = "UTC"  # in which a budget's day and month begin
    max_tasks: int | None = None
    max_duration_s: float | None = None
    stop_on: StopOn = field(default_factory=StopOn)
    memory_bytes: int = 128 * 2**20  # sum of bodies in memory
    max_body_bytes: int = 64 * 2**20  # one body, after decompression


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often one task may be asked. `wait_*` are base and cap of transient backoff."""

    attempts: int = 5
    wait_initial_s: float = 1.0
    wait_max_s: float = 60.0
    unknown: int = 1  # repeats when the outcome of a paid request is unknown


METRICS_SUFFIX = ".prom"  # of the only files that metrics may replace; the collector reads no others


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is notified of a run; None: nobody. URLs may hold secrets: they are never logged."""

    webhook: str | None = field(default=None, repr=False)  # gets the run's summary as JSON
    ping: str | None = field(default=None, repr=False)  # a dead man's switch
    prometheus: Path | None = None  # a text file for a node exporter


# Checks of images that came, by their names in the manifest.
BLANK: Final = "blank"
ASPECT: Final = "aspect"
MIN_SIDE: Final = "min_side"
SAME_AS_INPUT: Final = "same_as_input"
TWIN: Final = "twin"
CHECKS: Final = (BLANK, ASPECT, MIN_SIDE, SAME_AS_INPUT, TWIN)


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` up to, not including, `end`; both aware UTC. `label` is its first date."""

    label: date
    start: datetime
    end: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end


def zone_of(name: str) -> tzinfo:
    """Return a time zone; UTC also where a bare container has no time zone data."""
    from zoneinfo import ZoneInfo  # late, as below: 10 ms, and a start that finds the lock taken needs no zone

    return UTC if name == "UTC" else ZoneInfo(name)


def quota_zone() -> tzinfo:
    """Return the zone in which the provider's quotas per day begin: https://ai.google.dev/gemini-api/docs/rate-limits"""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        return timezone(timedelta(hours=-8))  # no time zone data here: in summer an hour late, which is the safe side


def next_midnight(now: datetime, zone: tzinfo) -> datetime:
    """Return the first moment of tomorrow in `zone`, in UTC."""
    return day_of(now, zone).end


def day_of(moment: datetime, zone: tzinfo) -> Span:
    """Return the day that a moment belongs to."""
    day = moment.astimezone(zone).date()
    if _midnight(day + timedelta(days=1), zone) <= moment.astimezone(UTC):
        day += timedelta(days=1)  # the clocks went back over midnight: the new day has begun all the same
    return Span(day, _midnight(day, zone), _midnight(day + timedelta(days=1), zone))


def month_of(moment: datetime, zone: tzinfo) -> Span:
    """Return the month that a moment belongs to: the one of its day."""
    first = day_of(moment, zone).label.replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return Span(first, _midnight(first, zone), _midnight(following, zone))


def _midnight(day: date, zone: tzinfo) -> datetime:
    """Return the first moment of `day`, in UTC.

    `fold=0` is the first of two midnights, and one that never comes is read by the offset before the gap: the moment at
    which the clocks move on (https://peps.python.org/pep-0495/). No zone has moved them on across midnight since 1990.
    """
    return datetime.combine(day, time(), zone).astimezone(UTC)
