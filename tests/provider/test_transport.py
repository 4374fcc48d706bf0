"""One exchange, against a server that can lie. Every row is a way the wire fails, and what is known afterwards.

What is particular to connections that carry one request after another stands in test_kept.
"""

import asyncio
import datetime
import gzip
import socket
import ssl
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import pytest
import trustme

from pipeline.model import Answer, Billed, Failure, Fault, Reply
from pipeline.provider import errors
from pipeline.provider.transport import Patience
from pipeline.settings import Kind
from tests.provider.conftest import KEY

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"


def seen(result):
    """Return what a failure says, short enough for a table."""
    assert isinstance(result, Failure), result
    return result.fault, result.billed


async def asked(make_client, liar, task, **options):
    async with make_client(liar.url, **options) as client:
        result = await client.send(task)
        return client.read(result, task) if isinstance(result, Reply) and result.cut is not None else result


# -- an honest exchange


async def test_send_posts_once_with_the_key_in_one_header(liar, make_client, task, pictures, answer_body):
    liar.says(liar.http(200, answer_body(pictures.png())))
    async with make_client(liar.url) as client:
        reply = await client.send(task)
        answer = client.read(reply, task)
    head = liar.heads[0].decode()
    assert head.startswith("POST /v1beta/models/gemini-2.5-flash-image:generateContent HTTP/1.1\r\n")
    assert head.count("sk-canary") == 1
    assert "\r\nAuthorization: sk-canary/7+hard=to~miss\r\n" in head
    assert "\r\nAccept-Encoding: identity\r\n" in head
    assert isinstance(answer, Answer)
    assert answer.image.data == pictures.png()


async def test_google_gets_its_own_header(liar, make_client, task):
    liar.says(liar.http(200, b"{}"))
    await asked(make_client, liar, task, kind=Kind.GOOGLE)
    assert b"\r\nx-goog-api-key: sk-canary" in liar.heads[0]
    assert b"authorization" not in liar.heads[0].lower()


async def test_only_the_first_answer_of_a_run_is_first(liar, make_client, task):
    liar.says(liar.http(429, b"{}"))
    async with make_client(liar.url) as client:
        replies = [await client.send(task) for _ in range(3)]
    assert [reply.is_first for reply in replies] == [True, False, False]


async def test_a_gateways_late_error_counts_from_when_the_request_had_left(liar, make_client, task, monkeypatch):
    monkeypatch.setattr(errors, "PATIENT_S", 1e-9)
    liar.says(liar.http(502, b"I/O timeout"))
    async with make_client(liar.url) as client:
        result = client.read(await client.send(task), task)
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)


# -- what came instead of a whole answer


