"""Every answer a provider can give, against whole runs: what is repeated, what stops the run, what it leaves behind."""

import asyncio
import gzip
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.events import Paused, RunSummary, Warned
from pipeline.errors import Exit, TryLater
from pipeline.model import TaskState
from pipeline.plan.decide import Rules
from pipeline.view.run import run_json
from tests.e2e.conftest import Forked
from tests.e2e.scripted import KEY, Scripted, Shop, Step, hang_up, hurried, ok, said, serving, words
from tests.provider.conftest import Liar, answer_json, png

PRICE = 40_000
STEADY = (
    "limits: {concurrency: {max: 1, adaptive: false}}"  # nothing is learned from push-backs: no wait but the backoff
)
SAFETY = words("IMAGE_SAFETY", "Not this one.")
Open = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", KEY)


@pytest.fixture
async def script() -> AsyncIterator[Scripted]:
    async with serving(Scripted()) as script:
        yield script


@pytest.fixture
def shop(script: Scripted, tmp_path: Path) -> Shop:
    return Shop(tmp_path, script.url)


def twice(status: int, **more: Any) -> list[Step]:
    return [said(status, **more), ok()]


# -- one task: how often it is asked, where it stands then, what it cost --------------------------------------------

DONE, FAILED, REFUSED, UNKNOWN = TaskState.DONE, TaskState.FAILED, TaskState.REFUSED, TaskState.UNKNOWN
PAGE = Liar.http(502, b"<html><title>Bad gateway</title></html>", {"Content-Type": "text/html"})
CUT = Liar.http(200, answer_json(png())[:-40], {"Content-Length": "99999"})
NOT_WHOLE = Liar.http(200, answer_json(png()[:-20]))
HALF_JSON = Liar.http(200, answer_json(png())[:-30])
LATER_PAGE = Liar.http(200, b"<html><title>Just a moment...</title></html>", {"Content-Type": "text/html"})
NO_LENGTH = b"HTTP/1.1 200 OK\r\n\r\n" + answer_json(png())[:-30]
SHORT_GZIP = Liar.http(200, gzip.compress(answer_json(png()))[:-20], {"Content-Encoding": "gzip"})
INSIDE = Liar.http(
    200, json.dumps({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow"}}).encode()
)

ALONE = [  # answers in order, POSTs, state, spent and unknown in images
    pytest.param(twice(500), 2, DONE, 1, 0, id="H01-500"),
    pytest.param([said(500, code="invalid_request")], 1, FAILED, 0, 0, id="H02-invalid-request"),
    pytest.param([said(500, code="convert_request_failed")], 1, FAILED, 0, 0, id="H02-convert-request-failed"),
    pytest.param([PAGE, ok()], 2, DONE, 1, 0, id="H03-H46-502-page"),
    *(pytest.param(twice(n), 2, DONE, 1, 0, id=f"H03-{n}") for n in (520, 521, 522, 523, 529)),
    pytest.param(twice(503), 2, DONE, 1, 0, id="H04-503"),
    *(pytest.param(twice(n), 2, DONE, 1, 1, id=f"H06-H13-{n}-then-image") for n in (408, 504, 524)),
    pytest.param([said(504)], 2, UNKNOWN, 0, 2, id="H06-504-for-ever"),
    pytest.param([said(429)] * 7 + [ok()], 8, DONE, 1, 0, id="H07-429-is-not-counted"),
    pytest.param([INSIDE, ok()], 2, DONE, 1, 0, id="H49-error-inside-200"),
    *(pytest.param(twice(n), 2, DONE, 1, 0, id=f"H13-{n}") for n in (409, 425)),
    pytest.param([said(404)], 1, FAILED, 0, 0, id="H18-404"),
    pytest.param([said(400)], 1, FAILED, 0, 0, id="H19-400"),
    *(pytest.param([said(n)], 1, FAILED, 0, 0, id=f"H20-{n}") for n in (413, 415, 422)),
    *(pytest.param([said(n)], 1, FAILED, 0, 0, id=f"H21-{n}") for n in (418, 451)),
    pytest.param([said(403)], 1, FAILED, 0, 0, id="H17-403"),
    pytest.param([hang_up, ok()], 2, DONE, 1, 1, id="H28-closed-then-image"),
    pytest.param([hang_up], 2, UNKNOWN, 0, 2, id="H28-closed-for-ever"),
    pytest.param([CUT], 2, UNKNOWN, 0, 2, id="H33-cut-body"),
    pytest.param([NO_LENGTH, ok()], 2, DONE, 2, 0, id="H34-no-length-and-cut"),
    pytest.param([SHORT_GZIP, ok()], 2, DONE, 2, 0, id="H35-cut-gzip"),
    pytest.param([b"HTTP/1.1 400 " + b"x" * 100_000 + b"\r\n\r\n"], 2, UNKNOWN, 0, 2, id="H42-endless-status-line"),
    pytest.param([b"GARBAGE\r\n\r\n"], 2, UNKNOWN, 0, 2, id="H42-no-http"),
    pytest.param([Liar.http(200)], 2, FAILED, 2, 0, id="H44-empty-body"),
    pytest.param([LATER_PAGE, ok()], 2, DONE, 2, 0, id="H45-page-later"),
    pytest.param([HALF_JSON], 2, FAILED, 2, 0, id="H47-half-json"),
    pytest.param([Liar.http(200, b"[]")], 2, FAILED, 2, 0, id="H48-wrong-shape"),
    pytest.param([NOT_WHOLE, ok()], 2, DONE, 2, 0, id="H58-cut-image-then-whole"),
    pytest.param([NOT_WHOLE], 2, FAILED, 2, 0, id="H58-cut-image-for-ever"),
    pytest.param([words()], 3, FAILED, 3, 0, id="H62-text-only"),
    pytest.param([words("NO_IMAGE", "")], 3, FAILED, 3, 0, id="H62-no-image"),
    pytest.param([words(), words(), ok()], 3, DONE, 3, 0, id="H62-third-time-lucky"),
    *(
        pytest.param([words(finish)], 1, REFUSED, 1, 0, id=f"{row}-{finish}")
        for row, finish in [
            ("H63", "SAFETY"),
            ("H63", "IMAGE_SAFETY"),
            ("H63", "PROHIBITED_CONTENT"),
            ("H63", "IMAGE_PROHIBITED_CONTENT"),
            ("H63", "BLOCKLIST"),
            ("H63", "SPII"),
            ("H64", "RECITATION"),
            ("H64", "IMAGE_RECITATION"),
        ]
    ),
    pytest.param([words("MAX_TOKENS", "")], 3, FAILED, 3, 0, id="H65-max-tokens"),
    pytest.param([said(505)], 2, FAILED, 0, 2, id="anything-else"),
    pytest.param([said(500)] * 4 + [ok()], 5, DONE, 1, 0, id="H01-fifth-attempt"),
]


@pytest.mark.parametrize(("answers", "posts", "state", "spent", "unknown"), ALONE)
async def test_a_task_is_asked_and_billed_as_the_table_says(
    script: Scripted, shop: Shop, answers: list[Step], posts: int, state: TaskState, spent: int, unknown: int
) -> None:
    script.scripts = {"row1": list(answers)}  # row0 has an image: the first answer of a run is judged apart
    shop.rows, shop.extra = 2, STEADY
    summary = await shop.run()
    assert script.rows.count("row1") == posts
    assert shop.task("row1").state is state
    assert summary.exit is (Exit.OK if state is DONE else Exit.SOME_FAILED)
    assert (summary.spent_microusd, summary.unknown_microusd) == ((spent + 1) * PRICE, unknown * PRICE)
    assert shop.images == (["row0", "row1"] if state is DONE else ["row0"])


async def test_H62_the_models_words_are_the_reason(script: Scripted, shop: Shop) -> None:
    script.always = words("NO_IMAGE", "I can only talk about mugs.")
    await shop.run()
    assert "I can only talk about mugs." in shop.task().reason


async def test_H58_what_is_not_whole_is_kept_byte_for_byte(script: Scripted, shop: Shop) -> None:
    script.always = NOT_WHOLE
    await shop.run()
    assert [path.read_bytes() for path in shop.rejected] == [png()[:-20]] * 2


@pytest.mark.parametrize("body", [HALF_JSON, Liar.http(200, b"[]")], ids=["H47-half-json", "H48-wrong-shape"])
async def test_an_answer_that_cannot_be_read_is_kept(script: Scripted, shop: Shop, body: bytes) -> None:
    script.always = body
    await shop.run()
    assert [path.read_bytes() for path in shop.rejected] == [body.partition(b"\r\n\r\n")[2]] * 2


async def test_H74_an_answer_after_our_timeout_changes_nothing(script: Scripted, shop: Shop) -> None:
    script.latency_s = 0.2
    shop.extra, shop.timeout = "retry: {unknown: 0}", "100ms"
    summary = await shop.run()
    assert (summary.exit, shop.states, shop.images) == (Exit.SOME_FAILED, {"unknown": 1}, [])


# -- what stands between runs ---------------------------------------------------------------------------------------


async def test_H63_a_refusal_is_remembered_until_its_request_changes(script: Scripted, shop: Shop) -> None:
    script.scripts = {"row1": [SAFETY]}
    shop.rows = 3
    assert (await shop.run()).exit is Exit.SOME_FAILED
    again = await shop.run()
    assert (again.exit, again.attempts, script.posts) == (Exit.SOME_FAILED, 0, 3)
    assert "Not this one." in shop.task("row1").reason
    script.scripts = {"row1": [ok()]}
    shop.prompt = "A blue mug, its number is"
    assert (await shop.run(select=("mugs/row1",))).exit is Exit.OK
    assert script.rows[3:] == ["row1"]


async def test_H63_retry_refused_asks_again(script: Scripted, shop: Shop) -> None:
    script.scripts = {"row0": [SAFETY, ok()]}
    await shop.run()
    assert (await shop.retry(TaskState.FAILED)).attempts == 0
    assert (await shop.retry(TaskState.REFUSED)).exit is Exit.OK
    assert script.posts == 2


async def test_a_failed_task_waits_for_retry(script: Scripted, shop: Shop) -> None:
    script.scripts = {"row0": [said(400), ok()]}
    await shop.run()
    again = await shop.run()
    assert (again.exit, again.attempts) == (Exit.SOME_FAILED, 0)
    assert (await shop.retry(TaskState.FAILED)).exit is Exit.OK
    assert script.posts == 2


async def test_P3_an_unknown_is_repeated_once_over_all_runs(script: Scripted, shop: Shop) -> None:
    script.always = hang_up
    shop.extra = "retry: {unknown: 1, attempts: 1, wait: {initial: 10ms, max: 50ms}}"
    for posts in (1, 2, 2):
        assert (await shop.run()).exit is Exit.SOME_FAILED
        assert script.posts == posts
    assert shop.states == {"unknown": 1}
    script.always = ok()
    assert (await shop.retry(TaskState.UNKNOWN)).exit is Exit.OK


async def test_an_edited_image_of_an_earlier_prompt_lets_no_night_buy_another_one(script: Scripted, shop: Shop) -> None:
    shop.extra = "retry: {attempts: 1}"
    await shop.run()
    shop.prompt, script.always = "A blue mug, its number is", said(500)
    await shop.run()
    assert shop.states == {"pending": 1}
    image = next((shop.folder / "out" / "mugs").glob("row0.*"))
    image.write_bytes(image.read_bytes() + b"edited")
    script.always, posts = None, script.posts
    for _night in range(2):
        assert (await shop.run()).exit is Exit.SOME_FAILED
    assert script.posts == posts
    assert (await shop.run(rules=Rules(force=True))).images == 1


async def test_P3_an_unknown_is_listed_with_time_price_and_request_id(script: Scripted, shop: Shop) -> None:
    script.always = said(504, headers={"x-request-id": "req-12345678"})
    shop.extra = "retry: {unknown: 0}"
    before = datetime.now(UTC).replace(microsecond=0)
    await shop.run()
    (unknown,) = shop.status["unknown"]
    assert (unknown["task"], unknown["price_usd"], unknown["request_id"]) == ("mugs/row0", 0.04, "req-12345678")
    assert unknown["attempt"] == 1
    assert before <= datetime.fromisoformat(unknown["sent_at"]) <= datetime.now(UTC)
    assert shop.status["cost_usd"]["unknown"] == 0.04
    assert shop.history()[0].request_id == "req-12345678"


async def test_attempts_are_counted_for_each_task(script: Scripted, shop: Shop) -> None:
    script.judge = lambda _number, row: said(504) if row == "row2" else None
    shop.rows = 3
    await shop.run(concurrency=1)
    assert [unknown["attempt"] for unknown in shop.status["unknown"]] == [1, 2]
    assert [attempt.attempt for attempt in shop.history("row2")] == [1, 2]


# -- what stops a run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(said(401, "bad key"), id="H14-401"),
        pytest.param(said(402), id="H16-402"),
        pytest.param(said(403, code="insufficient_user_quota"), id="H16-403-quota"),
        pytest.param(said(403, "your credit balance is too low"), id="H16-403-credit"),
        pytest.param(said(400, details=[{"reason": "API_KEY_INVALID"}]), id="H14-400-api-key-invalid"),
        pytest.param(Liar.http(302, headers={"Location": "http://127.0.0.1:1/"}), id="H22-redirect"),
        pytest.param(Liar.http(308, headers={"Location": "/v2"}), id="H23-redirect-same-host"),
        pytest.param(Liar.http(200, b"<html><title>Login</title></html>"), id="H45-page-first"),
    ],
)
async def test_a_wrong_key_account_or_address_costs_one_request(script: Scripted, shop: Shop, answer: bytes) -> None:
    script.always = answer
    shop.rows = 100
    summary = await shop.run(concurrency=24)
    assert (summary.exit, script.posts) == (Exit.ACCOUNT, 1)
    assert shop.states == {"pending": 100}
    assert summary.spent_microusd == summary.unknown_microusd == 0


