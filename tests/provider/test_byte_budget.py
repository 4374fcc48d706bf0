"""Bytes in memory: bounded, and nobody waits for ever."""

import asyncio
import contextlib
import gc

import pytest

from pipeline.provider.byte_budget import CONNECTION_BYTES, UNREAD_BYTES, ByteBudget
from pipeline.settings import Limits

LIMIT = Limits().memory_bytes + Limits().concurrency * CONNECTION_BYTES


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_answers_share_the_room_and_the_oldest_always_gets_on():
    budget = ByteBudget(100)
    with budget.share() as old, budget.share() as young:
        await old.grow(60)
        await young.grow(40)
        waiting = asyncio.ensure_future(young.grow(1))
        await settle()
        assert not waiting.done()
        await old.grow(50)  # over the limit, because somebody has to finish
        assert repr(budget) == "<ByteBudget 150 of 100 bytes, 2 growing>"
        old.shrink(110)
        await asyncio.wait_for(waiting, 1)
        young.shrink(41)
    assert budget.used_bytes == 0


async def test_the_next_oldest_gets_on_when_the_oldest_is_judged():
    budget = ByteBudget(10)
    with budget.share() as young:
        with budget.share() as old:
            await old.grow(10)
            waiting = asyncio.ensure_future(young.grow(11))
            await settle()
        await settle()
        assert not waiting.done()  # the old one is whole, and its bytes will be given back
        old.release()
        await asyncio.wait_for(waiting, 1)
        assert (budget.used_bytes, budget.whole_bytes) == (11, 0)
        young.shrink(11)


async def test_a_request_waits_for_room_unless_it_is_alone():
    budget = ByteBudget(100)
    with budget.share() as one, budget.share() as two:
        await one.hold(500)  # larger than the limit: alone it may
        waiting = asyncio.ensure_future(two.hold(10))
        await settle()
        assert not waiting.done()
        one.shrink(500)
        await asyncio.wait_for(waiting, 1)
        two.shrink(10)


async def test_a_failed_exchange_gives_everything_back():
    budget = ByteBudget(100)
    with contextlib.suppress(ValueError), budget.share() as share:
        await share.grow(70)
        raise ValueError
    assert budget.used_bytes == 0


async def test_an_image_holds_its_bytes_until_it_is_dropped():
    budget = ByteBudget(100)
    with budget.share() as share:
        await share.grow(70)
    share.keep(50)
    await settle()
    assert (budget.used_bytes, budget.whole_bytes) == (50, 0)  # the oldest answer need not wait for it
    del share
    gc.collect()
    await settle()
    assert (budget.used_bytes, budget.whole_bytes) == (0, 0)


async def test_an_answer_carries_the_share_of_its_image(liar, make_client, task, pictures, answer_body):
    liar.says(liar.http(200, answer_body(pictures.png())))
    async with make_client(liar.url) as client:
        answer = client.read(await client.send(task), task)
        await settle()
        held = repr(client)
        del answer
        await settle()
        assert f"{len(pictures.png())} of {LIMIT} bytes" in held
        assert f"<ByteBudget 0 of {LIMIT} bytes" in repr(client)


@pytest.mark.parametrize("where", ["here", "in a thread"])
async def test_a_dropped_reply_gives_its_bytes_back(where):
    budget = ByteBudget(100)
    with budget.share() as share:
        await share.grow(70)
    kept = [share]
    del share
    gc.collect()
    assert budget.used_bytes == 70
    if where == "here":
        kept.clear()
    else:
        await asyncio.to_thread(kept.clear)
    await settle()
    assert budget.used_bytes == 0


async def test_a_cancelled_wait_leaves_no_trace():
    budget = ByteBudget(10)
    with budget.share() as old:
        await old.grow(10)

        async def young():
            with budget.share() as share:
                await share.grow(1)

        waiting = asyncio.ensure_future(young())
        await settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        old.shrink(10)
    assert repr(budget) == "<ByteBudget 0 of 10 bytes, 0 growing>"


async def test_those_who_wait_go_on_in_their_order_as_far_as_there_is_room():
    budget, done = ByteBudget(100), []

    async def ask(name, size):
        with budget.share() as share:
            await share.hold(size)
            done.append(name)
            await settle()
            share.shrink(size)

    with budget.share() as first:
        await first.hold(100)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(ask(name, size)) for name, size in [("a", 60), ("b", 70), ("c", 10)]]
            await settle()
            first.shrink(90)
            await settle()
            assert done == ["a"]  # room for c, but b was before it
            first.shrink(10)
            asking[1].cancel()
    assert (done, budget.used_bytes) == (["a", "c"], 0)


async def test_an_answer_that_waits_for_room_holds_back_requests_and_no_answers():
    budget = ByteBudget(UNREAD_BYTES + 100)
    with budget.share() as old, budget.share() as young, budget.share() as third:
        await old.grow(UNREAD_BYTES)
        waiting = asyncio.ensure_future(young.grow(161))
        asking = asyncio.ensure_future(third.hold(10))
        await settle()
        old.shrink(60)  # room for the request, were it not for what the waiting answer has on its connection
        await settle()
        assert not asking.done()
        assert (waiting.done(), budget.unread_bytes) == (False, UNREAD_BYTES)
        old.shrink(UNREAD_BYTES - 60)
        await asyncio.wait_for(waiting, 1)
        await asyncio.wait_for(asking, 1)
        assert (budget.used_bytes, budget.unread_bytes) == (171, 0)
        young.shrink(161)
        third.shrink(10)


async def test_an_open_connection_is_counted_until_its_answer_is_whole(liar, make_client, task):
    liar.then_hangs()
    async with make_client(liar.url) as client, asyncio.TaskGroup() as group:
        sending = group.create_task(client.send(task))
        while not liar.bodies:
            await asyncio.sleep(0)
        during = repr(client)
        sending.cancel()
        await asyncio.wait([sending])
        liar.says(liar.http(200, b"{}"))
        reply = await client.send(task)
        after = repr(client)
    assert f"<ByteBudget {CONNECTION_BYTES} of {LIMIT} bytes" in during
    assert f"<ByteBudget {len(reply.body)} of {LIMIT} bytes" in after