async def rst(liar, reader, writer):
    """Reset the connection the hard way."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def h28(liar, reader, writer):
    await liar.take(reader)


async def h29(liar, reader, writer):
    await liar.take(reader)
    await rst(liar, reader, writer)


async def h30(liar, reader, writer):
    await reader.read(1024)
    await rst(liar, reader, writer)


async def h32(liar, reader, writer):
    await liar.take(reader)
    writer.write(OK + b"Content-Length: 100000\r\n\r\n" + b'{"candidates"' + b" " * 5000)
    await writer.drain()
    await asyncio.sleep(0)
    await rst(liar, reader, writer)


def after_request(*pieces):
    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.writelines(pieces)
        await writer.drain()

    return act


LOST = [
    pytest.param(h28, "ServerDisconnectedError", id="H28-closed-before-headers"),
    pytest.param(h29, "ClientOSError", id="H29-reset-before-headers"),
    pytest.param(h30, None, id="H30-reset-while-uploading"),
    pytest.param(h32, None, id="H32-reset-in-the-body"),
    pytest.param(after_request(OK, b"Content-Length: 99\r\n\r\n{"), "ClientPayloadError", id="H33-short-length"),
    pytest.param(
        after_request(OK, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
        "ClientPayloadError",
        id="H33-no-last-chunk",
    ),
    pytest.param(
        after_request(OK, b"Transfer-Encoding: chunked\r\n\r\nff\r\n{}"), "ClientPayloadError", id="H33-cut-chunk"
    ),
    pytest.param(
        after_request(OK, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nHTTP/1.1 502 Bad Gateway\r\n\r\n"),
        "ClientPayloadError",
        id="H33-an-error-among-chunks",
    ),
    pytest.param(after_request(OK, b"X: ", b"x" * 100_000, b"\r\n\r\n{}"), "ClientResponseError", id="H42-long-header"),
    pytest.param(after_request(OK, b"X: x\r\n" * 10_000, b"\r\n{}"), "ClientResponseError", id="H42-many-headers"),
    pytest.param(after_request(b"HTTP/1.1 banana\r\n\r\n"), "ClientResponseError", id="H42-bad-status-line"),
    pytest.param(after_request(b"SSH-2.0-OpenSSH_9.7\r\n\r\n"), "ClientResponseError", id="H42-not-http"),
]


@pytest.mark.parametrize(("act", "code"), LOST)
async def test_silence_after_the_request_left_may_have_been_billed(liar, make_client, make_task, act, code):
    liar.act = act
    result = await asked(make_client, liar, make_task(prompt="x" * 5_000_000))
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)
    assert liar.connections == 1  # never sent twice
    assert code is None or result.code == code


async def test_h32_keeps_the_beginning_of_a_cut_body_without_the_key(liar, make_client, task):
    liar.says(OK, b"Content-Length: 99999\r\n\r\n", b"sk-canary/7+hard=to~miss", b"x" * 9000)
    result = await asked(make_client, liar, task)
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)
    assert "9024 bytes" in result.reason
    assert result.body is not None
    assert result.body.startswith(b"[key]xxx")
    assert len(result.body) <= 2048


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "framed",
    [
        pytest.param(lambda body: OK + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body, id="H33-short-length"),
        pytest.param(lambda body: CHUNKED + b"%x\r\n%b\r\n" % (len(body), body), id="H33-no-last-chunk"),
        pytest.param(lambda body: CHUNKED + b"%x\r\ndata: %b\n\n\r\n" % (len(body) + 8, body), id="H33-events"),
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (500, 500)])
async def test_a_whole_image_in_an_answer_whose_end_did_not_come_is_kept(
    liar, make_client, task, pictures, answer_body, framed, size
):
    data = pictures.saved("PNG", size=size)
    liar.says(framed(answer_body(data)))
    async with make_client(liar.url) as client:
        result = client.read(await client.send(task), task)
        assert isinstance(result, Answer)
        assert (result.image.data, result.doubts[0]) == (data, "the end of its answer did not come")
        liar.says(framed(answer_body(data[:-1])))
        assert seen(client.read(await client.send(task), task)) == (Fault.SILENCE, Billed.MAYBE)
        liar.says(liar.http(200, b"<html><title>Busy</title></html>"))
        assert seen(client.read(await client.send(task), task)) == (Fault.BROKEN, Billed.YES)  # not a wrong address


@pytest.mark.parametrize(
    "pieces", [pytest.param((), id="H36-no-headers"), pytest.param((OK, b"Content-Le"), id="H36-half-a-header")]
)
async def test_silence_lasts_until_the_timeout(liar, make_client, task, pieces):
    liar.then_hangs(*pieces)
    result = await asked(make_client, liar, task, timeout_s=0.3)
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)
    assert "no whole answer within 0.3 s" in result.reason


@pytest.mark.parametrize("row", ["H37"])
async def test_a_trickle_is_silence(liar, make_client, task, row):
    liar.then_hangs(OK, b"Content-Length: 9000\r\n\r\n", b"{" * 100)
    result = await asked(make_client, liar, task, timeout_s=60)
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)
    assert "less than 1024 bytes within 0.3 s" in result.reason


@pytest.mark.parametrize(
    "beat",
    [
        pytest.param(b"", id="a-head-sent-early"),
        pytest.param(b"\n", id="blank-lines"),
        pytest.param(b" ", id="spaces"),
        pytest.param(b": keep-alive\n\n", id="comments-of-events"),
    ],
)
async def test_heartbeats_before_an_answer_are_no_trickle(liar, make_client, task, beat):
    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.write(OK + b"\r\n")
        for _ in range(6):
            writer.write(beat)
            await asyncio.sleep(0.1)  # 0.6 s in all: two windows of 0.3 s
        writer.write(b'data: {"candidates": []}\n\n')

    liar.act = act
    result = await asked(make_client, liar, task)
    assert isinstance(result, Reply)
    assert result.body == beat * 6 + b'data: {"candidates": []}\n\n'


async def test_a_stream_may_be_quiet_between_its_events(liar, make_client, task):
    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.write(OK + b"Content-Type: text/event-stream; charset=utf-8\r\n\r\n" + b'data: {"a": 1}\n\n')
        await asyncio.sleep(0.6)  # two windows of 0.3 s
        writer.write(b'data: {"b": 2}\n\n')

    liar.act = act
    result = await asked(make_client, liar, task)
    assert isinstance(result, Reply)
    assert result.body == b'data: {"a": 1}\n\ndata: {"b": 2}\n\n'


async def test_h37_a_body_that_stops_after_its_heartbeats_is_silence(liar, make_client, task):
    liar.then_hangs(OK, b"\r\n", b": keep-alive\n\n", b'data: {"cand')
    result = await asked(make_client, liar, task, timeout_s=60)
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)
    assert "less than 1024 bytes within 0.3 s" in result.reason


@pytest.mark.parametrize(
    ("head", "outcome"),
    [
        pytest.param(b"HTTP/1.1 429 No\r\n\r\n", (Fault.THROTTLED, Billed.NO), id="429"),
        pytest.param(
            b"HTTP/1.1 401 No\r\nContent-Type: text/event-stream\r\n\r\n", (Fault.ACCOUNT, Billed.NO), id="401"
        ),
        pytest.param(b"HTTP/1.1 502 No\r\nContent-Length: 9000\r\n\r\n", (Fault.SILENCE, Billed.MAYBE), id="502"),
    ],
)
async def test_h37_an_error_that_stops_after_its_head_is_not_waited_for(liar, make_client, task, head, outcome):
    liar.then_hangs(head)
    async with make_client(liar.url, timeout_s=60) as client:
        result = await client.send(task)
        result = client.read(result, task) if isinstance(result, Reply) else result
    assert seen(result) == outcome


@pytest.mark.parametrize("row", ["H38"])
async def test_a_slow_but_steady_body_succeeds(liar, make_client, task, row):
    async def act(liar, reader, writer):
        await liar.take(reader)
        writer.write(OK + b"Content-Length: 20000\r\n\r\n")
        for _ in range(10):
            writer.write(b" " * 2000)
            await asyncio.sleep(0.08)  # 25 KB a second, 0.8 s in all: nearly three windows of 0.3 s

    liar.act = act
    result = await asked(make_client, liar, task)
    assert isinstance(result, Reply)
    assert len(result.body) == 20_000


@pytest.mark.parametrize("row", ["H74"])
async def test_a_late_answer_is_ignored(liar, make_client, task, row):
    async def act(liar, reader, writer):
        await liar.take(reader)
        await liar.release.wait()
        writer.write(liar.http(200, b"{}"))

    liar.act = act
    async with make_client(liar.url, timeout_s=0.1) as client:
        result = await client.send(task)
        liar.release.set()
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)


async def test_cancellation_passes_through(liar, make_client, task):
    liar.then_hangs()
    async with make_client(liar.url) as client, asyncio.TaskGroup() as group:
        sending = group.create_task(client.send(task))
        while not liar.heads:
            await asyncio.sleep(0)
        sending.cancel()
        done, _ = await asyncio.wait([sending])
    assert done.pop().cancelled()


# -- refusals that arrive although the exchange breaks


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        pytest.param(413, Fault.BAD_REQUEST, id="H31-early-413"),
        pytest.param(401, Fault.ACCOUNT, id="H31-early-401"),
    ],
)
async def test_an_early_refusal_is_read_while_we_upload(liar, make_client, make_task, status, fault):
    async def act(liar, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(liar.http(status, b'{"error":{"message":"no"}}'))
        await writer.drain()
        while await reader.read(2**20):  # an honest server lets the upload run out before it closes
            pass

    liar.act = act
    task = make_task(prompt="x" * 3_000_000)
    async with make_client(liar.url) as client:
        result = client.read(await client.send(task), task)
    assert seen(result) == (fault, Billed.NO)


@pytest.mark.parametrize("status", [pytest.param(413, id="H31-413"), pytest.param(401, id="H31-401")])
async def test_a_refusal_that_closes_while_we_upload_is_read_if_it_arrives(liar, make_client, make_task, status):
    async def act(liar, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(liar.http(status, b'{"error":{"message":"no"}}'))
        await writer.drain()

    liar.act = act
    task = make_task(prompt="x" * 3_000_000)
    async with make_client(liar.url) as client:
        result = await client.send(task)
        result = client.read(result, task) if isinstance(result, Reply) else result
    refused = Fault.BAD_REQUEST if status == 413 else Fault.ACCOUNT
    assert seen(result) in ((refused, Billed.NO), (Fault.SILENCE, Billed.MAYBE))  # the reset may overtake the answer
    assert liar.connections == 1


async def test_h21_a_connection_that_floods_informational_answers_is_closed(liar, make_client, task):
    async def act(liar, reader, writer):
        await liar.take(reader)
        while not writer.transport.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
            await writer.drain()

    liar.act = act
    tracemalloc.start()
    try:
        result = await asked(make_client, liar, task, timeout_s=15.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)
    assert "more than 10 informational answers" in result.reason
    assert peak < 20 * 2**20


async def test_ten_informational_answers_each_are_no_flood(liar, make_client, task):
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10
    liar.keeps(*[interim + liar.http(200, b"{}")] * 2)
    async with make_client(liar.url) as client:
        replies = [await client.send(task) for _ in range(2)]
    assert [reply.body for reply in replies] == [b"{}"] * 2
    assert liar.connections == 1


async def test_informational_heartbeats_are_no_flood(liar, make_client, task):
    async def act(liar, reader, writer):
        await liar.take(reader)
        for _ in range(2):
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 8)
            await asyncio.sleep(1.05)  # the second is over in which ten are allowed
        writer.write(liar.http(200, b"{}"))

    liar.act = act
    result = await asked(make_client, liar, task)
    assert isinstance(result, Reply)
    assert result.body == b"{}"


async def test_a_cut_refusal_is_still_a_refusal(liar, make_client, task):
    liar.says(b"HTTP/1.1 401 No\r\nContent-Length: 500\r\n\r\n", b'{"error":')
    async with make_client(liar.url) as client:
        result = client.read(await client.send(task), task)
    assert seen(result) == (Fault.ACCOUNT, Billed.NO)


@pytest.mark.parametrize("status", [pytest.param(s, id=f"H22-{s}") for s in (301, 302, 303, 307, 308)])
async def test_redirects_are_not_followed(liar, other_liar, make_client, task, status):
    other_liar.says(other_liar.http(200, b"{}"))
    liar.says(liar.http(status, b"", {"Location": other_liar.url + "/v1beta/x"}))
    async with make_client(liar.url) as client:
        result = client.read(await client.send(task), task)
    assert seen(result) == (Fault.ADDRESS, Billed.NO)
    assert f"a redirect to {other_liar.url}/v1beta/x, not followed" in result.reason
    assert other_liar.connections == 0


@pytest.mark.parametrize("row", ["H23"])
async def test_a_redirect_to_the_same_host_is_not_followed_either(liar, make_client, task, row):
    liar.says(liar.http(308, b"", {"Location": "/elsewhere"}))
    async with make_client(liar.url) as client:
        result = client.read(await client.send(task), task)
    assert seen(result) == (Fault.ADDRESS, Billed.NO)
    assert liar.connections == 1


def keepalive_timer_s(port):
    """Return when the connection from a local port is probed next, by the kernel's table; None where it is not."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    timers = [row[5].split(":") for row in rows if int(row[1].split(":")[1], 16) == port]
    return next((int(when, 16) / 100 for kind, when in timers if kind == "02"), None)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux shows the timers of its connections")
