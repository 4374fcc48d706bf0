"""Stages of a run: what is ordered between two of them holds for the rest."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import nullcontext
from pathlib import Path

from pipeline.app.consent import wallet_of
from pipeline.app.context import Flags, prepare
from pipeline.app.planning import reading
from pipeline.app.run import ActiveRun, Signals
from pipeline.app.sending import send
from pipeline.errors import Exit
from pipeline.model import Due
from pipeline.store.parts import Recovery
from tests.engine.fakes import FakeLedger, due


async def test_P10_a_signal_between_two_stages_sends_nothing_more(tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    manifest.write_text("version: 1\nprovider: {kind: simulator}\njobs: {a: {items: {x: A mug}}}\n")
    setup, store = prepare(manifest, Flags()), FakeLedger()
    store.images = None  # type: ignore[attr-defined] # nothing is sent, so nothing is kept
    with Signals(drain_s=0.0, is_listening=False) as signals, reading(setup) as reader:
        run = ActiveRun(
            setup=setup,
            key="simulator",
            store=store,  # type: ignore[arg-type]
            reader=reader,
            signals=signals,
            watch=lambda _started, _gauge: nullcontext(lambda _: None),
            confirm=None,
            recovery=Recovery(),
            number=1,
        )
        run.wallet = wallet_of(setup, reader)

        async def stages() -> AsyncGenerator[Iterable[Due], None]:
            yield []
            assert signals.engine is not None
            signals.engine.halt(Exit.INTERRUPTED, "INT")  # while the second stage is planned
            yield due("job/a", "job/b")

        await send(run, stages())
    assert run.halts.exit is Exit.INTERRUPTED
    assert store.log == []
