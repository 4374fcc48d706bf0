"""Sending through workers that die: what is unknown, what is taken over, when there is nobody left. No cluster."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import pytest

from pipeline.engine.events import Event, WorkerChanged
from pipeline.errors import Exit, InputError, TryLater
from pipeline.model import KEPT, Artifact, Attempt, Billed, Failure, Fault, Usage
from pipeline.senders import cluster, remote
from pipeline.senders.remote import (
    MOST_BYTES,
    NOT_READY,
    Cluster,
    ClusterSender,
    Dispatch,
    Report,
    Sender,
    Worker,
    opened,
    packed,
    refuse_unfit,
    unpacked,
    versions,
)
from tests.engine.fakes import FakeSender, artifact, failure, task

if find_spec("ray") is None:  # its version is compared
    pytest.skip("the extra `ray` is not installed", allow_module_level=True)


class DeathError(Exception):
    """What a call to a dead process raises."""


def attempt(number: int) -> Attempt:
    return Attempt(id=number, number=1, task=task())


@dataclass
class Remote:
    """A method of an actor, called as Ray's are."""

    method: Callable[..., Any]

    def remote(self, *args: object) -> Any:
        return self.method(*args)


@dataclass
class ScriptedActor:
    """A process that may die: every call that waits fails then, and those after it until it is back."""

    node: str = "a"
    result: Failure | None = None  # None: an image
    sent: list[int] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    is_open: bool = False
    opened: int = 0
    comes_back: asyncio.Event = field(default_factory=asyncio.Event)
    _death: "asyncio.Future[None] | None" = None

    def __getattr__(self, name: str) -> Remote:
        return Remote(object.__getattribute__(self, f"_{name}"))

    def die(self) -> None:
        death, self._death, self.is_open = self._death, None, False
        assert death is not None
        death.set_result(None)

    async def _ready(self, order: object) -> Report:
        if self.opened:
            await self.comes_back.wait()
        self.opened += 1
        self.is_open, self._death = True, asyncio.get_running_loop().create_future()
        return Report(node=self.node, versions=versions())

    async def _watch(self) -> None:
        if not self.is_open:
            return
        assert self._death is not None
        await asyncio.wait((self._death,))
        raise DeathError

    async def _send(self, given: Attempt) -> bytes:
        if self._death is None:
            raise DeathError
        if not self.is_open:
            return NOT_READY
        self.sent.append(given.id)
        answered, death = asyncio.ensure_future(self.answers.wait()), self._death
        await asyncio.wait((answered, death), return_when=asyncio.FIRST_COMPLETED)
        answered.cancel()
        if death.done():
            raise DeathError
        return packed(self.result or artifact(f"job/{given.id}"))

    def _abandon(self) -> None:
        self.answers.set()


@dataclass
class Bench:
    """Workers, and what they left in the output by attempt."""

    actors: list[ScriptedActor]
    written: dict[int, Artifact] = field(default_factory=dict)
    heard: list[Event] = field(default_factory=list)
    halts: list[tuple[Exit, str]] = field(default_factory=list)
    looked_for: list[int] = field(default_factory=list)

    async def publish_kept(self, given: Attempt, result: Failure) -> Artifact | Failure:
        return artifact(f"moved/{given.id}")

    async def take_earlier(self, given: Attempt, result: Failure, earlier: Attempt) -> Artifact | Failure:
        return self.written.get(earlier.id, result)

    async def find(self, given: Attempt) -> Artifact | None:
        self.looked_for.append(given.id)
        return self.written.get(given.id)

    @asynccontextmanager
    async def sender(self, patience_s: float = 60.0, head: str | None = None) -> AsyncIterator[ClusterSender]:
        workers = [Worker(number=n, actor=actor) for n, actor in enumerate(self.actors, 1)]
        joined = Cluster(head=head, death=DeathError, dispatch=Dispatch(workers=workers))
        sender = ClusterSender(joined, outputs=self, listen=self.heard.append, patience_s=patience_s)
        sender.halt = lambda code, reason: self.halts.append((code, reason))
        async with opened(sender, None):
            yield sender

    async def lose_the_only_worker(self, sender: ClusterSender) -> None:
        await until(lambda: sender.dispatch.ready_now == 1)
        self.actors[0].die()
        await until(lambda: sender.dispatch.ready_now == 0)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_an_answer_names_its_worker() -> None:
    actor = ScriptedActor(node="berlin")
    actor.answers.set()
    async with Bench([actor]).sender() as sender:
        result = await sender.send(attempt(1))
    assert (result.worker, isinstance(result, Artifact)) == ("1@berlin", True)
    assert sender.dispatch.workers[0].in_flight == set()