async def test_a_connection_is_probed_while_an_answer_is_awaited(liar, make_client, task):
    seen_s = []

    async def act(liar, reader, writer):
        await liar.take(reader)
        seen_s.append(keepalive_timer_s(writer.get_extra_info("peername")[1]))
        writer.write(liar.http(200, b"{}"))

    liar.act = act
    assert isinstance(await asked(make_client, liar, task), Reply)
    assert seen_s[0] is not None
    assert seen_s[0] <= 30


# -- bodies that are whole by the wire and still not right


def gzipped(body, cut=None):
    packed = gzip.compress(body)[:cut]
    return OK + JSON + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([OK, JSON, b'\r\n{"candidates":[{"conte'], id="H34-close-delimited-and-cut"),
        pytest.param([gzipped(b'{"candidates":' + b" " * 9000 + b"[]}", -20)], id="H35-truncated-gzip"),
        pytest.param([OK, b"Content-Length: 0\r\n\r\n"], id="H44-empty"),
        pytest.param([OK, JSON, b'Content-Length: 15\r\n\r\n{"candidates":['], id="H47-truncated-json"),
    ],
)
async def test_a_short_body_is_found_by_its_json(liar, make_client, task, pieces):
    liar.says(*pieces)
    async with make_client(liar.url) as client:
        result = await client.send(task)
        result = client.read(result, task) if isinstance(result, Reply) else result
    assert result.fault in (Fault.BROKEN, Fault.SILENCE)
    assert result.billed is not Billed.NO


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n", id="H43-http-1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n", id="H43-text-plain"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=latin-1\r\n\r\n", id="H43-latin-1"),
        pytest.param(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=" + b"x" * 20_000 + b"\r\n\r\n", id="a-cookie-of-20-KB"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + b"HTTP/1.1 200 OK\r\n\r\n", id="H21-five-times-100"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: #\r\na: b\r\ncontent-length:#\r\n\r\n", id="same-length-twice"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: #, #\r\n\r\n", id="same-length-twice-in-one-line"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: #\r\nTransfer-Encoding: chunked\r\n\r\n", id="a-length-beside-chunks"
        ),
    ],
)
async def test_odd_but_honest_answers_are_accepted(liar, make_client, task, pictures, answer_body, head):
    body = b"\xef\xbb\xbf" + answer_body(pictures.png())
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if b"chunked" in head else body
    liar.says(head.replace(b"#", b"%d" % len(body)), sent)
    async with make_client(liar.url) as client:
        answer = client.read(await client.send(task), task)
    assert isinstance(answer, Answer)


