"""Reads the delays that the provider named (holds), and says which of them bind a run now.

A hold belongs to the provider, the key and the model of the request that was refused: another key or another model may
send. Reads only. Not part of `consent`, which is about money.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from pipeline.app.context import Setup
from pipeline.errors import ImgpipeError
from pipeline.store.history import Hold
from pipeline.store.reader import LedgerReader
from pipeline.text import moment

CLOCK_SLACK: Final = timedelta(minutes=5)  # by which a clock may be set back between runs without a word


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose requests a hold binds. `key`: a digest that tells two keys apart and gives neither away."""

    provider: str
    key: str | None  # None: no key is set, so that all of them are meant


def owner_of(setup: Setup) -> Owner:
    """Return whose holds are this run's."""
    address = setup.provider.base_url
    provider = setup.provider.kind.value if address is None else f"{setup.provider.kind}:{urlsplit(address).netloc}"
    try:
        key = hashlib.sha256(f"{provider}\0{setup.key()}".encode()).hexdigest()[:8]
    except ImgpipeError:
        return Owner(provider, None)
    return Owner(provider, key)


def lasting(setup: Setup, reader: LedgerReader, *, now: datetime | None = None) -> Mapping[str, Hold]:
    """Return the holds that bind this provider and key now, by model; "" is every model."""
    now, owner = now or datetime.now(UTC), owner_of(setup)
    return {
        hold.model: hold
        for hold in reader.holds()
        if hold.provider in ("", owner.provider)
        and (not hold.key or owner.key in (None, hold.key))
        and hold.set_at <= now + CLOCK_SLACK
        and now < hold.not_before
    }


def void(reader: LedgerReader, *, now: datetime | None = None) -> Iterator[str]:
    """Say which holds were dated by a clock that was ahead: nobody knows any more when they end."""
    now = now or datetime.now(UTC)
    for hold in reader.holds():
        if hold.set_at > now + CLOCK_SLACK:
            yield (
                f"a hold until {moment(hold.not_before)} does not count: the clock was ahead when it was written"
                f" ({moment(hold.set_at)}); if the provider still wants it, it says so again ({hold.reason})"
            )


def describe(hold: Hold) -> str:
    """Say what was asked for, by whom and why."""
    model = f", for {hold.model}" if hold.model else ""
    return f"the provider asked to wait until {moment(hold.not_before)}{model} ({hold.reason})"
