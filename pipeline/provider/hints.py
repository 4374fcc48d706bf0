"""When may we ask again? The delay a server names, wherever it names it.

In: headers, the parsed error and its text. Out: seconds, or None when nothing usable is named. What is malformed,
negative or zero is as good as unsaid. It refuses to know what is done about it.

Sources, all seen in the wild: `Retry-After` in seconds or as a date (read against the server's own `Date`, because
clocks differ), `RetryInfo.retryDelay` ("36.7s"), `ErrorInfo.metadata.quotaResetDelay` ("373.8ms"), "Please retry in
36.7s", "Your quota will reset after 18h31m10s". Several named: the longest counts.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LONGEST_S = 86_400.0  # no quota is longer than a day; a larger number is a mistake and must not lock anyone out
Headers = Sequence[tuple[str, str]]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,12})?(?:[eE]\+?\d{1,2})?")
_STEP = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|s|m|h|d)(?:ec(?:ond)?s?|in(?:ute)?s?|ours?|ays?)?(?![a-z])")
_SENTENCE = re.compile(
    r"(?:retry|again|resets?|wait)\s+(?:in|after|for)?\s*"
    r"((?:\d{1,12}(?:\.\d{1,12})?\s*(?:ms|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:ours?)?|d(?:ays?)?)(?![a-z])[\s,]*)+)",
    re.IGNORECASE,
)


def delay(headers: Headers, details: Iterable[object], message: str, *, now: datetime) -> float | None:
    """Return the longest delay named, in seconds, at most a day; None when none is named.

    now: used for dates when the answer carries no `Date` of its own.
    """
    named = [
        *_retry_after(headers, server_time(headers, now)),
        *_in_details(details),
        *(duration(found[1]) for found in _SENTENCE.finditer(message[:10_000])),
    ]
    usable = [seconds for seconds in named if seconds is not None and seconds > 0]
    return min(max(usable), LONGEST_S) if usable else None


def server_time(headers: Headers, now: datetime) -> datetime:
    """Return the server's idea of the present, by its `Date` header; else `now`."""
    return next((date for name, value in headers if name == "date" and (date := _date(value)) is not None), now)


def until_pacific_midnight(now: datetime) -> float:
    """Return the seconds until per-day quotas start anew, which is midnight in Los Angeles."""
    try:
        pacific: ZoneInfo | timezone = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:  # a system without time zone data: an hour late in summer is safe
        pacific = timezone(timedelta(hours=-8))
    there = now.astimezone(pacific)
    midnight = (there + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight.astimezone(UTC) - now).total_seconds()


def duration(text: str) -> float | None:
    """Read `36.7s`, `373.8ms`, `18h31m10s`, `2 minutes`; None when it is not a duration."""
    steps = list(_STEP.finditer(text.strip().lower()))
    return sum(float(step[1]) * _UNITS[step[2]] for step in steps) if steps else None


def _retry_after(headers: Headers, present: datetime) -> Iterator[float | None]:
    for value in (value.strip() for name, value in headers if name == "retry-after"):
        date = _date(value)
        if date is not None:
            yield (date - present).total_seconds()
        else:
            yield from (float(part) for part in map(str.strip, value.split(",")) if _NUMBER.fullmatch(part))


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


def _in_details(details: Iterable[object]) -> Iterator[float | None]:
    for detail in details:
        if isinstance(detail, Mapping):
            metadata = detail.get("metadata")
            inner = metadata.get("quotaResetDelay") if isinstance(metadata, Mapping) else None
            for text in (detail.get("retryDelay"), detail.get("retry_delay"), inner):
                if isinstance(text, str) and len(text) < 64 and not text.lstrip().startswith("-"):
                    yield duration(text)