@pytest.mark.parametrize("side", [16, 400], ids=["in-one-read", "large"])
@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 2], ids=["", "after-102"])
async def test_an_answer_longer_than_its_length_is_read_to_its_length(
    liar, make_client, task, pictures, answer_body, side, before
):
    data = pictures.png(side, side)
    liar.says(before + liar.http(200, answer_body(data)) + b"no HTTP")
    async with make_client(liar.url) as client:
        answers = [client.read(await client.send(task), task) for _ in range(2)]
    assert all(isinstance(answer, Answer) and answer.image.data == data for answer in answers)


@pytest.mark.parametrize(
    ("label", "pack"),
    [
        pytest.param("gzip", gzip.compress, id="gzip"),
        pytest.param("deflate", zlib.compress, id="deflate"),
        pytest.param("gzip, gzip", lambda body: gzip.compress(gzip.compress(body)), id="twice"),
        pytest.param("gzip", lambda body: gzip.compress(body[:99]) + gzip.compress(body[99:]), id="members"),
        pytest.param("gzip", lambda body: gzip.compress(body) + b"\0\0", id="gzip-followed-by-zeros"),
        pytest.param("identity", gzip.compress, id="gzip-without-a-label"),
        pytest.param("gzip", bytes, id="a-label-without-gzip"),
        pytest.param("br", bytes, id="a-label-without-brotli"),
    ],
)
async def test_a_body_is_unpacked_by_its_bytes(liar, make_client, task, pictures, answer_body, label, pack):
    data = pictures.png(600, 600)
    liar.says(liar.http(200, pack(answer_body(data)), {"Content-Encoding": label}))
    async with make_client(liar.url) as client:
        result = client.read(await client.send(task), task)
    assert isinstance(result, Answer)
    assert result.image.data == data


