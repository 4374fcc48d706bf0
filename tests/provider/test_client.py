"""The client as the engine sees it; simple cases without a wire."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import traceback
from hashlib import sha256

import aiohttp
import pytest
from aioresponses import aioresponses

from pipeline.errors import InputError
from pipeline.model import Answer, Billed, Failure, Fault, InputImage, Reply
from pipeline.provider.byte_budget import CONNECTION_BYTES

ANY = re.compile(r"https://api\.cometapi\.com/v1beta/models/.*:generateContent")
HOST = "https://api.cometapi.com"
KEY = "sk-canary/7+hard=to~miss"


@pytest.fixture
def api():
    with aioresponses() as mocked:
        yield mocked


async def attempt(make_client, task, url=HOST, **options):
    async with make_client(url, **options) as client:
        result = await client.send(task)
        return client.read(result, task) if isinstance(result, Reply) else result


async def test_an_image_comes_back(api, make_client, task, pictures, answer_body):
    big = pictures.saved("PNG", size=(400, 400))
    api.post(ANY, body=answer_body(big), headers={"x-request-id": "abc-12345"})
    answer = await attempt(make_client, task)
    assert isinstance(answer, Answer)
    assert answer.image.sha256 == sha256(big).hexdigest()
    assert answer.request_id == "abc-12345"


@pytest.mark.parametrize(
    ("error", "fault", "billed"),
    [
        pytest.param(aiohttp.ServerDisconnectedError(), Fault.SILENCE, Billed.MAYBE, id="H28"),
        pytest.param(aiohttp.ClientOSError(104, "reset"), Fault.SILENCE, Billed.MAYBE, id="H29"),
        pytest.param(aiohttp.ClientPayloadError("cut"), Fault.SILENCE, Billed.MAYBE, id="H32"),
        pytest.param(TimeoutError(), Fault.SILENCE, Billed.MAYBE, id="H36"),
        pytest.param(aiohttp.SocketTimeoutError(), Fault.SILENCE, Billed.MAYBE, id="H36-socket"),
        pytest.param(aiohttp.ConnectionTimeoutError(), Fault.UNREACHABLE, Billed.NO, id="H27"),
        pytest.param(ConnectionResetError(), Fault.SILENCE, Billed.MAYBE, id="H29-raw"),
        pytest.param(aiohttp.InvalidURL("x"), Fault.ADDRESS, Billed.NO, id="H18-url"),
    ],
)
async def test_exceptions_of_the_network_are_named(api, make_client, task, error, fault, billed):
    api.post(ANY, exception=error)
    failure = await attempt(make_client, task)
    assert isinstance(failure, Failure)
    assert (failure.fault, failure.billed) == (fault, billed)


async def test_a_bug_stays_a_bug(api, make_client, task):
    api.post(ANY, exception=KeyError("not the network's"))
    with pytest.raises(KeyError):
        await attempt(make_client, task)


async def test_h08_the_delay_of_a_throttle_is_passed_on(api, make_client, task):
    api.post(ANY, status=429, headers={"Retry-After": "3"}, payload={"error": {"message": "slow down"}})
    failure = await attempt(make_client, task)
    assert (failure.fault, failure.hint_s) == (Fault.THROTTLED, 3.0)


@pytest.mark.parametrize("row", ["I09"])
async def test_a_changed_input_sends_nothing(api, make_client, make_task, tmp_path, row):
    path = tmp_path / "in.png"
    path.write_bytes(b"other bytes")
    image = InputImage(path=str(path), sha256="0" * 64, size_bytes=11, mtime_ns=0)
    failure = await attempt(make_client, make_task(images=(image,)))
    assert (failure.fault, failure.billed) == (Fault.INPUT, Billed.NO)
    assert "changed since the plan" in failure.reason
    assert not api.requests


async def test_an_input_that_went_away_sends_nothing_and_is_no_fault_of_its_task(api, make_client, make_task, tmp_path):
    image = InputImage(path=str(tmp_path / "gone/in.png"), sha256="0" * 64, size_bytes=11, mtime_ns=0)
    failure = await attempt(make_client, make_task(images=(image,)))
    assert (failure.fault, failure.billed) == (Fault.LOCAL, Billed.NO)
    assert not api.requests


async def test_input_images_are_sent(api, make_client, make_task, tmp_path, pictures, answer_body):
    data = pictures.saved("JPEG")
    path = tmp_path / "in.jpg"
    path.write_bytes(data)
    image = InputImage(path=str(path), sha256=sha256(data).hexdigest(), size_bytes=len(data), mtime_ns=0)
    api.post(ANY, body=answer_body(pictures.png()))
    assert isinstance(await attempt(make_client, make_task(images=(image, image))), Answer)


async def test_a_prompt_that_is_not_unicode_sends_nothing(api, make_client, make_task):
    failure = await attempt(make_client, make_task(prompt="lone \ud800"))
    assert (failure.fault, failure.billed) == (Fault.BAD_REQUEST, Billed.NO)
    assert not api.requests


def test_s05_the_client_itself_refuses_an_open_address(make_client):
    with pytest.raises(InputError, match="https"):
        make_client("http://api.cometapi.com")


# -- the key


async def test_s01_the_key_is_in_no_repr_and_no_traceback(api, make_client, task):
    api.post(ANY, exception=KeyError("bug"))
    async with make_client(HOST) as client:
        assert "canary" not in repr(client)
        try:
            await client.send(task)
        except KeyError as error:
            told = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
    assert "KeyError" in told
    assert "canary" not in told


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500, 503, 504])
async def test_s02_a_key_that_is_echoed_is_redacted(liar, make_client, task, status):
    echo = f'{{"candidates": 5, "error": {{"message": "bad key {KEY}", "code": "{KEY}"}}}}'
    liar.says(liar.http(status, echo.encode(), {"X-Request-Id": KEY}))
    failure = await attempt(make_client, task, liar.url)
    assert isinstance(failure, Failure)
    assert "canary" not in repr(failure)
    assert b"canary" not in (failure.body or b"")


# -- memory


async def test_p13_bodies_wait_for_room_and_all_arrive(liar, make_client, task):
    body = b" " * 300_000
    liar.says(liar.http(200, body[:150_000], {"Content-Length": str(len(body))}), body[150_000:])
    async with make_client(liar.url, memory_bytes=400_000, concurrency=1) as client:
        highest = 0

        async def one():
            nonlocal highest
            reply = await client.send(task)
            highest = max(highest, client._budget.used_bytes)
            return len(reply.body)

        async with asyncio.TaskGroup() as group:
            sending = [group.create_task(one()) for _ in range(8)]
        await asyncio.sleep(0)
        assert [task.result() for task in sending] == [300_000] * 8
        assert highest <= 400_000 + CONNECTION_BYTES + 300_000
        assert client._budget.used_bytes == 0


async def test_p13_a_request_takes_no_room_while_its_answer_is_awaited(liar, make_client, make_task):
    task = make_task(prompt="x" * 1_000_000)
    liar.then_hangs()
    async with make_client(liar.url) as client, asyncio.TaskGroup() as group:
        sending = group.create_task(client.send(task))
        while not liar.bodies:
            await asyncio.sleep(0)
        assert b"x" * 1_000_000 in liar.bodies[0]
        assert client._budget.used_bytes == CONNECTION_BYTES
        sending.cancel()


# -- failpoints

SCRIPT = """
import asyncio, sys
from pipeline.model import Digests, Task
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.client import Client
from pipeline.settings import Limits, ProviderSettings

task = Task(id="j/r", job="j", row="r", variant=1, prompt="p", model="m", name="r", fingerprint="f",
            digests=Digests(prompt="", inputs="", params="", model=""))

async def main():
    settings = ProviderSettings(base_url=sys.argv[1])
    async with Client(settings, key="sk-0123456789", limits=Limits(), catalogue=Catalogue()) as client:
        client.read(await client.send(task), task)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "asked"),
    [
        pytest.param("connect", 0, id="R03-connect"),
        pytest.param("body", 1, id="R04-body"),
        pytest.param("decode", 1, id="R05-decode"),
    ],
)
async def test_failpoints_strike_where_they_say(liar, point, asked):
    liar.says(liar.http(200, b"{}"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, liar.url, env={**os.environ, "FAILPOINT": f"{point}:1:kill"}
    )
    assert await process.wait() == -signal.SIGKILL
    assert len(liar.heads) == asked
    assert liar.connections == 1


def test_a_plan_needs_no_network_library():
    code = "import sys, pipeline.provider; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
