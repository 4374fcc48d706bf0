"""What a worker proves before anything is sent, and that its order holds no key. No cluster."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.app.context import Flags, prepare
from pipeline.app.workers import PROBE, Probe, WorkerOrder, open_worker, order_of, prove_worker, take_rest
from pipeline.model import InputImage
from pipeline.settings import Limits, ProviderSettings
from pipeline.store.rejected import WORKERS_MARK, apart_dir
from tests.store.conftest import Bench, Reopen, bench, reopen

__all__ = ["bench", "reopen"]  # fixtures
KEY = "sk-canary-7f3a"


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerOrder:
    monkeypatch.setenv("COMETAPI_KEY", KEY)
    for name in ("out", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / f"{PROBE}1").write_text("seen")
    return WorkerOrder(
        provider=ProviderSettings(),
        is_keyless=False,
        limits=Limits(),
        prices={},
        manifest="m",
        folder=tmp_path,
        output_dir=tmp_path / "out",
        state_dir=tmp_path / "state",
        token="t",
        ledger_id="0a1b2c3d",
        is_play_money=False,
        force=False,
    )


def probe(*inputs: InputImage, content: str = "seen") -> Probe:
    return Probe(name=f"{PROBE}1", content=content, inputs=inputs)


def image(path: Path, size_bytes: int = 4) -> InputImage:
    return InputImage(path=str(path), sha256="0" * 64, size_bytes=size_bytes, mtime_ns=0)


def test_a_worker_that_sees_everything_can_send_and_leaves_nothing(order: WorkerOrder, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"1234")
    assert prove_worker(order, probe(image(tmp_path / "photo.jpg"))) == ""
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{PROBE}1"]


@pytest.mark.parametrize(
    ("change", "asked", "told"),
    [
        (lambda order, root: replace(order, output_dir=root / "gone"), probe(), "is not seen here; mount the same"),
        (lambda order, root: order, probe(content="other"), "is another folder here"),
        (lambda order, root: order, probe(image(Path("/gone/photo.jpg"))), "/gone/photo.jpg cannot be seen here"),
        (lambda order, root: order, probe(image(Path(__file__))), "is another file here"),
    ],
    ids=["no-folder", "other-folder", "no-input", "other-input"],
)
def test_a_worker_says_what_it_lacks_and_what_to_do(order, change, asked: Probe, told: str, tmp_path: Path) -> None:
    assert told in prove_worker(change(order, tmp_path), asked)


def test_a_worker_without_a_key_of_its_own_cannot_send(order: WorkerOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMETAPI_KEY")
    assert "COMETAPI_KEY is not set" in prove_worker(order, probe())


def test_an_order_holds_no_key(order: WorkerOrder) -> None:
    assert order.key() == KEY
    assert KEY.encode() not in pickle.dumps(order)


def test_a_state_directory_is_told_from_another_one_under_the_same_path(order: WorkerOrder, tmp_path: Path) -> None:
    assert order.kept_dir == tmp_path / "out/.kept-0a1b2c3d"
    (tmp_path / "state" / WORKERS_MARK).write_text("of another run")
    assert order.kept_dir == tmp_path / "out/.kept-0a1b2c3d"
    (tmp_path / "state" / WORKERS_MARK).write_text("t")
    assert order.kept_dir == tmp_path / "state"


async def test_what_workers_kept_and_cannot_be_had_at_the_end_is_taken_by_the_next_start(
    bench: Bench, reopen: Reopen, caplog: pytest.LogCaptureFixture
) -> None:
    (bench.state / WORKERS_MARK).write_text("t")
    folder = apart_dir(bench.out, bench.store.ledger_id)
    folder.write_text("in the way")
    await take_rest(bench.store, lost=0)  # raises nothing: the run has a summary to show
    assert "the next start looks again" in caplog.text
    folder.unlink()
    name = f"{bench.store.ledger_id}-7-{'0' * 64}.html.facts.json"
    (folder / "rejected").mkdir(parents=True)
    (folder / "rejected" / name).write_text("{}")
    await reopen()
    assert (bench.state / "rejected" / name).exists()
    assert not (bench.state / WORKERS_MARK).exists()


def test_a_worker_finds_the_key_beside_a_manifest_that_was_named_relative_to_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.yaml").write_text("{version: 1, name: m, jobs: {a: {prompt: A cup}}}")
    monkeypatch.chdir(tmp_path)
    assert order_of(prepare(Path("m.yaml"), Flags())).folder == tmp_path


async def test_a_worker_may_open_a_file_for_every_connection_it_may_have(
    order: WorkerOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _kind: (256, 4096))
    monkeypatch.setattr("resource.setrlimit", lambda _kind, limits: raised.append(limits))
    async with open_worker(replace(order, limits=Limits(concurrency=300))):
        assert raised == [(396, 4096)]
