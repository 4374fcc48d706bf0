"""Days and months of a time zone as spans of real time, so that a budget counts each midnight once.

A day begins at the first moment whose local date is that day or a later one. So a midnight that occurs twice (clocks
go back over it: America/Havana, Atlantic/Azores) begins one day, one that is skipped (clocks go forward over it) begins
it when the clocks have moved on, and a day that a zone leaves out (Pacific/Apia, 2011-12-30) is empty. Spans of one
kind follow each other without gap or overlap. Not part of `settings`, which only declares.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SECOND = timedelta(seconds=1)


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
    return UTC if name == "UTC" else ZoneInfo(name)


def quota_zone() -> tzinfo:
    """Return the zone in which the provider's quotas per day begin: https://ai.google.dev/gemini-api/docs/rate-limits"""
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
    """Return the first moment whose local date is `day` or later, in UTC.

    https://peps.python.org/pep-0495/: `fold=0` is the first of two, and reads a time that never comes by the offset
    before the gap; `fold=1` reads it by the one after.
    """
    first, second = (datetime.combine(day, time(fold=fold), zone).astimezone(UTC) for fold in (0, 1))
    if first <= second:
        return first
    before, after = second, first  # it never comes; the clocks moved on between these two
    while after - before > SECOND:
        middle = before + (after - before) // 2 // SECOND * SECOND
        if middle.astimezone(zone).date() < day:
            before = middle
        else:
            after = middle
    return after
