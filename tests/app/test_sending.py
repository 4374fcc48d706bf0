"""Stages of a run: what is ordered between two of them holds for the rest."""

import resource
from collections.abc import AsyncGenerator, Iterable
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.app.consent import wallet_of
from pipeline.app.context import Flags, Setup, prepare
from pipeline.app.planning import reading
from pipeline.app.run import ActiveRun, Signals
from pipeline.app.sending import fit_descriptors, keep_to_descriptors, send
from pipeline.errors import Exit
from pipeline.model import Due
from pipeline.settings import Limits
from pipeline.store.parts import Recovery
from pipeline.store.reader import LedgerReader
from tests.engine.fakes import FakeLedger, due


def active_run(setup: Setup, reader: LedgerReader, signals: Signals, store: FakeLedger) -> ActiveRun:
    return ActiveRun(
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


async def test_P10_a_signal_between_two_stages_sends_nothing_more(tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    manifest.write_text("version: 1\nprovider: {kind: simulator}\njobs: {a: {items: {x: A mug}}}\n")
    setup, store = prepare(manifest, Flags()), FakeLedger()
    store.images = None  # type: ignore[attr-defined] # nothing is sent, so nothing is kept
    with Signals(drain_s=None) as signals, reading(setup) as reader:
        run = active_run(setup, reader, signals, store)
        run.wallet = wallet_of(setup, reader)

        async def stages() -> AsyncGenerator[Iterable[Due], None]:
            yield []
            assert signals.engine is not None
            signals.engine.halt(Exit.INTERRUPTED, "INT")  # while the second stage is planned
            yield due("job/a", "job/b")

        await send(run, stages())
    assert run.halts.exit is Exit.INTERRUPTED
    assert store.log == []


@pytest.mark.parametrize(
    ("soft", "hard", "each", "in_flight", "raised_to"),
    [
        (256, resource.RLIM_INFINITY, 1, 300, 396),  # macOS
        (1024, 4096, 1, 300, None),
        (64, 4096, 2, 300, 696),
        (128, 128, 1, 32, None),
        (64, 64, 1, 1, None),
    ],
)
def test_R26_no_more_are_in_flight_than_there_are_descriptors_for(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, each: int, in_flight: int, raised_to: int | None
) -> None:
    now, raised = [soft, hard], []

    def raise_to(_kind: int, limits: tuple[int, int]) -> None:
        now[:] = limits
        raised.append(limits)

    monkeypatch.setattr("resource.getrlimit", lambda _kind: tuple(now))
    monkeypatch.setattr("resource.setrlimit", raise_to)
    limits = fit_descriptors(Limits(concurrency=300, start=200), each=each)
    assert (limits.concurrency, limits.start) == (in_flight, min(200, in_flight))
    assert [most for most, _ in raised if most != soft] == ([] if raised_to is None else [raised_to])


@pytest.mark.parametrize(
    ("is_embedded", "has_workers", "in_flight"),
    [(True, False, 100), (False, False, 200), (True, True, 200), (False, True, 300)],
)
async def test_descriptors_are_counted_where_the_connections_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_embedded: bool, has_workers: bool, in_flight: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _kind: (296, 296))
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    address = "" if is_embedded else ", base_url: 'http://127.0.0.1:9'"
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(f"provider: {{kind: simulator{address}}}\njobs: {{a: {{items: {{x: A mug}}}}}}\n")
    setup = prepare(manifest, Flags(concurrency=300))
    with Signals(drain_s=None) as signals, reading(setup) as reader:
        run = active_run(setup, reader, signals, FakeLedger())
        run.workers = (object(), object()) if has_workers else None  # type: ignore[assignment]
        keep_to_descriptors(run)
    assert run.setup.limits.concurrency == in_flight