async def test_H22_nothing_is_sent_to_the_place_a_redirect_names(script: Scripted, shop: Shop) -> None:
    async with serving(Scripted()) as elsewhere:
        script.always = Liar.http(307, headers={"Location": f"{elsewhere.url}/v1beta/models/x:generateContent"})
        assert (await shop.run()).exit is Exit.ACCOUNT
        assert elsewhere.posts == 0


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(said(401), id="H15-401"),
        pytest.param(said(402), id="H16-402"),
        pytest.param(said(403, code="insufficient_user_quota"), id="H16-403"),
    ],
)
async def test_an_account_that_runs_dry_wastes_at_most_what_is_in_flight(
    script: Scripted, shop: Shop, answer: bytes
) -> None:
    script.judge = lambda number, _row: answer if number >= 50 else None
    script.latency_s = 0.005
    shop.rows = 100
    summary = await shop.run(concurrency=8)
    assert summary.exit is Exit.ACCOUNT
    assert 50 <= script.posts <= 50 + 7
    assert shop.states == {"done": 49, "pending": 51} == {"done": summary.images, "pending": summary.pending}
    script.judge = lambda _number, _row: None
    assert (await shop.run(concurrency=8)).exit is Exit.OK


async def test_H17_five_forbidden_in_a_row_stop(script: Scripted, shop: Shop) -> None:
    script.judge = lambda number, _row: said(403, "not from here") if number > 3 else None
    shop.rows = 30
    summary = await shop.run(concurrency=1)
    assert (summary.exit, script.posts, shop.states) == (Exit.ACCOUNT, 8, {"done": 3, "pending": 27})
    assert "not from here" in summary.reasons[0]
    assert (summary.failed, summary.pending) == (0, 27)