async def test_after_a_death_what_was_written_is_taken_over_and_the_rest_is_unknown() -> None:
    bench = Bench([ScriptedActor()], written={1: artifact()})
    async with bench.sender() as sender:
        calls = [asyncio.create_task(sender.send(attempt(number))) for number in (1, 2)]
        await until(lambda: len(bench.actors[0].sent) == 2)
        bench.actors[0].die()
        first, second = await asyncio.gather(*calls)
    assert first == artifact()
    assert isinstance(second, Failure)
    assert (second.fault, second.billed, second.code) == (Fault.SILENCE, Billed.MAYBE, "worker_lost")
    assert sorted(bench.looked_for) == [1, 2]
    lost = [event for event in bench.heard if isinstance(event, WorkerChanged) and event.is_lost]
    assert [(event.worker, event.in_flight) for event in lost] == [("1@a", 2)]


async def test_an_image_that_a_worker_kept_gets_its_name_here() -> None:
    kept = replace(failure(Fault.STORAGE), code=KEPT, billed=Billed.YES)
    bench = Bench([ScriptedActor(result=kept)])
    bench.actors[0].answers.set()
    async with bench.sender() as sender:
        result = await sender.send(attempt(1))
    assert isinstance(result, Artifact)
    assert (result.path, result.worker) == ("moved/1.png", "1@a")


async def test_an_image_in_the_way_that_a_lost_worker_wrote_late_is_taken() -> None:
    bench = Bench([ScriptedActor(result=failure(Fault.CONFLICT))])
    async with bench.sender() as sender:
        first = asyncio.create_task(sender.send(attempt(1)))
        await until(lambda: bench.actors[0].sent == [1])
        bench.actors[0].die()
        assert isinstance(await first, Failure)
        bench.written[1] = artifact("job/late")
        bench.actors[0].answers.set()
        bench.actors[0].comes_back.set()
        second = await sender.send(attempt(2))
    assert isinstance(second, Artifact)
    assert second.path == "job/late.png"


async def test_nothing_is_sent_to_a_worker_before_a_call_of_ready_came_back() -> None:
    bench = Bench([ScriptedActor()])
    async with bench.sender() as sender:
        await bench.lose_the_only_worker(sender)
        call = asyncio.create_task(sender.send(attempt(1)))
        await asyncio.sleep(0)
        assert bench.actors[0].sent == []
        bench.actors[0].answers.set()
        bench.actors[0].comes_back.set()
        assert isinstance(await call, Artifact)
    assert (bench.looked_for, sender.dispatch.lost) == ([], 1)


async def test_a_process_that_was_started_anew_unseen_refuses_and_the_attempt_is_sent_once() -> None:
    bench = Bench([ScriptedActor(), ScriptedActor()])
    bench.actors[1].answers.set()
    async with bench.sender() as sender:
        await until(lambda: sender.dispatch.ready_now == 2)
        bench.actors[0].is_open = False
        assert isinstance(await sender.send(attempt(1)), Artifact)
    assert [actor.sent for actor in bench.actors] == [[], [1]]


async def test_a_process_that_was_started_anew_before_it_was_watched_is_opened_again() -> None:
    actor = ScriptedActor()
    actor.answers.set()
    bench = Bench([actor])

    async def ready_and_dead(order: object) -> Report:
        report = await ScriptedActor._ready(actor, order)
        actor.is_open = actor.opened > 1
        return report

    actor.comes_back.set()
    actor._ready = ready_and_dead  # type: ignore[method-assign]
    async with asyncio.timeout(5), bench.sender() as sender:
        assert isinstance(await sender.send(attempt(1)), Artifact)
    assert (actor.sent, actor.opened, sender.dispatch.lost) == ([1], 2, 1)


async def test_without_any_worker_for_long_the_run_is_told_to_stop_and_nothing_was_sent() -> None:
    bench = Bench([ScriptedActor()])
    async with bench.sender(patience_s=0.01) as sender:
        await bench.lose_the_only_worker(sender)
        result = await sender.send(attempt(1))
    assert isinstance(result, Failure)
    assert result.billed is Billed.NO
    assert [code for code, _ in bench.halts] == [Exit.TRY_LATER]