async def test_s02_a_cut_body_that_was_packed_holds_no_key(liar, make_client, task):
    packed = gzip.compress(f"{KEY} and more".encode())
    liar.says(OK, b"Content-Length: 9000\r\n\r\n", packed)
    result = await asked(make_client, liar, task)
    assert isinstance(result, Failure)
    assert result.body == b"[key] and more"


@pytest.mark.parametrize("row", ["H41"])
async def test_a_body_of_60_mib_succeeds(liar, make_client, task, row):
    piece = b" " * 2**20
    liar.says(OK, b"Content-Length: %d\r\n\r\n" % (60 * 2**20), *[piece] * 60)
    result = await asked(make_client, liar, task, timeout_s=18)
    assert isinstance(result, Reply)
    assert len(result.body) == 60 * 2**20


def bomb():
    return gzipped(b"\0" * 64 * 2**20)


async def endless(liar, reader, writer):
    await liar.take(reader)
    writer.write(OK + b"\r\n")
    while not writer.transport.is_closing():
        writer.write(b" " * 2**16)
        await writer.drain()


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        pytest.param("H39", (Fault.BROKEN, Billed.YES), id="H39"),
        pytest.param("H40", (Fault.OTHER, Billed.MAYBE), id="H40"),
        pytest.param("declared", (Fault.OTHER, Billed.MAYBE), id="H40-declared"),
    ],
)
async def test_a_body_without_end_stops_at_the_cap(liar, make_client, task, row, outcome):
    if row == "H39":
        liar.says(bomb())
    elif row == "H40":
        liar.act = endless
    else:
        liar.then_hangs(OK + b"Content-Length: 99999999\r\n\r\n")
    tracemalloc.start()
    try:
        async with make_client(liar.url, max_body_bytes=8 * 2**20, timeout_s=18) as client:
            result = await client.send(task)
            result = client.read(result, task) if isinstance(result, Reply) else result
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen(result) == outcome
    assert "more than 8388608 bytes" in result.reason
    assert len(result.body or b"") < 2**20
    assert peak < 20 * 2**20