async def test_H17_forbidden_here_and_there_fails_only_those(script: Scripted, shop: Shop) -> None:
    script.judge = lambda number, _row: said(403) if number % 2 else None
    shop.rows = 20
    summary = await shop.run(concurrency=1)
    assert (summary.exit, shop.states) == (Exit.SOME_FAILED, {"done": 10, "failed": 10})


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        pytest.param(404, Exit.ACCOUNT, id="H18-404"),
        pytest.param(400, Exit.SOME_FAILED, id="H19-400"),
        pytest.param(422, Exit.SOME_FAILED, id="H20-422"),
    ],
)
async def test_the_first_five_all_mistaken_stop_the_run(
    script: Scripted, shop: Shop, status: int, exit_code: Exit
) -> None:
    script.always = said(status, "no such thing")
    shop.rows = 40
    summary = await shop.run(concurrency=1)
    states = {"pending": 40} if exit_code is Exit.ACCOUNT else {"failed": 5, "pending": 35}
    assert (summary.exit, script.posts, shop.states) == (exit_code, 5, states)
    assert "no such thing" in summary.reasons[0]


async def test_H19_the_first_five_mistaken_waste_at_most_what_is_in_flight(script: Scripted, shop: Shop) -> None:
    script.always = said(400)
    script.latency_s = 0.005
    shop.rows = 40
    await shop.run(concurrency=8)
    assert 5 <= script.posts <= 5 + 7


