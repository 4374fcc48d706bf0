"""Connections that carry one request after another (H75): when they do, and what is known when one is lost."""

import asyncio
import gc
import random
import socket
import ssl
import struct
import tracemalloc

import aiohttp.connector
import pytest
import trustme

from pipeline.model import Billed, Failure, Fault, Reply
from pipeline.provider import connections
from pipeline.provider.connections import WORTH_IT_BYTES
from pipeline.provider.transport import Patience

SMALL, LARGE = b"{}", random.Random(7).randbytes(3_000_000)
SIZES = [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="read-in-place")]
EXTRA = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 5\r\n\r\nstale"


@pytest.fixture(scope="module")
def tls():
    """Contexts of a server and of a client that trusts it."""
    authority, server, client = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("body", SIZES)
async def test_a_connection_carries_the_next_request(liar, make_client, task, body):
    liar.keeps(*[liar.http(200, body)] * 3)
    async with make_client(liar.url) as client:
        replies = [await client.send(task) for _ in range(3)]
    assert [reply.body for reply in replies] == [body] * 3
    assert liar.connections == 1


@pytest.mark.parametrize("body", SIZES)
async def test_a_connection_with_tls_carries_the_next_request(serve, make_client, task, tls, body):
    server, client_tls = tls
    async with serve(server) as liar:
        liar.keeps(*[liar.http(200, body)] * 3)
        async with make_client(liar.url, tls=client_tls) as client:
            replies = [await client.send(task) for _ in range(3)]
    assert [reply.body for reply in replies] == [body] * 3
    assert liar.connections == 1


@pytest.mark.parametrize("body", SIZES)
async def test_a_connection_that_its_server_has_ended_with_tls_is_not_used_again(serve, make_client, task, tls, body):
    server, client_tls = tls
    async with serve(server) as liar:
        liar.says(liar.http(200, body))
        async with make_client(liar.url, tls=client_tls) as client:
            replies = [await client.send(task) for _ in range(4)]
    assert [getattr(reply, "reason", "") for reply in replies] == [""] * 4
    assert liar.connections == 4


@pytest.mark.parametrize(("idle_s", "connections"), [(1.4, 1), (1.6, 2)])
async def test_a_connection_is_used_again_within_a_second_and_a_half(
    liar, make_client, task, monkeypatch, idle_s, connections
):
    liar.keeps(*[liar.http(200, SMALL)] * 2)
    async with make_client(liar.url) as client:
        await client.send(task)
        now = aiohttp.connector.monotonic()
        monkeypatch.setattr(aiohttp.connector, "monotonic", lambda: now + idle_s)
        assert isinstance(await client.send(task), Reply)
    assert liar.connections == connections


@pytest.mark.parametrize("body", SIZES)
@pytest.mark.parametrize(
    ("kept", "connections"), [("timeout=1, max=100", 2), ("timeout=0", 2), ("timeout=5", 1), ("max=100", 1)]
)
async def test_a_connection_that_its_server_keeps_for_a_moment_is_not_used_again(
    liar, make_client, task, body, kept, connections
):
    liar.keeps(*[liar.http(200, body, headers={"Keep-Alive": kept})] * 2)
    async with make_client(liar.url) as client:
        replies = [await client.send(task) for _ in range(2)]
    assert [reply.body for reply in replies] == [body] * 2
    assert liar.connections == connections


@pytest.mark.parametrize("body", SIZES)
@pytest.mark.parametrize("is_reset", [False, True], ids=["closes", "resets"])
async def test_a_loss_at_the_moment_of_reuse_may_have_been_billed_and_is_not_repeated(
    liar, other_liar, make_client, task, body, is_reset
):
    """Two servers: one keeps what it said it would, the other one closes as it is asked again."""

    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.write(liar.http(200, body))
        await liar.take(reader)
        if is_reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    liar.act = act
    other_liar.keeps(*[other_liar.http(200, body)] * 2)
    async with make_client(liar.url) as client, make_client(other_liar.url) as other:
        assert isinstance(await client.send(task), Reply)
        lost = await client.send(task)
        kept = [await other.send(task) for _ in range(2)]
    assert isinstance(lost, Failure)
    assert (lost.fault, lost.billed) == (Fault.SILENCE, Billed.MAYBE)
    assert (liar.connections, len(liar.heads)) == (1, 2)  # one request each
    assert all(isinstance(reply, Reply) for reply in kept)
    assert (other_liar.connections, len(other_liar.heads)) == (1, 2)


class Peer:
    """A server whose side of a connection this test holds, to close it while the event loop does not look."""

    def __init__(self, *, backlog: int = 10) -> None:
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(backlog)
        self.listener.settimeout(3)
        self.address = self.listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.sockets = [self.listener]

    def answer(self, answer: bytes) -> socket.socket:
        """Accept a connection, take a request, answer it. For a thread."""
        accepted, _ = self.listener.accept()
        accepted.settimeout(3)
        self.sockets.append(accepted)
        received = b""
        while b"\r\n\r\n" not in received:
            received += accepted.recv(65536)
        accepted.sendall(answer)
        return accepted

    async def asked(self, client, task, answer: bytes):
        """Return what the client makes of `answer`, and this side of its connection."""
        answering = asyncio.get_running_loop().run_in_executor(None, self.answer, answer)
        reply = await client.send(task)
        return reply, await answering