async def test_P13_a_body_whose_length_is_not_named_is_counted(liar, make_client, task):
    liar.says(OK + b"\r\n", b" " * 2**20)
    async with make_client(liar.url) as client:
        reply = await client.send(task)
        assert reply.hold.held_bytes >= 2**20
        client.read(reply, task)
    assert reply.hold.held_bytes == 0  # it holds no image


async def test_a_refusal_without_end_is_still_a_refusal(liar, make_client, task):
    liar.says(b"HTTP/1.1 401 No\r\n\r\n", b'{"error": {"code": "invalid_api_key", "message": "no"}}', b" " * 2**20)
    async with make_client(liar.url, max_body_bytes=2**19) as client:
        result = client.read(await client.send(task), task)
    assert seen(result) == (Fault.ACCOUNT, Billed.NO)


# -- no connection at all


async def test_h24_connection_refused_was_not_sent(make_client, task, unused_tcp_port):
    async with make_client(f"http://127.0.0.1:{unused_tcp_port}") as client:
        result = await client.send(task)
    assert seen(result) == (Fault.UNREACHABLE, Billed.NO)
    assert result.reason == f"Cannot connect to host 127.0.0.1:{unused_tcp_port}: Connection refused"


async def test_h25_unknown_host_was_not_sent(make_client, task):
    async with make_client("https://imgpipe-test.invalid") as client:
        result = await client.send(task)
    assert seen(result) == (Fault.UNREACHABLE, Billed.NO)
    assert "Unknown error" not in result.reason


