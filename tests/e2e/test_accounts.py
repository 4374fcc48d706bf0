"""What is no task's fault (keys, accounts, regions, addresses), what is refused, and what is paid for in vain."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.errors import Exit
from tests.e2e.scripted import KEY, Scripted, Shop, Step, ok, said, serving, words
from tests.provider.conftest import Liar

LEAKED = "Your API key was reported as leaked. Please use another API key."
EXPIRED = "API key expired. Please renew the API key. (request id: 20261128184500123456789AbCdEfGh)"
CAP = "Your billing account has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/billing"
LIMIT_0 = (
    "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: "
    "generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0\nPlease retry in 37.363665079s."
)
RELAYED = {"type": "upstream_error", "param": "", "code": "bad_response_status_code"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", KEY)


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    async with serving(Scripted()) as script:
        yield script


@pytest.fixture
def shop(script: Scripted, tmp_path: Path) -> Shop:
    return Shop(tmp_path, script.url, rows=8)


@pytest.mark.parametrize(
    ("answer", "most"),
    [
        pytest.param(said(403, LEAKED, code=403, status="PERMISSION_DENIED"), 1, id="leaked"),
        pytest.param(said(403, LEAKED, **RELAYED), 2, id="leaked-relayed"),
        pytest.param(said(400, EXPIRED, **RELAYED), 2, id="expired-relayed"),
        pytest.param(said(500, EXPIRED, **RELAYED), 2, id="expired-relayed-as-500"),
        pytest.param(said(429, CAP, code=429, status="RESOURCE_EXHAUSTED"), 1, id="spending-cap"),
        pytest.param(said(429, LIMIT_0, type="upstream_error", code=429), 2, id="limit-0-relayed"),
        pytest.param(said(400, "User location is not supported for the API use.", code=400), 2, id="region"),
        pytest.param(said(403, "m", details=[{"reason": "CONSUMER_SUSPENDED"}]), 1, id="suspended"),
        pytest.param(words("PUP_LIMITED_DISABLED", ""), 1, id="limited"),
        pytest.param(said(404, "Invalid URL (POST /v1beta/openai/v1beta/models/m)"), 1, id="address"),
        pytest.param(Liar.http(404, b"<html><title>404 Not Found</title></html>"), 1, id="address-page"),
    ],
)
async def test_what_a_person_must_mend_costs_one_or_two_requests_and_no_task(
    script: Scripted, shop: Shop, answer: Step, most: int
) -> None:
    script.always = answer
    summary = await shop.run(concurrency=4)
    assert (summary.exit, shop.states) == (Exit.ACCOUNT, {"pending": 8})
    assert script.posts <= most
    assert (summary.failed, summary.spent_microusd, summary.unknown_microusd) == (0, 0, 0)
    script.always = None
    assert (await shop.run(concurrency=4)).exit is Exit.OK
    assert shop.states == {"done": 8}


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize(
    ("answer", "answers"),
    [
        pytest.param(said(429, CAP, code=429, status="RESOURCE_EXHAUSTED"), 6, id="spending-cap"),
        pytest.param(said(400, EXPIRED, **RELAYED), 6, id="expired-relayed"),
        pytest.param(said(403, LEAKED, code=403, status="PERMISSION_DENIED"), 6, id="leaked"),
        pytest.param(words("PUP_LIMITED_DISABLED", ""), 1, id="limited"),
    ],
)
async def test_a_cause_that_appears_in_mid_run_stops_it_and_the_same_command_goes_on(
    script: Scripted, shop: Shop, answer: Step, answers: int, concurrency: int
) -> None:
    script.judge = lambda number, _row: answer if number > 10 else None
    script.latency_s = 0.005
    shop.rows = 24
    summary = await shop.run(concurrency=concurrency)
    assert (summary.exit, summary.failed) == (Exit.ACCOUNT, 0)
    # `answers` in a row stop it. What is in flight beside the first of them may be images, each of which makes the
    # count start anew; beside the last one are more such answers: (answers - 1) * others + answers + others.
    assert 10 + answers <= script.posts <= 10 + answers * concurrency
    assert shop.states == {"done": summary.images, "pending": 24 - summary.images}
    script.judge = lambda _number, _row: None
    assert (await shop.run(concurrency=4)).exit is Exit.OK


@pytest.mark.parametrize(
    ("answer", "which"),
    [
        pytest.param(said(400, EXPIRED, **RELAYED), "every-fourth", id="relayed-every-fourth"),
        pytest.param(said(400, EXPIRED, **RELAYED), "every-second", id="relayed-every-second"),
        pytest.param(said(400, EXPIRED, code=400, status="INVALID_ARGUMENT"), "every-second", id="as-google-says-it"),
        pytest.param(said(429, LIMIT_0, code=429), "at-random", id="limit-0-at-random"),
    ],
)
async def test_one_dead_key_of_several_behind_a_relay_costs_nothing(
    script: Scripted, shop: Shop, answer: Step, which: str
) -> None:
    dice = random.Random(5)
    is_dead = {
        "every-fourth": lambda number: number % 4 == 2,
        "every-second": lambda number: number % 2 == 0,
        "at-random": lambda _number: dice.random() < 0.25,
    }[which]
    script.judge = lambda number, _row: answer if is_dead(number) else None
    shop.rows = 24
    summary = await shop.run(concurrency=4)
    assert (summary.exit, shop.states) == (Exit.OK, {"done": 24})
    assert summary.spent_microusd == 24 * 40_000


@pytest.mark.parametrize("quotes", ['""', "''", "“”"], ids=["double", "single", "typographic"])
async def test_a_key_in_quotes_is_sent_without_them(
    script: Scripted, shop: Shop, monkeypatch: pytest.MonkeyPatch, quotes: str
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", f"{quotes[0]}{KEY}{quotes[1]}")
    shop.rows = 1
    assert (await shop.run()).exit is Exit.OK
    assert f"Authorization: {KEY}\r\n".encode() in script.heads[0]


# -- refusals that arrive as errors ---------------------------------------------------------------------------------

BLOCKED = (
    "Gemini image generation blocked [IMAGE_SAFETY]: The generated image was blocked due to safety policy violation"
)


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": BLOCKED, "type": "channel_error", "code": "channel:image_generation_failed"}, "IMAGE_SAFETY"),
        ({"message": "request blocked by Gemini API: PROHIBITED_CONTENT", "code": "prompt_blocked"}, "PROHIBITED"),
    ],
    ids=["channel-error", "prompt-blocked"],
)
async def test_a_refusal_that_arrives_as_an_error_costs_one_request_and_stops_nothing(
    script: Scripted, shop: Shop, status: int, error: dict[str, str], code: str
) -> None:
    blocked = Liar.http(status, json.dumps({"error": error}).encode())
    script.judge = lambda _number, row: blocked if row in {f"row{n}" for n in range(6)} else None
    summary = await shop.run(concurrency=4)
    assert (summary.exit, shop.states) == (Exit.SOME_FAILED, {"refused": 6, "done": 2})
    assert script.posts == 8
    assert code in shop.task("row0").reason
    await shop.run(concurrency=4)
    assert script.posts == 8


# -- paid answers without an image ----------------------------------------------------------------------------------

LINK = words(text="Here is your image:\n\n![image](https://img.example.net/file/2026/11/28/0001-a1b2c3.png)\n")


@pytest.mark.parametrize(
    ("answer", "paid_each"),
    [
        pytest.param(LINK, 1, id="links"),
        pytest.param(words(), 3, id="words"),
        pytest.param(Liar.http(200, b'{"candidates": ['), 2, id="broken-json"),
        pytest.param(words(text=f"data:image/png;base64,{'iVBOR' * 40}"), 3, id="broken-uris"),
    ],
)
async def test_paid_answers_without_an_image_stop_the_run(
    script: Scripted, shop: Shop, answer: Step, paid_each: int
) -> None:
    script.always = answer
    shop.rows = 60
    summary = await shop.run(concurrency=8)
    assert summary.exit is Exit.SOME_FAILED
    assert script.posts <= 5 * paid_each  # one at a time, until an image has come
    assert summary.pending >= 60 - 5
    assert "5 tasks in a row were paid for ($" in summary.reasons[0]
    assert len(shop.rejected) == script.posts  # whole answers
    assert all(path.read_bytes() in answer for path in shop.rejected if isinstance(answer, bytes))


async def test_a_link_is_not_asked_for_again(script: Scripted, shop: Shop) -> None:
    script.judge = lambda _number, row: LINK if row == "row1" else None
    summary = await shop.run(concurrency=1)
    assert (summary.exit, script.rows.count("row1"), script.posts) == (Exit.SOME_FAILED, 1, 8)
    assert "https://img.example.net/file/2026/11/28/0001-a1b2c3.png" in shop.task("row1").reason


async def test_images_between_them_and_refusals_stop_nothing(script: Scripted, shop: Shop) -> None:
    script.judge = lambda number, row: LINK if int(row[3:]) % 5 else words("IMAGE_SAFETY") if row == "row0" else None
    shop.rows = 11
    summary = await shop.run(concurrency=1)
    assert (summary.exit, script.posts) == (Exit.SOME_FAILED, 11)


@pytest.mark.parametrize(("most", "posts"), [(2, 2), (9, 9)], ids=["tightened", "lifted"])
async def test_stop_on_says_how_many_may_be_paid_for_in_vain(
    script: Scripted, shop: Shop, most: int, posts: int
) -> None:
    script.always = LINK
    shop.rows, shop.extra = 20, f"limits: {{stop_on: {{consecutive_failures: {most}}}}}"
    await shop.run(concurrency=1)
    assert script.posts == posts


async def test_a_stream_of_events_is_an_answer(script: Scripted, shop: Shop) -> None:
    body = ok().partition(b"\r\n\r\n")[2]
    script.always = Liar.http(200, b"data: " + body + b"\n\ndata: [DONE]\n\n", {"Content-Type": "text/event-stream"})
    shop.rows = 1
    assert (await shop.run()).exit is Exit.OK
    assert (script.posts, shop.images) == (1, ["row0"])
