"""Large bodies, which are read past aiohttp: the same answers and the same failures as small ones."""

import asyncio
import gzip
import random
import re
import socket
import ssl
import struct
import threading
import time

import pytest
import trustme
import uvloop

from pipeline.model import Billed, Failure, Fault, Reply
from pipeline.provider import connections
from pipeline.provider.byte_budget import CONNECTION_BYTES
from pipeline.provider.connections import CHUNK_BYTES, READ_BYTES, WORTH_IT_BYTES, BodyReader, ReadLimit
from pipeline.provider.transport import PATIENCE

SIZE = 3_000_000
BODY = random.Random(7).randbytes(SIZE)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


async def sent(client, task):
    """Return the answer, or what it means that its end did not come."""
    result = await client.send(task)
    return client.read(result, task) if isinstance(result, Reply) and result.cut is not None else result


async def asked(make_client, liar, task, **options):
    async with make_client(liar.url, **options) as client:
        return await sent(client, task)


def is_straight(reply: Reply) -> bool:
    """Say whether the body was read past aiohttp, which gives `bytes`."""
    return isinstance(reply.body, bytearray)


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([], id="in-one"),
        pytest.param([60], id="in-the-head"),
        pytest.param([len(HEAD % SIZE)], id="after-the-head"),
        pytest.param([len(HEAD % SIZE) + 1, SIZE], id="after-a-byte-and-before-the-end"),
        pytest.param(list(range(1000, SIZE, 70_001)), id="in-many"),
        pytest.param([CHUNK_BYTES, 2 * CHUNK_BYTES, 5 * CHUNK_BYTES], id="in-turns"),
    ],
)
async def test_a_large_body_arrives_as_it_was_sent(liar, make_client, task, cuts):
    whole = HEAD % SIZE + BODY
    liar.says(*(whole[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)))
    reply = await asked(make_client, liar, task)
    assert isinstance(reply, Reply)
    assert is_straight(reply)
    assert reply.body == BODY