async def test_h27_connect_timeout_was_not_sent(make_client, task):
    listener = socket.socket()  # nobody accepts, and the backlog is full
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    full = [socket.socket() for _ in range(3)]
    for one in full:
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with make_client(url, patience=Patience(connect_s=0.2)) as client:
            result = await client.send(task)
    finally:
        for one in (*full, listener):
            one.close()
    assert seen(result) == (Fault.UNREACHABLE, Billed.NO)
    assert f"no connection to {url.removeprefix('http://')} in time" in result.reason


async def test_the_whole_timeout_during_connect_was_not_sent(make_client, task, serve):
    async with serve() as silent:  # accepts, and never answers the handshake
        silent.then_hangs()
        async with make_client(silent.url.replace("http:", "https:"), timeout_s=0.2) as client:
            result = await client.send(task)
    assert seen(result) == (Fault.UNREACHABLE, Billed.NO)


# -- TLS


def _tls(host, *, is_trusted, expired=False):
    authority = trustme.CA()
    until = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None
    since = datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC) if expired else None
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(host, not_before=since, not_after=until).configure_cert(server)
    if is_trusted:
        authority.configure_trust(client)
    return server, client


async def test_a_trusted_certificate_is_accepted(serve, make_client, task):
    server, client_tls = _tls("127.0.0.1", is_trusted=True)
    async with serve(server) as liar:
        liar.says(liar.http(200, b"{}"))
        assert isinstance(await asked(make_client, liar, task, tls=client_tls), Reply)


@pytest.mark.parametrize(
    ("host", "options"),
    [
        pytest.param("127.0.0.1", {"is_trusted": False}, id="H26-self-signed"),
        pytest.param("127.0.0.1", {"is_trusted": True, "expired": True}, id="H26-expired"),
        pytest.param("wrong.example", {"is_trusted": True}, id="H26-wrong-host"),
    ],
)
async def test_a_bad_certificate_stops_before_the_key_is_sent(serve, make_client, task, host, options):
    server, client_tls = _tls(host, **options)
    async with serve(server) as liar:
        liar.says(liar.http(200, b"{}"))
        result = await asked(make_client, liar, task, tls=client_tls)
        assert seen(result) == (Fault.ADDRESS, Billed.NO)
        assert liar.heads == []


async def test_a_server_of_old_tls_is_an_address_fault(serve, make_client, task):
    server, client_tls = _tls("127.0.0.1", is_trusted=True)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        server.minimum_version = server.maximum_version = ssl.TLSVersion.TLSv1
    server.set_ciphers("DEFAULT@SECLEVEL=0")
    async with serve(server) as liar:
        liar.says(liar.http(200, b"{}"))
        result = await asked(make_client, liar, task, tls=client_tls)
    assert seen(result) == (Fault.ADDRESS, Billed.NO)
    assert "less than TLS 1.2" in result.reason


