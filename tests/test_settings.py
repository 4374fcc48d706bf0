"""Days and months as spans of real time, in every zone there is."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest

from pipeline.settings import day_of, month_of, zone_of

HOUR = timedelta(hours=1)
YEAR = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
HOURS = [datetime(2026, 1, 1) + n * HOUR for n in range(365 * 24)]  # noqa: DTZ001 - as the clocks on the wall show them


def unlike_zones() -> list[str]:
    """Return one zone of all those whose clocks do the same in this year."""
    unlike = {tuple(map(ZoneInfo(name).utcoffset, HOURS)): name for name in sorted(available_timezones())}
    assert len(unlike) > 50
    return list(unlike.values())


def moments(zone: ZoneInfo, since: datetime, until: datetime, *, every: int = 1) -> list[datetime]:
    """Return the hours around each change of a zone's offset, and of the days elsewhere each, or one of `every`."""
    days = [since + n * 24 * HOUR for n in range((until - since).days + 1)]
    changed = [
        day for day in days if day.astimezone(zone).utcoffset() != (day + 24 * HOUR).astimezone(zone).utcoffset()
    ]
    near = {change + n * HOUR / 2 for change in changed for n in range(-6, 104)}
    return sorted({*days[::every], *near})


@pytest.mark.parametrize("name", ["Pacific/Apia", "America/Havana"])
def test_every_hour_of_a_year_is_in_the_day_it_is_said_to_be_in(name: str) -> None:
    _check_hours(zone_of(name), [YEAR[0] + n * HOUR for n in range(365 * 24)])


def test_spans_follow_each_other_in_every_zone() -> None:
    """Every day and each hour around a change."""
    for zone in map(ZoneInfo, unlike_zones()):
        _check_hours(zone, moments(zone, *YEAR))


@pytest.mark.parametrize("name", ["America/St_Johns", "Pacific/Apia", "Pacific/Kwajalein", "America/Sao_Paulo"])
def test_spans_follow_each_other_through_history(name: str) -> None:
    zone = ZoneInfo(name)
    _check_hours(zone, moments(zone, datetime(1992, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC), every=7))


def _check_hours(zone: object, hours: list[datetime]) -> None:
    """Each moment lies in its day and month; no day comes back once it is over, none begins before the last ended."""
    assert isinstance(zone, ZoneInfo)
    last, last_month = day_of(hours[0], zone), month_of(hours[0], zone)
    for now in hours:
        day, month = day_of(now, zone), month_of(now, zone)
        assert now in day, (zone, now, day)
        assert now in month, (zone, now, month)
        assert day == last or day.start >= last.end, (zone, now)
        assert day.label >= last.label, (zone, now)
        assert month == last_month or month.start == last_month.end, (zone, now)
        assert month.start <= day.start < day.end <= month.end, (zone, now)
        if day != last and (day.label - last.label).days == 1:
            assert day.start == last.end, (zone, now)
        last, last_month = day, month


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("UTC", date(2024, 11, 3), 24),
        ("America/Havana", date(2024, 11, 3), 25),  # 01:00 -> 00:00: its midnight comes twice
        ("America/Havana", date(2024, 3, 10), 23),  # 00:00 -> 01:00: never
        ("Atlantic/Azores", date(2024, 10, 27), 25),
        ("Africa/Cairo", date(2024, 10, 31), 25),  # 24:00 -> 23:00: its last hour comes twice
        ("Europe/Berlin", date(2024, 3, 31), 23),
        ("Pacific/Apia", date(2011, 12, 31), 24),  # the day before was left out
        ("America/St_Johns", date(2010, 11, 7), 25),  # 00:01 -> 23:01: its first minute, then the day before again
    ],
)
def test_a_day_lasts_as_long_as_it_does(name: str, day: date, hours: int) -> None:
    zone = zone_of(name)
    span = day_of(datetime(day.year, day.month, day.day, 12, tzinfo=zone), zone)
    assert (span.label, span.end - span.start) == (day, timedelta(hours=hours))


def test_the_second_of_two_midnights_is_in_the_day_that_the_first_began() -> None:
    zone = zone_of("America/Havana")
    first = datetime(2024, 11, 3, 0, 30, tzinfo=zone)
    assert day_of(first, zone) == day_of(first.replace(fold=1), zone)
    assert day_of(first, zone).start == datetime(2024, 11, 3, 4, tzinfo=UTC)