async def test_many_at_once_are_not_mixed_up(liar, make_client, task):
    async def act(liar, reader, writer):
        mark = b"%08d" % liar.connections
        await liar.take(reader)
        writer.write(HEAD % SIZE + mark * (SIZE // 8))

    liar.act = act
    async with make_client(liar.url) as client, asyncio.TaskGroup() as group:
        asking = [group.create_task(client.send(task)) for _ in range(12)]
    bodies = [bytes(each.result().body) for each in asking]
    assert all(body == body[:8] * (SIZE // 8) for body in bodies)
    assert len(set(bodies)) == 12


@pytest.mark.parametrize("size", [WORTH_IT_BYTES - 1, 3], ids=["just-too-small", "small"])
async def test_a_small_body_is_left_to_aiohttp(liar, make_client, task, size):
    liar.says(HEAD % size + BODY[:size])
    reply = await asked(make_client, liar, task)
    assert not is_straight(reply)
    assert reply.body == BODY[:size]


async def test_what_comes_after_the_body_is_not_part_of_it(liar, make_client, task):
    liar.says(HEAD % SIZE + BODY + b"HTTP/1.1 500 X\r\n" + b"x" * 100_000)
    reply = await asked(make_client, liar, task)
    assert (reply.status, reply.body) == (200, BODY)


async def test_a_body_of_unknown_length_is_left_to_aiohttp(liar, make_client, task):
    liar.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % SIZE + BODY + b"\r\n0\r\n\r\n")
    reply = await asked(make_client, liar, task)
    assert not is_straight(reply)
    assert reply.body == BODY


@pytest.mark.parametrize("name", ["Content-Encoding", "content-encoding"])
async def test_a_compressed_body_is_not_unpacked_yet(liar, make_client, task, name):
    packed = gzip.compress(BODY, 1)
    liar.says(liar.http(200, packed, {name: "gzip"}))
    reply = await asked(make_client, liar, task)
    assert is_straight(reply)
    assert reply.body == packed


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("arrived", [10_000, 700_000, SIZE - 1], ids=["H33-early", "H33-middle", "H33-last-byte"])
async def test_a_cut_body_may_have_been_billed_and_its_beginning_is_kept(liar, make_client, task, arrived):
    liar.says(HEAD % SIZE + BODY[:arrived])
    result = await asked(make_client, liar, task)
    assert isinstance(result, Failure)
    assert (result.fault, result.billed, result.code) == (Fault.SILENCE, Billed.MAYBE, "ClientPayloadError")
    assert f"{arrived} of {SIZE} bytes came" in result.reason
    assert result.body == BODY[:2048]


async def test_h32_a_reset_in_a_large_body_is_silence(liar, make_client, task):
    half_way = asyncio.Event()

    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.write(HEAD % SIZE + BODY[: SIZE // 2])
        await half_way.wait()
        await reset(writer)

    liar.act = act
    async with make_client(liar.url, timeout_s=20) as client, asyncio.TaskGroup() as group:
        sending = group.create_task(sent(client, task))
        while not liar.heads:
            await asyncio.sleep(0)
        half_way.set()
    result = sending.result()
    assert isinstance(result, Failure)
    assert (result.fault, result.billed) == (Fault.SILENCE, Billed.MAYBE)


async def test_a_large_body_that_stops_is_silence(liar, make_client, task):
    liar.then_hangs(HEAD % SIZE + BODY[:1_000_000])
    result = await asked(make_client, liar, task, timeout_s=60)
    assert isinstance(result, Failure)
    assert (result.fault, result.billed) == (Fault.SILENCE, Billed.MAYBE)
    assert "less than 1024 bytes within 0.3 s (after 1000000 bytes of the body)" in result.reason


async def test_the_whole_timeout_holds_for_a_large_body(liar, make_client, task):
    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.write(HEAD % SIZE + BODY[:500_000])
        while not liar.release.is_set():
            writer.write(b"x" * 2000)
            await asyncio.sleep(0.05)

    liar.act = act
    result = await asked(make_client, liar, task, timeout_s=0.6)
    assert isinstance(result, Failure)
    assert (result.fault, result.billed) == (Fault.SILENCE, Billed.MAYBE)
    assert "no whole answer within 0.6 s" in result.reason


async def test_a_large_refusal_that_is_cut_is_still_a_refusal(liar, make_client, task):
    liar.says(HEAD.replace(b"200 OK", b"404 X") % SIZE + b'{"error": {"message": "no such model"}}' + BODY[:900_000])
    reply = await asked(make_client, liar, task)
    assert isinstance(reply, Reply)
    assert (reply.status, len(reply.body)) == (404, 900_039)


async def test_cancellation_closes_the_connection(liar, make_client, task):
    liar.then_hangs(HEAD % SIZE + BODY[:1_000_000])
    async with make_client(liar.url) as client, asyncio.TaskGroup() as group:
        sending = group.create_task(client.send(task))
        while not liar.heads:
            await asyncio.sleep(0)
        sending.cancel()
        done, _ = await asyncio.wait([sending])
        assert done.pop().cancelled()
        liar.says(HEAD % SIZE + BODY)
        again = await client.send(task)
    assert again.body == BODY


def certified() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return TLS for a server on this machine, and for clients that trust it."""
    authority, server, trusting = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    return server, trusting


async def test_a_large_body_over_tls_arrives_as_it_was_sent(serve, make_client, task):
    server, client_tls = certified()
    async with serve(server) as liar:
        liar.says(HEAD % SIZE + BODY)
        reply = await asked(make_client, liar, task, tls=client_tls)
        assert is_straight(reply)
        assert reply.body == BODY
        liar.says(HEAD % SIZE + BODY[:700_000])
        cut = await asked(make_client, liar, task, tls=client_tls)
    assert isinstance(cut, Failure)
    assert (cut.fault, cut.billed) == (Fault.SILENCE, Billed.MAYBE)


class FakeTransport:
    """What a transport is asked by a reader."""

    is_paused = False

    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return False


class FakeHandler:
    transport = None

    def __init__(self) -> None:
        self.limit = ReadLimit()
        self.ends: list[Exception | None] = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)


async def test_P2_a_body_whose_last_byte_comes_with_the_deadline_is_whole():
    """The deadline ends the wait in one turn of the loop, and the last bytes are read in the same."""
    reader = BodyReader(asyncio.StreamReader(), FakeHandler(), FakeTransport(), 100)
    reader.put([b"x" * 60])
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    reading.cancel()
    reader.get_buffer(-1)[:40] = b"y" * 40
    reader.buffer_updated(40)
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert reader.is_whole
    assert reader.take() == b"x" * 60 + b"y" * 40


async def test_what_tls_has_deciphered_is_taken_whole():
    """uvloop asks once for all it has, and may not ask again when the connection ends then."""
    reader = BodyReader(asyncio.StreamReader(), FakeHandler(), FakeTransport(), 4 * CHUNK_BYTES)
    assert len(reader.get_buffer(-1)) == CHUNK_BYTES
    assert len(reader.get_buffer(CHUNK_BYTES + 256)) == CHUNK_BYTES + 256


async def test_P2_an_answer_whose_last_bytes_come_with_the_deadline_is_kept(make_client, task):
    """The loop is late: the deadline rings, the last bytes arrive, and both are seen in the same turn."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = asyncio.get_running_loop().run_in_executor(None, served_but_for_the_end, listener)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with make_client(url, timeout_s=1.5, patience=PATIENCE) as client:
            loop = asyncio.get_running_loop()
            began = loop.time()
            sending = asyncio.create_task(client.send(task))
            peer = await accepted
            loop.call_at(began + 1.4, time.sleep, 0.3)  # over the deadline
            loop.call_at(began + 1.6, finish, peer)  # due in the same turn, after it
            reply = await sending
    assert isinstance(reply, Reply)
    assert reply.body == BODY


def served_but_for_the_end(listener: socket.socket) -> socket.socket:
    """Take a request and send all of the answer but its last 40 bytes."""
    peer, _ = listener.accept()
    received = b""
    while b"\r\n\r\n" not in received:
        received += peer.recv(65536)
    peer.sendall(HEAD % SIZE + BODY[:-40])
    return peer


def finish(peer: socket.socket) -> None:
    peer.sendall(BODY[-40:])
    peer.close()
    time.sleep(0.05)  # until it has arrived


async def test_bodies_bring_only_so_much_in_one_iteration_of_the_event_loop_and_the_first_goes_on_first():
    limit, at_once = ReadLimit(), READ_BYTES // CHUNK_BYTES
    transports = [FakeTransport() for _ in range(3 * at_once)]
    for body, transport in reversed(list(enumerate(transports))):
        limit.count(CHUNK_BYTES, body, transport)
    paused = []
    for _ in range(3):
        paused.append([transport.is_paused for transport in transports])
        await asyncio.sleep(0)
    yes, no = [True] * at_once, [False] * at_once
    assert paused == [[*yes, *yes, *no], [*no, *yes, *no], [*no, *no, *no]]


class Closing:
    """A server with TLS, in threads: it sends an answer of the size that the prompt names, and closes at once."""

    def __init__(self, context: ssl.SSLContext, *, is_chunked: bool = False) -> None:
        self.context = context
        self.is_chunked = is_chunked
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.closed = 0

    def serve(self, answers: int) -> None:
        for _ in range(answers):
            with self.context.wrap_socket(self.listener.accept()[0], server_side=True) as peer:
                received = b""
                while b"IMAGE" not in received:
                    received += peer.recv(65536)
                size = int(re.search(rb'"text":"(\d+)"', received)[1])
                peer.sendall(self.answer(size))
            self.closed += 1

    def answer(self, size: int) -> bytes:
        """Return an answer of this size, after which the connection is not used again."""
        head = (HEAD % size).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        if not self.is_chunked:
            return head + BODY[:size]
        head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
        chunks = (BODY[at : min(at + 8192, size)] for at in range(0, size, 8192))
        return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("loop_factory", "size"),
    [
        pytest.param(uvloop.new_event_loop, 350_000, id="uvloop-350k"),
        pytest.param(uvloop.new_event_loop, 450_000, id="uvloop-450k"),
        pytest.param(asyncio.new_event_loop, 450_000, id="asyncio-450k"),
    ],
)
def test_P2_an_answer_that_waits_for_room_is_whole_though_the_server_has_closed(
    make_client, make_task, loop_factory, size
):
    server, trusting = certified()
    closing = Closing(server)

    async def ask() -> bytes:
        async with make_client(closing.url, tls=trusting, memory_bytes=1, concurrency=1) as client:
            first = await client.send(make_task(prompt=str(SIZE)))  # takes all the room there is
            client._budget.limit_bytes = client._budget.used_bytes + CONNECTION_BYTES + 200_000  # for a request
            asking = asyncio.create_task(client.send(make_task(prompt=str(size))))
            while closing.closed < 2 or not client._budget.unread_bytes:
                await asyncio.sleep(0)
            for _ in range(50):  # iterations in which the end is seen
                await asyncio.sleep(0)
            first.hold.release()
            return (await asking).body

    threading.Thread(target=closing.serve, args=(2,), daemon=True).start()
    with closing.listener, asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(ask()) == BODY[:size]


def test_P2_bodies_that_are_paused_are_whole_though_the_server_has_closed(make_client, make_task, monkeypatch):
    monkeypatch.setattr(connections, "READ_BYTES", CHUNK_BYTES)  # all but one are paused
    server, trusting = certified()
    closing, sizes = Closing(server), range(800_000, 1_400_000, 50_000)

    async def ask() -> list[bytes]:
        calm = {"timeout_s": 15, "patience": PATIENCE}
        async with make_client(closing.url, tls=trusting, **calm) as client, asyncio.TaskGroup() as group:
            asking = [group.create_task(client.send(make_task(prompt=str(size)))) for size in sizes]
        return [each.result().body for each in asking]

    for _ in sizes:
        threading.Thread(target=closing.serve, args=(1,), daemon=True).start()
    with closing.listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == [BODY[:size] for size in sizes]


def test_P2_answers_in_chunks_are_whole_though_the_server_has_closed(make_client, make_task):
    """What came while the parser was paused is parsed before it is told of the end: nginx sends answers so."""
    server, trusting = certified()
    closing, sizes = Closing(server, is_chunked=True), range(300_000, 900_000, 50_000)

    async def ask() -> list[bytes]:
        async with make_client(closing.url, tls=trusting, timeout_s=15, patience=PATIENCE) as client:
            return [(await client.send(make_task(prompt=str(size)))).body for size in sizes]

    threading.Thread(target=closing.serve, args=(len(sizes),), daemon=True).start()
    with closing.listener, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == [BODY[:size] for size in sizes]


async def test_an_end_that_is_reported_after_the_body_was_taken_is_aiohttps_to_handle():
    """TLS reports it an iteration later to the protocol of then: a deadline may have ended the reading meanwhile."""
    theirs, cut = FakeHandler(), ConnectionResetError()
    reader = BodyReader(asyncio.StreamReader(), theirs, FakeTransport(), 100)
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    reader.take()
    reader.connection_lost(cut)
    assert theirs.ends == [cut]