async def test_H18_after_an_image_mistakes_are_the_tasks_own(script: Scripted, shop: Shop) -> None:
    script.judge = lambda number, _row: said(404) if number > 1 else None
    shop.rows = 20
    summary = await shop.run()
    assert (summary.exit, shop.states) == (Exit.SOME_FAILED, {"done": 1, "failed": 19})


async def test_H05_a_model_that_is_not_found_stops_after_three_tries(script: Scripted, shop: Shop) -> None:
    script.always = said(503, "no channel for this model", code="model_not_found")
    script.latency_s = 0.005
    shop.rows = 40
    summary = await shop.run(concurrency=8)
    assert (summary.exit, shop.states) == (Exit.ACCOUNT, {"pending": 40})
    assert script.posts == 3
    assert "gemini-3" in summary.reasons[0]


async def test_H05_a_model_that_comes_back_stops_nothing(script: Scripted, shop: Shop) -> None:
    script.scripts = {"row0": [said(503, code="model_not_found")] * 2 + [ok()]}
    assert (await shop.run()).exit is Exit.OK


async def test_stop_on_counts_tasks_that_failed_for_good_and_no_refusals(script: Scripted, shop: Shop) -> None:
    script.judge = lambda number, _row: None if number == 1 else SAFETY if number <= 10 else said(400)
    shop.rows, shop.extra = 40, "limits: {concurrency: 1, stop_on: {consecutive_failures: 4}}"
    summary = await shop.run()
    assert (summary.exit, script.posts) == (Exit.SOME_FAILED, 14)
    assert shop.states == {"done": 1, "refused": 9, "failed": 4, "pending": 26}


