"""The server: started, addressed, stopped."""

import asyncio
import os
import signal
import time

import aiohttp
import pytest

from pipeline.errors import InputError, StorageError
from pipeline.simulator.server import Simulator, serve


async def test_it_listens_on_a_free_port_of_this_machine(quick_profile):
    async with Simulator(quick_profile()) as simulator:
        assert simulator.base_url.startswith("http://127.0.0.1:")
        assert simulator.key == "simulator"
        assert simulator.base_url in repr(simulator)


async def test_a_connection_is_kept_for_the_next_request(quick_profile):
    made, trace = [], aiohttp.TraceConfig()

    async def note(*_):
        made.append(1)

    trace.on_connection_create_end.append(note)
    async with Simulator(quick_profile()) as simulator, aiohttp.ClientSession(trace_configs=[trace]) as session:
        url = f"{simulator.base_url}/v1beta/models/gemini-2.5-flash-image:generateContent"
        for body, status in (({"contents": [{"parts": [{"text": "a mug"}]}]}, 200), ({}, 500), ({}, 500)):
            async with session.post(url, json=body, headers={"Authorization": "x"}) as response:
                assert response.status == status
                await response.read()
    assert len(made) == 1


async def test_after_the_context_the_port_is_closed(quick_profile):
    async with Simulator(quick_profile()) as simulator:
        address = simulator.base_url
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(address)


async def test_a_port_in_use_says_what_to_do(quick_profile):
    async with Simulator(quick_profile()) as first:
        port = int(first.base_url.rsplit(":", 1)[1])
        with pytest.raises(InputError, match="choose another --port"):
            await Simulator(quick_profile(), port=port).__aenter__()


async def test_a_bill_that_cannot_be_written_is_a_storage_error(quick_profile, tmp_path):
    with pytest.raises(StorageError, match="cannot be written"):
        await Simulator(quick_profile(), tmp_path / "no" / "bill").__aenter__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serve_announces_its_address_and_stops_on_a_signal(quick_profile, number):
    announced = []

    def announce(simulator):
        announced.append(simulator.base_url)
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)

    await serve(quick_profile(), port=0, announce=announce)
    assert announced[0].startswith("http://127.0.0.1:")


async def test_an_answer_that_is_ready_in_the_moment_it_is_given_up_raises_nothing(quick_profile, caplog):
    awaited = asyncio.Event()

    async def nearly_too_long(_: float) -> None:
        awaited.set()
        await asyncio.sleep(0.4)

    async with aiohttp.ClientSession() as session:
        async with Simulator(quick_profile(), sleep=nearly_too_long) as simulator:
            url = f"{simulator.base_url}/v1beta/models/gemini-2.5-flash-image:generateContent"
            body = {"contents": [{"parts": [{"text": "a mug"}]}]}
            asking = asyncio.create_task(session.post(url, json=body, headers={"Authorization": "x"}))
            await awaited.wait()
            asyncio.get_running_loop().call_later(0.1, time.sleep, 0.6)  # a busy loop: both times are over after it
        await asyncio.wait([asking])
    assert caplog.messages == []
