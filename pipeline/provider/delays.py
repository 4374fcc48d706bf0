"""Reads the delays that servers name: in headers, details and sentences, whatever they are about. Pure functions.

Not part of `errors`, which says what an answer means: a delay counts whatever that is.

Seen in the wild: `Retry-After` in seconds or as a date (read against the server's own `Date`, because clocks differ),
against the standard as `1m30s` (anomalyco/opencode#48185) or as Unix time (openclaw/clawhub#407),
`RetryInfo.retryDelay` ("36.7s"), `ErrorInfo.metadata.quotaResetDelay` ("373.8ms"), "Please retry in 36.7s", "Your quota
will reset after 18h31m10s". Several named: the longest counts. One that is malformed, negative or zero is ignored.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline.text import UNITS_S

LONGEST_S = 86_400.0  # no quota is longer than a day; a larger number is a mistake and must not lock anyone out
Headers = Sequence[tuple[str, str]]
Json = Mapping[str, object]

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE]\+?\d{1,2})?")  # of any length: what is too long counts as the longest delay
_TIME = r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?)(?![a-z])"
_STEP = re.compile(_TIME)
_SENTENCE = re.compile(
    r"(?:available in|(?:retry|again|resets?|wait)[\s_-]+(?:in|after|for)?)[\s:=]*"
    r"(?:about\s+|approximately\s+|around\s+|~\s*)?"
    rf"((?:{_TIME}(?:[\s,]|and\b)*)+)",
    re.IGNORECASE,
)


def delay(headers: Headers, details: Iterable[Json], message: str, *, now: datetime) -> float | None:
    """Return the longest delay named, in seconds, at most a day; None when none is named.

    now: used for dates when the answer carries no `Date` of its own.
    """
    named = [
        *_retry_after(headers, server_time(headers, now)),
        *_in_details(details),
        *(parse_delay(found[1]) for found in _SENTENCE.finditer(message[:10_000])),
    ]
    usable = [seconds for seconds in named if seconds is not None and seconds > 0]
    return min(max(usable), LONGEST_S) if usable else None


def server_time(headers: Headers, now: datetime) -> datetime:
    """Return the server's idea of the present, by its `Date` header; else `now`."""
    return next((date for name, value in headers if name == "date" and (date := _date(value)) is not None), now)


def parse_delay(text: str) -> float | None:
    """Read `36.7s`, `373.8ms`, `18h31m10s`, `2 minutes`; None when it is not a duration."""
    steps = [] if text.lstrip().startswith("-") else list(_STEP.finditer(text.lower()))
    return sum(float(step[1]) * UNITS_S["ms" if step[2] == "ms" else step[2][0]] for step in steps) if steps else None


def _retry_after(headers: Headers, present: datetime) -> Iterator[float | None]:
    for value in (value.strip() for name, value in headers if name == "retry-after"):
        date = _date(value)
        if date is not None:
            yield (date - present).total_seconds()
        else:
            yield from (_after(part.strip(), present.timestamp()) for part in value.split(","))


def _after(text: str, present_s: float) -> float | None:
    if _NUMBER.fullmatch(text) is None:
        return parse_delay(text)
    seconds = float(text)
    return seconds - present_s if abs(seconds - present_s) <= LONGEST_S else seconds  # Unix time


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


def _in_details(details: Iterable[Json]) -> Iterator[float | None]:
    for detail in details:
        metadata = detail.get("metadata")
        inner = metadata.get("quotaResetDelay") if isinstance(metadata, Mapping) else None
        for text in (detail.get("retryDelay"), detail.get("retry_delay"), inner):
            if isinstance(text, str) and len(text) < 64:
                yield parse_delay(text)
