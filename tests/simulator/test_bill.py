"""The bill: one line for every answer, no key in it, written before the body."""

import asyncio
import hashlib

import aiohttp
import msgspec
import pytest

PRO = "gemini-3-pro-image"


def lines(path):
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


async def test_an_image_is_one_line_with_everything_about_it(start, tmp_path):
    bill = tmp_path / "bill.jsonl"
    asker = await start(bill=bill)
    prompt = "A red mug, " + "very " * 30
    config = {"seed": 11, "imageConfig": {"aspectRatio": "3:2", "imageSize": "2K"}}
    heard = await asker.ask(prompt, model=PRO, config=config)
    (entry,) = lines(bill)
    usage = heard.json["usageMetadata"]
    text = usage["candidatesTokenCount"] - 1120 + usage["thoughtsTokenCount"]
    assert entry | {"time": 0, "request_id": 0, "key": 0} == {
        "time": 0, "request": 1, "request_id": 0, "key": 0, "status": 200, "outcome": "image", "billed": True,
        "price_microusd": 1120 * 120 + text * 12 + usage["promptTokenCount"] * 2, "model": PRO, "size": "2K",
        "ratio": "3:2",
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(), "prompt": prompt[:80], "input_images": 0,
        "images": 1, "image_sha256": [hashlib.sha256(heard.data).hexdigest()], "seed": 11, "fault": None,
    }  # fmt: skip


async def test_what_was_turned_away_is_a_line_that_is_not_billed(start, tmp_path):
    bill = tmp_path / "bill.jsonl"
    asker = await start(bill=bill, limits={"requests_per_minute": 3})
    await asker.ask(key="")
    await asker.ask(model="gemini-9")
    await asker.ask(config={"imageConfig": {"imageSize": "9K"}}, model=PRO)
    await asker.ask("[[internal]]")
    await asker.ask()
    assert [(e["status"], e["outcome"], e["billed"]) for e in lines(bill)] == [
        (401, "error", False),
        (503, "error", False),
        (400, "error", False),
        (500, "error", False),
        (429, "error", False),
    ]


@pytest.mark.parametrize(
    ("word", "outcome", "images"),
    [
        ("refuse", "refused", 0),
        ("no_image", "no_image", 0),
        ("prompt_blocked", "refused", 0),
        ("cut_image", "image", 1),
    ],
)
async def test_a_whole_200_is_billed_by_its_tokens(start, tmp_path, word, outcome, images):
    bill = tmp_path / "bill.jsonl"
    await (await start(bill=bill)).ask(f"[[{word}]]")
    (entry,) = lines(bill)
    assert (entry["outcome"], entry["billed"]) == (outcome, True)
    assert 0 < entry["price_microusd"] - images * 1290 * 30 < 50  # the prompt, and up to 14 tokens beside the image


async def test_the_key_never_stands_in_it_and_two_keys_differ(start, tmp_path):
    bill = tmp_path / "bill.jsonl"
    asker = await start(bill=bill)
    await asker.ask(key="sk-secret-one")
    await asker.ask(key="sk-secret-two")
    await asker.ask(key="sk-secret-one")
    assert "secret" not in bill.read_text()
    first, second, third = (entry["key"] for entry in lines(bill))
    assert first == third != second


async def test_a_client_that_left_is_billed_all_the_same(start, time, tmp_path, monkeypatch):
    """The client gives up while the answer is being made; the work goes on and is paid."""
    inside, go, written = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(_):
        inside.set()
        await go.wait()
        written.set()

    monkeypatch.setattr(time, "sleep", wait)
    bill = tmp_path / "bill.jsonl"
    asker = await start(bill=bill)
    request = asyncio.ensure_future(asker.ask())
    await inside.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    go.set()
    await written.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    (entry,) = lines(bill)
    assert (entry["outcome"], entry["billed"]) == ("image", True)


async def test_it_is_written_before_the_body_is_sent(start, tmp_path):
    bill = tmp_path / "bill.jsonl"
    asker = await start(bill=bill)
    with pytest.raises(aiohttp.ClientError):
        await asker.ask("[[disconnect]]")
    assert lines(bill)[0]["billed"] is True


async def test_a_second_simulator_appends(start, tmp_path):
    bill = tmp_path / "bill.jsonl"
    for _ in range(2):
        await (await start(bill=bill)).ask()
    assert len(lines(bill)) == 2


async def test_without_a_seed_each_asking_gets_its_own_and_the_bill_says_which(start, tmp_path):
    bill = tmp_path / "bill.jsonl"
    asker = await start(bill=bill)
    first, second = await asker.ask(), await asker.ask()
    assert first.data != second.data
    assert [entry["seed"] for entry in lines(bill)] == [0, 1]