async def test_stop_on_a_failure_rate(script: Scripted, shop: Shop) -> None:
    script.judge = lambda number, _row: said(400) if number % 2 == 0 else None
    shop.rows, shop.extra = 40, "limits: {concurrency: 1, stop_on: {failure_rate: 30%, after: 10}}"
    summary = await shop.run()
    assert summary.exit is Exit.SOME_FAILED
    assert 10 <= script.posts <= 12  # a task ends when it is written down; the next is asked meanwhile


async def test_max_tasks_leaves_the_rest_pending(script: Scripted, shop: Shop) -> None:
    shop.rows, shop.extra = 9, "limits: {max_tasks: 4}"
    summary = await shop.run()
    assert (summary.exit, script.posts, shop.states) == (Exit.BUDGET, 4, {"done": 4, "pending": 5})


async def test_max_duration_saves_what_is_in_flight_and_leaves_the_rest_pending(script: Scripted, shop: Shop) -> None:
    script.latency_s = 0.08
    shop.rows = 200
    summary = await shop.run(concurrency=2, max_duration_s=0.3)
    assert summary.exit is Exit.MAX_DURATION
    tasks = shop.status["tasks"]  # a busy machine may take the 0.3 s to begin
    assert (tasks["done"], tasks["pending"]) == (script.posts, 200 - script.posts)


# -- waiting --------------------------------------------------------------------------------------------------------