async def test_https_asked_of_plain_http_is_an_address_fault(liar, make_client, task):
    async def act(liar, reader, writer):
        await reader.read(1)
        writer.write(liar.http(400, b"The plain HTTP request was sent to HTTPS port"))

    liar.act = act
    async with make_client(liar.url.replace("http:", "https:")) as client:
        result = await client.send(task)
    assert seen(result) == (Fault.ADDRESS, Billed.NO)


# -- proxies


async def through(proxy_url, make_client, task, **environ):
    environ = {"HTTPS_PROXY": proxy_url, **environ}
    async with make_client("https://imgpipe-test.invalid", environ=environ) as client:
        return await client.send(task)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param(b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n", Fault.ADDRESS, id="H71-407"),
        pytest.param(b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\nhtml", Fault.UNREACHABLE, id="H71-proxy-html"),
        pytest.param(b"", Fault.UNREACHABLE, id="H71-proxy-closes"),
        pytest.param(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Fault.ADDRESS, id="H71-proxy-forbids"),
        pytest.param(b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", Fault.UNREACHABLE, id="H71-proxy-later"),
    ],
)
async def test_what_a_proxy_refuses_was_not_sent(liar, make_client, task, answer, fault):
    liar.says(answer)
    result = await through(liar.url.replace("//", "//user:pa%40ss@"), make_client, task)
    assert seen(result) == (fault, Billed.NO)
    assert liar.heads[0].startswith(b"CONNECT imgpipe-test.invalid:443 ")
    assert b"Proxy-Authorization: Basic dXNlcjpwYUBzcw==" in liar.heads[0]
    assert b"canary" not in b"".join(liar.heads)
    assert "proxy" in result.reason
    assert "pa@ss" not in result.reason
    assert "pa%40ss" not in result.reason


async def test_a_proxy_that_is_asked_for_tls_and_has_none_is_named(liar, make_client, task):
    async def act(liar, reader, writer):
        await reader.read(1)
        writer.write(liar.http(400, b""))

    liar.act = act
    proxy = liar.url.replace("http:", "https:")
    result = await through(proxy, make_client, task)
    assert seen(result) == (Fault.ADDRESS, Billed.NO)
    assert result.reason.endswith(f"(through the proxy {proxy}; most proxies are addressed as http://)")


async def test_a_proxy_that_forbids_a_host_is_named_with_it(liar, make_client, task):
    liar.says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    result = await through(liar.url, make_client, task)
    assert result.reason == f"the proxy {liar.url} refused a connection to imgpipe-test.invalid (403 Forbidden)"


async def test_a_proxy_that_resets_the_connection_is_named_with_the_cause(liar, make_client, task):
    liar.act = rst
    result = await through(liar.url, make_client, task)
    assert seen(result) == (Fault.UNREACHABLE, Billed.NO)
    assert f"Connection reset by peer (through the proxy {liar.url})" in result.reason


async def test_h71_a_refusing_proxy_is_unreachable(make_client, task, unused_tcp_port):
    result = await through(f"http://127.0.0.1:{unused_tcp_port}", make_client, task)
    assert seen(result) == (Fault.UNREACHABLE, Billed.NO)
    assert f"the proxy 127.0.0.1:{unused_tcp_port} cannot be reached: Connection refused" in result.reason


async def test_the_netrc_of_the_user_is_never_read(liar, make_client, task, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password netrc-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    liar.says(liar.http(200, b"{}"))
    await asked(make_client, liar, task, kind=Kind.GOOGLE)
    assert b"authorization" not in liar.heads[0].lower()


async def test_S02_what_a_server_says_that_is_not_http_is_told_without_the_key(liar, make_client, task):
    liar.says(f"HTTP/1.1 {KEY}\r\n\r\n".encode())
    async with make_client(liar.url) as client:
        result = await client.send(task)
    assert seen(result) == (Fault.SILENCE, Billed.MAYBE)
    assert "canary" not in result.reason
