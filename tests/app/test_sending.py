"""Stages of a run: what is ordered between two of them holds for the rest."""

from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

from pipeline.app.context import Flags, prepare
from pipeline.app.sending import SendingRun
from pipeline.app.signals import Stoppable
from pipeline.app.summary import GaugeOf
from pipeline.engine.wallet import Wallet
from pipeline.errors import Exit
from pipeline.plan.plan import Spool
from pipeline.provider.catalogue import PriceList
from pipeline.settings import Budget
from tests.engine.fakes import FakeLedger, due


async def test_P10_a_signal_between_two_stages_sends_nothing_more(tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    manifest.write_text("version: 1\nprovider: {kind: simulator}\njobs: {a: {items: {x: A mug}}}\n")
    wallet, store, attended = Wallet(Budget()), FakeLedger(), list[Stoppable]()

    async def stages() -> AsyncGenerator[Spool, None]:
        with closing(Spool()) as spool:
            yield spool
        attended[-1].halt(Exit.INTERRUPTED, "INT")  # while the second stage is planned
        with closing(Spool()) as spool:
            for each in due("job/a", "job/b"):
                spool.add(each)
            yield spool

    store.images = None  # type: ignore[attr-defined] # nothing is sent, so nothing is kept
    setup = prepare(manifest, Flags())
    crew = SendingRun(
        setup=setup,
        key="simulator",
        store=store,  # type: ignore[arg-type]
        wallet=wallet,
        prices=PriceList(setup.catalogue),
        run=1,
        listen=lambda _: None,
        attend=attended.append,
        view=GaugeOf(wallet, concurrency=8),
        until=None,
        looks=lambda _: {},
    )
    outcome = await crew.work(stages())
    assert outcome.halts.exit is Exit.INTERRUPTED
    assert store.log == []
