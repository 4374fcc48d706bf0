"""What the provider's support said of unknown requests is written down: their money moves, and their tasks with it."""

import asyncio
from pathlib import Path

import pytest

from pipeline.app import context
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.store.resources import StoreSettings
from pipeline.store.store import Store
from tests.cli.conftest import Imgpipe

PRICE = 0.04


def lost(imgpipe: Imgpipe) -> Path:
    """Write two requests down and forget them, as a process that is killed does."""
    path = imgpipe.manifest("{mugs: {items: {a: A, b: B}}}")
    asyncio.run(_send(context.prepare(path, context.Flags())))
    return path


async def _send(setup: context.Setup) -> None:
    manifest = setup.manifest
    store = await Store.open(
        StoreSettings(
            output_dir=manifest.output_dir, state_dir=manifest.state_dir, manifest=manifest.name, is_play_money=True
        )
    )
    run = await store.begin_run(manifest_sha256="0" * 64)
    for task in Expansion(manifest, digests=read_digest):
        await store.begin(task, run=run, reserved_microusd=40_000)
    await store.aclose()


def test_free_gives_the_money_back_and_makes_the_task_due(imgpipe: Imgpipe) -> None:
    path = lost(imgpipe)
    ended = imgpipe("settle", path, "mugs/a#1", "--free", "--json")
    assert ended.json["settled"] == [{"task": "mugs/a", "attempt": 1, "price_usd": pytest.approx(PRICE)}]
    status = imgpipe("status", path, "--json").json
    assert (status["tasks"]["pending"], status["tasks"]["unknown"]) == (1, 1)
    assert status["cost_usd"]["unknown"] == pytest.approx(PRICE)
    assert status["cost_usd"]["day"] == 0


def test_billed_counts_as_spent_and_is_not_bought_again_by_itself(imgpipe: Imgpipe) -> None:
    path = lost(imgpipe)
    assert imgpipe("settle", path, "--all", "--billed").exit == 0
    status = imgpipe("status", path, "--json").json
    assert (status["tasks"]["failed"], status["cost_usd"]["unknown"]) == (2, 0)
    assert status["cost_usd"]["day"] == pytest.approx(2 * PRICE)
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert imgpipe("retry", path, "--failed", "--json").json["images"] == 2


def test_an_unknown_name_is_answered_with_the_command_that_lists_the_names(imgpipe: Imgpipe) -> None:
    path = lost(imgpipe)
    assert f"`imgpipe status {path}` lists them" in imgpipe("settle", path, "mugs/z", "--free").err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--all"], "--billed or --free"),
        (["--all", "--free", "--billed"], "--billed or --free"),
        (["--free"], "--all"),
        (["mugs/z", "--free"], "no unknown request is called 'mugs/z'"),
        (["1", "--free"], "2 tasks have an unknown attempt 1"),
    ],
)
def test_what_is_not_clear_changes_nothing(imgpipe: Imgpipe, args: list[str], said: str) -> None:
    path = lost(imgpipe)
    ended = imgpipe("settle", path, *args)
    assert ended.exit == 2
    assert said in ended.err
    assert imgpipe("status", path, "--json").json["cost_usd"]["unknown"] == pytest.approx(2 * PRICE)