@pytest.fixture
def peer():
    peer = Peer(backlog=0)
    yield peer
    for one in peer.sockets:
        one.close()


@pytest.mark.parametrize("body", SIZES)
async def test_a_connection_that_was_closed_meanwhile_is_not_used(liar, peer, make_client, task, body):
    async with make_client(peer.url) as client:
        _, connection = await peer.asked(client, task, liar.http(200, body))
        connection.close()  # the event loop has no turn until the next request
        reply, _ = await peer.asked(client, task, liar.http(200, b"[]"))
    assert isinstance(reply, Reply)
    assert reply.body == b"[]"


@pytest.mark.parametrize("turns", [0, 20], ids=["unread", "read"])
@pytest.mark.parametrize("body", SIZES)
async def test_what_a_server_says_unasked_is_not_the_next_answer(liar, peer, make_client, task, body, turns):
    async with make_client(peer.url) as client:
        _, connection = await peer.asked(client, task, liar.http(200, body))
        connection.sendall(EXTRA)
        for _ in range(turns):
            await asyncio.sleep(0)
        reply, _ = await peer.asked(client, task, liar.http(200, b"[]"))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"[]")


@pytest.mark.parametrize("body", SIZES)
async def test_an_answer_behind_the_answer_is_not_the_next_one(liar, make_client, task, body):
    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.write(liar.http(200, body) + (EXTRA if liar.connections == 1 else b""))
        await writer.drain()
        await liar.release.wait()

    liar.act = act
    async with make_client(liar.url) as client:
        replies = [await client.send(task) for _ in range(2)]
        liar.release.set()
    assert [(reply.status, reply.body) for reply in replies] == [(200, body)] * 2
    assert liar.connections == 2


async def test_a_request_that_found_no_new_connection_for_a_closed_one_was_not_sent(liar, peer, make_client, task):
    async with make_client(peer.url, timeout_s=0.3) as client:
        _, connection = await peer.asked(client, task, liar.http(200, SMALL))
        for _ in range(3):  # nobody accepts, and the backlog is full
            peer.sockets.append(waiting := socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(peer.address)
        connection.close()
        result = await client.send(task)
    assert isinstance(result, Failure)
    assert (result.fault, result.billed) == (Fault.UNREACHABLE, Billed.NO)


async def test_a_connection_whose_request_did_not_leave_whole_is_not_used_again(liar, make_client, make_task):
    """The server refuses while the request is on its way."""

    async def act(liar, reader, writer):
        liar.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(liar.http(413, SMALL))
        await writer.drain()
        await liar.release.wait()

    liar.act = act
    async with make_client(liar.url) as client:
        replies = [await client.send(make_task(prompt="x" * 30_000_000)) for _ in range(2)]
        liar.release.set()
    assert [reply.status for reply in replies] == [413, 413]
    assert (liar.connections, len(liar.heads)) == (2, 2)


async def test_a_body_that_was_given_up_takes_its_connection_along(liar, make_client, task):
    liar.then_hangs(liar.http(200, LARGE)[: 2 * WORTH_IT_BYTES])
    async with make_client(liar.url) as client:
        assert (await client.send(task)).cut is not None
        liar.keeps(liar.http(200, LARGE))
        again = await client.send(task)
    assert again.body == LARGE
    assert liar.connections == 2


async def test_open_connections_do_not_keep_the_bodies_they_brought(serve, make_client, task, tls):
    server, client_tls = tls
    async with serve(server) as liar, make_client(liar.url, tls=client_tls) as client:
        liar.keeps(*[liar.http(200, LARGE)] * 9)
        tracemalloc.start()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(client.send(task))
            gc.collect()
            kept = [trace.size for trace in tracemalloc.take_snapshot().traces if trace.size > len(LARGE) // 2]
        finally:
            tracemalloc.stop()
        assert isinstance(await client.send(task), Reply)
    assert liar.connections > 1
    assert kept == []


async def test_a_request_takes_a_connection_that_comes_free_before_its_turn(liar, make_client, task, monkeypatch):
    monkeypatch.setattr(connections, "APART_S", 0.3)
    liar.keeps(*[liar.http(200, SMALL)] * 2)
    async with make_client(liar.url) as client, asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(client.send(task))
    assert (liar.connections, len(liar.heads)) == (1, 2)


async def test_the_wait_for_a_turn_is_not_counted_as_connecting(liar, make_client, task, monkeypatch):
    monkeypatch.setattr(connections, "APART_S", 0.2)
    liar.says(liar.http(200, SMALL))
    hasty = Patience(connect_s=0.1)
    async with make_client(liar.url, patience=hasty) as client, asyncio.TaskGroup() as group:
        asking = [group.create_task(client.send(task)) for _ in range(3)]
    assert all(isinstance(each.result(), Reply) for each in asking)
    assert liar.connections == 3


async def test_a_request_that_had_no_turn_in_time_was_not_sent(liar, make_client, task, monkeypatch):
    monkeypatch.setattr(connections, "APART_S", 30.0)
    async with make_client(liar.url, timeout_s=0.1) as client:
        result = await client.send(task)
    assert isinstance(result, Failure)
    assert (result.fault, result.billed, liar.connections) == (Fault.UNREACHABLE, Billed.NO, 0)