HINTS = [
    pytest.param(said(429, headers={"Retry-After": "1"}), 1.0, id="H08-seconds"),
    pytest.param(said(503, status="RESOURCE_EXHAUSTED", headers={"Retry-After": "1"}), 1.0, id="H08-503"),
    pytest.param(
        said(
            429,
            headers={
                "Date": "Sun, 22 Nov 2026 21:00:00 GMT",  # an hour ahead of somebody: only the difference counts
                "Retry-After": "Sun, 22 Nov 2026 21:00:01 GMT",
            },
        ),
        1.0,
        id="H09-date",
    ),
    pytest.param(
        said(429, details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.1s"}]),
        1.1,
        id="H11-retry-info",
    ),
    pytest.param(said(429, "Please retry in 1.05s."), 1.05, id="H11-text"),
]


@pytest.mark.parametrize(("answer", "seconds"), HINTS)
async def test_P11_no_worker_sends_before_a_named_delay_is_over(
    script: Scripted, shop: Shop, answer: bytes, seconds: float
) -> None:
    script.judge = lambda number, _row: answer if number == 30 else None
    script.latency_s = 0.01
    shop.rows, shop.extra = 60, "limits: {concurrency: {start: 8, max: 8, adaptive: false}}"
    assert (await shop.run()).exit is Exit.OK
    later = [came - script.left[29] for came in script.came]
    assert len([after for after in later if 0 < after < seconds]) < 8  # what was on its way
    assert not [after for after in later if seconds / 2 < after < seconds]
    assert min(after for after in later if after > seconds / 2) < seconds * 1.1 + 0.5
    assert [pause.seconds for pause in shop.told(Paused)] == [pytest.approx(seconds, rel=0.11)]


async def test_H10_of_two_delays_the_longer_one_counts(script: Scripted, shop: Shop) -> None:
    two = b"HTTP/1.1 429 No\r\nRetry-After: 0.2\r\nRetry-After: 0.6\r\nContent-Length: 2\r\n\r\n{}"
    script.scripts = {"row1": [two, ok()]}
    shop.rows, shop.extra = 2, STEADY
    assert (await shop.run()).exit is Exit.OK
    assert script.came[2] - script.left[1] >= 0.6


@pytest.mark.parametrize("named", ["-1", "0", "abc", ""], ids=lambda text: f"H10-{text or 'empty'}")
async def test_a_delay_that_is_none_is_not_waited_for(script: Scripted, shop: Shop, named: str) -> None:
    script.scripts = {"row1": [said(429, headers={"Retry-After": named}), ok()]}
    shop.rows, shop.extra = 2, STEADY
    summary = await shop.run()
    assert (summary.exit, summary.seconds < 1) == (Exit.OK, True)


PER_DAY = [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}]


@pytest.mark.parametrize(
    ("answer", "least_s", "most_s"),
    [
        pytest.param(said(429, headers={"Retry-After": "3600"}), 3590, 3600, id="H12-an-hour"),
        pytest.param(said(429, "Your quota will reset after 2h."), 7190, 7200, id="H12-text"),
        pytest.param(said(429, details=PER_DAY), 0, 25 * 3600, id="H12-per-day"),
        pytest.param(said(429, headers={"Retry-After": "1e9"}), 0, 86400, id="H10-a-billion"),
        pytest.param(said(500, headers={"Retry-After": "3600"}), 3590, 3600, id="P11-outage-of-an-hour"),
    ],
)
async def test_a_long_delay_ends_the_run_and_holds_the_next(
    script: Scripted, shop: Shop, answer: bytes, least_s: float, most_s: float
) -> None:
    script.judge = lambda number, _row: answer if number > 2 else None
    shop.rows = 20
    began = datetime.now(UTC)
    summary = await shop.run(concurrency=1)
    assert (summary.exit, script.posts, shop.states) == (Exit.TRY_LATER, 3, {"done": 2, "pending": 18})
    not_before = datetime.fromisoformat(str(run_json(summary)["not_before"]))
    assert began + timedelta(seconds=least_s) <= not_before <= datetime.now(UTC) + timedelta(seconds=most_s)
    assert datetime.fromisoformat(shop.status["not_before"]) == not_before
    with pytest.raises(TryLater, match=re.escape(shop.status["not_before"])):
        await shop.run()
    assert script.posts == 3


