"""Orders to wait: whom they bind, what a clock that was ahead makes of them, and how a person overrules one."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.app import consent, context
from pipeline.app.planning import reading
from pipeline.errors import TryLater
from pipeline.store.resources import StoreSettings
from pipeline.store.rows import Hold
from pipeline.store.store import Store
from tests.cli.conftest import Imgpipe

MUGS = "{mugs: {items: {a: A, b: B}}}"
HOUR = timedelta(hours=1)


def held(path: Path, *, at: datetime, hours: int = 3, provider: str = "simulator", key: str = "") -> None:
    """Write a hold down as a run at this moment would."""
    asyncio.run(_hold(path, at, hours, provider, key))


async def _hold(path: Path, at: datetime, hours: int, provider: str, key: str) -> None:
    manifest = context.prepare(path, context.Flags()).manifest
    store = await Store.open(
        StoreSettings(
            output_dir=manifest.output_dir,
            state_dir=manifest.state_dir,
            manifest=manifest.name,
            is_play_money=True,
            clock=lambda: at,
        )
    )
    await store.hold(at + hours * HOUR, "the quota of the day is used up", run=0, provider=provider, key=key)
    await store.aclose()


def test_a_hold_ends_a_run_with_75_and_now_sends_all_the_same(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(MUGS)
    held(path, at=datetime.now(UTC))
    told = imgpipe("run", path)
    assert told.exit == 75
    assert "the quota of the day is used up" in told.err
    assert "--now" in told.err
    assert "the quota of the day is used up" in imgpipe("status", path).out
    assert imgpipe("run", path, "--now").exit == 0
    assert "quota" not in imgpipe("status", path).out


@pytest.mark.parametrize(
    "owner", [{"provider": "google:example.com"}, {"key": "00000000"}], ids=["another-provider", "another-key"]
)
def test_the_hold_of_somebody_else_binds_nobody_here(imgpipe: Imgpipe, owner: dict[str, str]) -> None:
    path = imgpipe.manifest(MUGS)
    held(path, at=datetime.now(UTC), **owner)
    assert imgpipe("run", path).exit == 0


class OneModel:
    """A ledger in which one model waits."""

    def holds(self) -> list[Hold]:
        now = datetime.now(UTC)
        hold = Hold(provider="", key="", model="dear", set_at=now, not_before=now + HOUR, reason="quota")
        return [hold]


def test_a_hold_of_one_model_leaves_the_others(imgpipe: Imgpipe) -> None:
    setup = context.prepare(imgpipe.manifest(MUGS), context.Flags())
    assert consent.held_models(setup, OneModel(), {"dear", "other"}).keys() == {"dear"}
    with pytest.raises(TryLater):
        consent.held_models(setup, OneModel(), {"dear"})


def test_P11_a_model_that_waits_is_not_asked_beside_others(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {a: {prompt: A, model: gemini-2.5-flash-image}, b: B}}}")
    held(path, at=datetime.now(UTC))
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE hold SET model = 'gemini-2.5-flash-image'")
    assert imgpipe("run", path, "--json").json["attempts"] == 1
    assert [image.stem for image in imgpipe.images()] == ["b"]


def test_a_hold_dated_by_a_clock_that_was_ahead_is_told_and_forgotten(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(MUGS)
    held(path, at=datetime.now(UTC) + timedelta(days=365))
    setup = context.prepare(path, context.Flags())
    with reading(setup) as reader:
        assert consent.lasting_holds(setup, reader) == {}
    told = imgpipe("run", path, "-q")
    assert (told.exit, "the clock was ahead" in told.err) == (0, True)
    with reading(setup) as reader:
        assert reader.holds() == []


def test_a_hold_that_lasts_does_not_outlive_what_was_named(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(MUGS)
    now = datetime.now(UTC)
    held(path, at=now)
    setup = context.prepare(path, context.Flags())
    with reading(setup) as reader:
        assert list(consent.lasting_holds(setup, reader, now=now + 2 * HOUR)) == [""]
        assert consent.lasting_holds(setup, reader, now=now + 4 * HOUR) == {}
