"""The sender of this process: judging off the loop, memory given back, and what `abandon` ends and keeps."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from pipeline.model import Answer, Artifact, Attempt, Billed, Failure, Fault, Image, Reply, Task
from pipeline.senders.local import LocalSender
from tests.engine.fakes import artifact, task, unpublished

IMAGE = Image(data=b"png", sha256="0" * 64, mime="image/png", suffix=".png", width=1, height=1)
REPLY = Reply(status=200, headers=(), body=b"", is_first=False, seconds=0.0)
ATTEMPT = Attempt(id=1, number=1, task=task())


class Memory:
    """Counts how often it was given back."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        self.released += 1


@dataclass
class ScriptedClient:
    """Answers with `reply` once `answers` is set, and judges it as `judged`."""

    judged: Answer | Failure = field(default_factory=lambda: Answer(image=IMAGE))
    reply: Reply | Failure = REPLY
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    is_waiting: asyncio.Event = field(default_factory=asyncio.Event)
    thread: int = 0

    async def send(self, task: Task) -> Reply | Failure:
        self.is_waiting.set()
        await self.answers.wait()
        return self.reply

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        self.thread = threading.get_ident()
        return self.judged


@dataclass
class MemoryImages:
    """Keeps images in memory; `result` is what each put ends with."""

    result: Artifact | Failure | Exception = field(default_factory=artifact)
    is_abandoned: bool = False
    bodies: list[bytes] = field(default_factory=list)

    async def put(self, attempt: Attempt, answer: Answer) -> Artifact | Failure:
        await asyncio.sleep(0)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def abandon(self) -> None:
        self.is_abandoned = True

    async def keep_body(self, attempt: Attempt, failure: Failure) -> Failure:
        assert failure.body is not None
        self.bodies.append(failure.body)
        return replace(failure, body=None)


@asynccontextmanager
async def sender_of(client: ScriptedClient, images: MemoryImages) -> AsyncIterator[LocalSender]:
    async with LocalSender(client, images, manifest="m") as sender:
        yield sender


async def test_an_answer_is_judged_off_the_loop() -> None:
    client = ScriptedClient()
    client.answers.set()
    async with sender_of(client, MemoryImages()) as sender:
        assert await sender.send(ATTEMPT) == artifact()
    assert client.thread not in (0, threading.get_ident())


@pytest.mark.parametrize(
    "result", [artifact(), unpublished(Fault.STORAGE), unpublished(Fault.CONFLICT), ZeroDivisionError("a bug")]
)
async def test_the_memory_of_an_image_is_given_back_whatever_becomes_of_it(
    result: Artifact | Failure | Exception,
) -> None:
    """At once: others wait for it, and an error keeps its image until garbage is collected."""
    memory = Memory()
    client = ScriptedClient(judged=Answer(image=IMAGE, hold=memory))
    client.answers.set()
    async with sender_of(client, MemoryImages(result)) as sender:
        if isinstance(result, Exception):
            with pytest.raises(type(result)):
                await sender.send(ATTEMPT)
        else:
            assert await sender.send(ATTEMPT) is result
    assert memory.released == 1


async def test_a_body_without_an_image_is_kept_and_goes_no_further() -> None:
    broken = Failure(fault=Fault.BROKEN, billed=Billed.YES, reason="not JSON", body=b"{oops")
    client, images = ScriptedClient(judged=broken), MemoryImages()
    client.answers.set()
    async with sender_of(client, images) as sender:
        assert await sender.send(ATTEMPT) == replace(broken, body=None)
    assert images.bodies == [b"{oops"]


async def test_P10_abandoning_ends_the_wait_as_maybe_billed() -> None:
    client = ScriptedClient()
    async with sender_of(client, MemoryImages()) as sender:
        sending = asyncio.ensure_future(sender.send(ATTEMPT))
        await client.is_waiting.wait()
        sender.abandon()
        sender.abandon()  # the second signal may come twice
        result = await sending
        assert isinstance(result, Failure)
        assert (result.fault, result.billed, result.code) == (Fault.SILENCE, Billed.MAYBE, "stopped")
        assert isinstance(await sender.send(ATTEMPT), Failure)  # and nothing waits for an answer after it


async def test_P2_abandoning_keeps_an_answer_that_has_arrived() -> None:
    client, images = ScriptedClient(), MemoryImages()
    async with sender_of(client, images) as sender:
        sending = asyncio.ensure_future(sender.send(ATTEMPT))
        await client.is_waiting.wait()
        client.answers.set()
        while client.thread == 0:
            await asyncio.sleep(0)
        sender.abandon()
        assert await sending == artifact()


async def test_a_timeout_inside_the_client_is_a_bug_and_not_a_stop() -> None:
    class Slow(ScriptedClient):
        async def send(self, task: Task) -> Reply | Failure:
            raise TimeoutError

    async with sender_of(Slow(), MemoryImages()) as sender:
        with pytest.raises(TimeoutError):
            await sender.send(ATTEMPT)