async def test_a_head_that_is_gone_stops_the_run_while_answers_still_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute Ray ends this process and its workers: what was in flight was unknown, and the exit code 1."""
    monkeypatch.setattr(remote, "HEAD_S", 0.01)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    bench = Bench([actor := ScriptedActor()])
    async with bench.sender(head=f"{host}:{port}") as sender:
        await until(lambda: sender.dispatch.ready_now == 1)
        server.close()
        sending = asyncio.create_task(sender.send(attempt(1)))
        await until(lambda: bench.halts)
        actor.answers.set()
        assert isinstance(await sending, Artifact)
    assert bench.halts == [(Exit.TRY_LATER, f"the head of the cluster at {host}:{port} does not answer")]


async def test_what_was_never_given_to_a_worker_is_not_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "GRACE_S", 0.01)
    bench = Bench([ScriptedActor()])
    async with bench.sender() as sender:
        await bench.lose_the_only_worker(sender)
        call = asyncio.create_task(sender.send(attempt(1)))
        await asyncio.sleep(0)
        sender.abandon()
        result = await call
    assert isinstance(result, Failure)
    assert (result.billed, bench.halts) == (Billed.NO, [])


async def test_abandon_waits_a_moment_for_a_worker_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "GRACE_S", 0.01)
    bench = Bench([ScriptedActor()])
    async with bench.sender() as sender:
        call = asyncio.create_task(sender.send(attempt(1)))
        await until(lambda: bench.actors[0].sent == [1])
        bench.actors[0]._abandon = lambda: None  # type: ignore[method-assign]  # a node that is frozen
        sender.abandon()
        result = await call
    assert isinstance(result, Failure)
    assert (result.billed, sender.dispatch.lost) == (Billed.MAYBE, 0)


def report(**changes: Any) -> Report:
    return Report(**{"node": "berlin", "versions": versions(), **changes})


@pytest.mark.parametrize(
    ("unfit", "told"),
    [
        (report(problem="no API key: COMETAPI_KEY is not set"), "node berlin: no API key"),
        (report(versions={**versions(), "Ray": "1.0"}), "node berlin: it has Ray 1.0, here"),
        (report(versions={**versions(), "imgpipe": "0"}), "install the same versions everywhere"),
    ],
    ids=["no-key", "other-ray", "other-imgpipe"],
)
def test_a_worker_that_cannot_send_is_named_with_what_to_do(unfit: Report, told: str) -> None:
    with pytest.raises(InputError, match=told):
        refuse_unfit([report(), unfit])


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ":6379", "http://head:6379"])
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="write local, auto or HOST:PORT"):
        cluster.check_address(address)


def test_a_result_is_the_same_on_both_sides() -> None:
    made = artifact(usage=Usage(prompt_tokens=1, image_tokens=2, text_tokens=3), notes=("a",), flags={"blank": "b"})
    assert unpacked(packed(made)) == made
    assert unpacked(packed(made)).usage == made.usage  # type: ignore[union-attr]
    assert unpacked(packed(failure(Fault.QUOTA, 3.0))) == failure(Fault.QUOTA, 3.0)


def test_a_result_may_have_a_servers_lone_surrogates() -> None:
    paid = replace(failure(Fault.NO_IMAGE), billed=Billed.YES, reason="half an emoji: \ud83d", request_id="r\udce9")
    assert unpacked(packed(paid)) == paid


def test_a_result_is_a_small_record_whatever_the_server_said() -> None:
    long = replace(failure(Fault.NO_IMAGE), reason="x" * 10**6)
    assert len(packed(long)) < MOST_BYTES
    assert len(packed(artifact(notes=("x" * 10**6,)))) < MOST_BYTES
    with pytest.raises(ValueError, match="no result"):
        unpacked(b"A" + bytes(MOST_BYTES))


async def test_the_process_of_a_worker_sends_nothing_before_it_is_ready() -> None:
    fake = FakeSender()

    @asynccontextmanager
    async def open_fake(order: object) -> AsyncIterator[FakeSender]:
        yield fake

    sender = Sender(open_fake, lambda _order, _probe: "")
    assert (await sender.send(attempt(1)), fake.sent) == (NOT_READY, [])
    await sender.watch()  # returns: nothing was opened here
    await sender.ready(None)
    assert unpacked(await sender.send(attempt(1))) == artifact()


async def test_a_ray_that_does_not_start_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: how it fails is not tested")

    def init(**_options: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(TryLater, match=r"cannot be reached \(The current node timed out .*nothing was sent"):
        async with cluster.joined("local", cpus=1):
            pass


@pytest.mark.parametrize(
    ("said", "taken", "mode"),
    [
        (None, "token", "token"),
        (None, "disabled", "disabled"),
        ("token", "token", "token"),
        ("disabled", "token", None),
    ],
    ids=["token", "open", "said", "other"],
)
def test_a_cluster_is_joined_in_the_mode_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, said: str | None, taken: str, mode: str | None
) -> None:
    """Ray's own rule for a mode that nobody set differs between `ray start`, `ray.init` and a plain client."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if said is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", said)

    def refusal(_address: str, environ: Mapping[str, str]) -> str:
        return "" if environ["RAY_AUTH_MODE"] == taken else "ray.exceptions.AuthenticationError: InvalidAuthToken"

    monkeypatch.setattr(cluster, "_refusal", refusal)
    with cluster._environment("head:6379"):
        if mode is None:
            with pytest.raises(InputError, match="has another token than this machine"):
                cluster._choose_mode("head:6379")
        else:
            cluster._choose_mode("head:6379")
            assert os.environ["RAY_AUTH_MODE"] == mode
    assert os.environ.get("RAY_AUTH_MODE") == said