async def test_P11_a_long_delay_beside_a_lost_answer_ends_the_run_and_keeps_the_doubt(
    script: Scripted, shop: Shop
) -> None:
    script.judge = lambda number, _row: said(504, headers={"Retry-After": "3600"}) if number > 2 else None
    shop.rows = 20
    summary = await shop.run(concurrency=1)
    assert (summary.exit, script.posts, summary.not_before is not None) == (Exit.TRY_LATER, 3, True)
    assert (shop.states, summary.unknown_microusd) == ({"done": 2, "unknown": 1, "pending": 17}, PRICE)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_P11_words_in_a_mistake_name_no_delay(script: Scripted, shop: Shop, status: int) -> None:
    script.scripts = {"row1": [said(status, "your prompt says: wait 40s, then retry in 2h")]}
    shop.rows = 3
    summary = await shop.run(concurrency=1)
    assert (summary.exit, shop.states) == (Exit.SOME_FAILED, {"done": 2, "failed": 1})
    assert shop.told(Paused) == []


async def test_H12_a_hold_that_is_over_holds_nothing(script: Scripted, shop: Shop) -> None:
    script.judge = lambda number, _row: said(429, headers={"Retry-After": "301"}) if number == 1 else None
    await shop.run()
    shop.forget_hold()
    assert (await shop.run()).exit is Exit.OK


async def test_H12_the_command_leaves_with_75_both_times(script: Scripted, shop: Shop, forked: Forked) -> None:
    script.always = said(429, headers={"Retry-After": "3600"})
    for _ in range(2):
        done = await asyncio.to_thread(forked, "run", shop.manifest, "--json")
        assert done.returncode == 75
        assert "T" in done.stderr
    assert script.posts == 1


async def test_H07_push_backs_are_no_attempts_of_the_task(script: Scripted, shop: Shop) -> None:
    script.scripts = {"row0": [said(429)] * 10 + [ok()]}
    shop.extra = "retry: {attempts: 1, wait: {initial: 10ms, max: 50ms}}"
    assert (await shop.run()).exit is Exit.OK
    assert script.posts == 11


async def test_throttled_tasks_go_to_the_end_of_the_queue(script: Scripted, shop: Shop) -> None:
    script.scripts = {"row0": [said(503)] * 3 + [ok()]}
    shop.rows = 4
    shop.extra = "retry: {attempts: 2, wait: {initial: 10ms, max: 50ms}}\nlimits: {concurrency: 1}"
    assert (await shop.run()).exit is Exit.OK
    assert script.rows[-1] == "row0"
    assert script.rows.count("row0") == 4


async def test_what_only_met_outages_is_pending_in_the_end(script: Scripted, shop: Shop) -> None:
    script.scripts = {"row0": [said(502)]}
    shop.rows, shop.extra = 20, "retry: {attempts: 2, wait: {initial: 10ms, max: 50ms}}\nlimits: {concurrency: 1}"
    summary = await shop.run()
    assert (summary.exit, shop.states) == (Exit.TRY_LATER, {"done": 19, "pending": 1})
    assert script.rows.count("row0") in (4, 6)  # a turn, another one after images came, a third if some came meanwhile
    script.scripts = {}
    assert (await shop.run()).exit is Exit.OK


def test_H24_a_dead_host_ends_the_run_after_a_minute_and_says_why(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "http://127.0.0.1:9", rows=4, extra="retry: {attempts: 5}")
    out = hurried(shop.run, speed=15.0)  # a busy machine does not hurry: a late refusal opens the gate, to all rows
    assert (out.came.exit, shop.states) == (Exit.TRY_LATER, {"pending": 4})
    assert 60 <= out.seconds < 100
    assert out.came.attempts < 40
    assert "no connection could be made" in out.came.reasons[0]
    assert "Cannot connect to host 127.0.0.1:9" in out.came.reasons[0]
    assert all("Cannot connect" in pause.reason for pause in shop.told(Paused))
    assert out.came.spent_microusd == out.came.unknown_microusd == 0


def test_H25_a_name_that_nobody_knows_is_asked_for_a_minute_and_costs_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "https://imgpipe-test.invalid", rows=20, extra="retry: {attempts: 5}")
    out = hurried(shop.run, speed=100.0)  # the resolver does not hurry
    assert (out.came.exit, shop.states) == (Exit.TRY_LATER, {"pending": 20})
    assert out.came.attempts < 40
    assert "imgpipe-test.invalid" in out.came.reasons[0]
    assert out.came.spent_microusd == out.came.unknown_microusd == 0


def test_H24_one_task_and_a_dead_host_take_minutes_too(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "http://127.0.0.1:9", extra="retry: {attempts: 5}")
    out = hurried(shop.run)
    assert (out.came.exit, shop.states) == (Exit.TRY_LATER, {"pending": 1})
    assert out.seconds < 1200


def test_H07_a_quota_that_is_used_up_ends_the_run_within_minutes(tmp_path: Path) -> None:
    script = Scripted(always=said(429, "slow down"))
    shop = Shop(tmp_path, "", rows=1000, extra="retry: {attempts: 5}")

    async def run() -> RunSummary:
        async with serving(script):
            shop.url = script.url
            return await shop.run()

    out = hurried(run)
    assert (out.came.exit, shop.states) == (Exit.TRY_LATER, {"pending": 1000})
    assert 300 <= out.seconds < 1800
    assert 10 <= script.posts < 40


# -- strange, and accepted ------------------------------------------------------------------------------------------


async def test_H69_the_same_bytes_for_two_tasks_are_accepted_and_told(script: Scripted, shop: Shop) -> None:
    script.always = ok(png())
    shop.rows = 3
    assert (await shop.run(concurrency=1)).exit is Exit.OK
    (warned,) = shop.told(Warned)  # once, though a third task has them too
    assert warned.task_id == "mugs/row1"
    assert "same bytes as that of mugs/row0" in warned.text


async def test_H70_an_answer_id_that_comes_again_is_accepted_and_told(script: Scripted, shop: Shop) -> None:
    script.judge = lambda _number, _row: ok(responseId="r-1")
    shop.rows = 2
    assert (await shop.run(concurrency=1)).exit is Exit.OK
    assert ["id of the answer to mugs/row0" in event.text for event in shop.told(Warned)] == [True]


async def test_H68_a_size_that_was_not_asked_for_is_accepted_and_told_once(script: Scripted, shop: Shop) -> None:
    shop.rows, shop.extra = 3, "defaults: {size: 2K, aspect_ratio: '16:9'}"
    assert (await shop.run()).exit is Exit.OK
    assert ["got 16x16" in event.text for event in shop.told(Warned)] == [True]


# -- everything at once ---------------------------------------------------------------------------------------------


def test_H73_half_of_the_first_answers_are_bad_and_the_run_finishes(tmp_path: Path) -> None:
    chance = random.Random(73)
    bad = [said(500), said(502), said(503), said(504), said(529), hang_up, CUT, b"GARBAGE\r\n\r\n", NOT_WHOLE, words()]
    rows = {f"row{n}": [chance.choice(bad), ok()] for n in range(1, 80) if chance.random() < 0.5}
    script = Scripted(scripts=dict(rows))
    shop = Shop(tmp_path, "", rows=80, timeout="5m")  # 1.5 s on the hurried clock

    async def run() -> RunSummary:
        async with serving(script):
            shop.url = script.url
            return await shop.run(concurrency=4)

    out = hurried(run)  # the breaker may open on the way
    assert out.came.exit is Exit.OK
    assert script.posts == 80 + len(rows) <= 1.6 * 80
    assert len(shop.images) == 80


async def test_a_run_that_only_met_outages_says_so(script: Scripted, shop: Shop) -> None:
    script.always = said(500, "the upstream is broken")
    summary = await shop.run()
    assert (summary.exit, shop.states) == (Exit.TRY_LATER, {"pending": 1})
    assert len(summary.reasons) == 1
    assert "the upstream is broken" in summary.reasons[0]
