"""Every fault, by its name in double brackets in the prompt, as a client sees it."""

import asyncio
import base64
import json

import aiohttp
import pytest
import uvloop

from pipeline.simulator.faults import FAULTS, Stage
from pipeline.simulator.server import Simulator
from tests.simulator.conftest import Asker

PRO = "gemini-3-pro-image"
STATUSES = {
    "H07-rate_limited": 429, "H09-rate_limited_date": 429, "H11-rate_limited_retry_info": 429,
    "H11-rate_limited_text": 429, "H12-quota_per_day": 429, "H01-server_error": 500, "H01-internal": 500,
    "H02-invalid_request": 500, "H02-convert_request_failed": 500, "H03-bad_gateway": 502, "H04-overloaded": 503,
    "H04-exhausted": 503, "H05-model_not_found": 503, "H06-deadline": 504, "H06-gateway_timeout": 524,
    "H13-request_timeout": 408, "H14-unauthorized": 401, "H16-payment_required": 402, "H16-insufficient_quota": 403,
    "H17-forbidden": 403, "H19-bad_argument": 400, "H18-not_found": 404, "H20-too_large": 413, "H22-redirect": 302,
    "H45-html": 200, "H49-error_in_200": 200,
}  # fmt: skip
FINISHES = {
    "H63-safety": "SAFETY", "H63-image_safety": "IMAGE_SAFETY", "H63-refuse": "IMAGE_SAFETY",
    "H63-prohibited": "PROHIBITED_CONTENT", "H63-image_prohibited": "IMAGE_PROHIBITED_CONTENT",
    "H64-recitation": "RECITATION", "H64-image_recitation": "IMAGE_RECITATION", "H63-blocklist": "BLOCKLIST",
    "H63-spii": "SPII", "H62-no_image": "NO_IMAGE", "H62-image_other": "IMAGE_OTHER", "H62-other": "OTHER",
    "H65-malformed": "MALFORMED_RESPONSE", "H65-max_tokens": "MAX_TOKENS", "H62-text_only": "STOP",
    "H62-empty": "STOP", "H48-null_parts": "STOP", "H66-file_uri": "STOP", "H55-empty_data": "STOP",
}  # fmt: skip


def named(rows):
    return [pytest.param(row.split("-", 1)[1], expected, id=row) for row, expected in rows.items()]


@pytest.mark.parametrize(("name", "status"), named(STATUSES))
async def test_a_refusal_has_its_status_and_is_billed_only_when_it_was_executed(start, tmp_path, name, status):
    bill = tmp_path / "bill"
    heard = await (await start(bill=bill)).ask(f"A mug [[{name}]]")
    assert heard.status == status
    assert (f'"billed":{str(FAULTS[name].is_billed).lower()}') in bill.read_text()


@pytest.mark.parametrize(("name", "finish"), named(FINISHES))
async def test_an_answer_without_an_image_has_its_finish_reason(start, name, finish):
    heard = await (await start()).ask(f"A mug [[{name}]]", model=PRO)
    candidate, usage = heard.json["candidates"][0], heard.json["usageMetadata"]
    assert (heard.status, candidate["finishReason"]) == (200, finish)
    assert usage["candidatesTokenCount"] == usage["thoughtsTokenCount"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["thoughtsTokenCount"]
    assert not any(part.get("inlineData", {}).get("data") for part in candidate["content"].get("parts") or ())


async def test_a_blocked_prompt_has_no_candidates(start):
    heard = await (await start()).ask("[[prompt_blocked]]")
    assert heard.json["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert "candidates" not in heard.json


async def test_null_candidates_are_sent_as_null(start):
    assert (await (await start()).ask("[[no_candidates]]")).json["candidates"] is None


def test_every_fault_is_tested_here_or_has_a_test_of_its_own():
    rows = {row.split("-", 1)[1] for row in (*STATUSES, *FINISHES)} - {"refuse"}
    shown = {name for name, fault in FAULTS.items() if fault.stage in (Stage.ERROR, Stage.CONTENT)}
    assert shown - rows == {"prompt_blocked", "no_candidates"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("rate_limited_retry_info", ['"retryDelay": "36.700000000s"', "PerMinute"], id="H11-retry-info"),
        pytest.param("rate_limited_text", ["Please retry in 36.700000000s", '"code":429'], id="H11-text"),
        pytest.param("quota_per_day", ["PerDay"], id="H12-per-day"),
        pytest.param("insufficient_quota", ["insufficient_user_quota", "credit limit"], id="H16-quota"),
    ],
)
async def test_the_delay_or_reason_stands_in_the_body(start, name, words):
    asker = await start(faults=[{"name": name, "retry_after": "36.7s"}])
    body = (await asker.ask()).body.decode()
    assert all(word in body for word in words)


async def test_a_named_delay_is_told_in_the_header_in_whole_seconds(start):
    asker = await start(faults=[{"name": "rate_limited", "retry_after": "2.5s"}])
    assert (await asker.ask()).headers["Retry-After"] == "3"


async def test_no_named_delay_no_header(start):
    assert "Retry-After" not in (await (await start()).ask("[[rate_limited]]")).headers


async def test_a_redirect_leads_to_another_host(start):
    heard = await (await start()).ask("[[redirect]]")
    assert heard.headers["Location"].startswith("https://example.invalid/")


async def test_several_images_are_ordinary_parts_each_billed(start, tmp_path):
    bill = tmp_path / "bill"
    heard = await (await start(bill=bill)).ask("[[several_images]]", model=PRO)
    images = [part for part in heard.parts if "inlineData" in part]
    assert len(images) >= 2
    assert not any("thought" in part for part in images)
    assert heard.json["usageMetadata"]["candidatesTokensDetails"][0]["tokenCount"] == 1120 * len(images)
    price = json.loads(bill.read_text())["price_microusd"]
    assert 0 <= price - 1120 * 120 * len(images) < 134_000  # what is said beside them


async def test_drafts_are_thoughts_and_not_billed(start, tmp_path):
    bill = tmp_path / "bill"
    heard = await (await start(bill=bill)).ask("[[drafts]]", model=PRO)
    drafts = [part for part in heard.parts if part.get("thought") and "inlineData" in part]
    assert len(drafts) == 2
    assert '"images":1,' in bill.read_text()


async def test_the_only_image_may_stand_in_a_thought(start):
    assert (await (await start()).ask("[[only_thought]]", model=PRO)).parts[-1]["thought"] is True


async def test_a_wrong_label_names_another_type(start):
    heard = await (await start()).ask("[[wrong_mime]]")
    assert (heard.parts[-1]["inlineData"]["mimeType"], heard.image.format) == ("image/jpeg", "PNG")


async def test_snake_case_answers_spell_it_so(start):
    heard = await (await start()).ask("[[snake_case]]")
    assert set(heard.parts[-1]["inline_data"]) == {"mime_type", "data"}


async def test_half_the_size(start):
    assert (await (await start()).ask("[[wrong_size]]")).image.size == (512, 512)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        pytest.param("data_prefix", lambda text: text.removeprefix("data:image/png;base64,"), id="H51-prefix"),
        pytest.param(
            "url_safe_base64", lambda text: text.replace("-", "+").replace("_", "/") + "==", id="H52-url-safe"
        ),
        pytest.param("base64_lines", lambda text: text.replace("\n", ""), id="H53-lines"),
        pytest.param("escaped_json", lambda text: text, id="H53-escapes"),
    ],
)
async def test_odd_base64_holds_the_image(start, name, plain):
    asker = await start(picture_bytes=4000)
    text = (await asker.ask(f"[[{name}]]")).parts[-1]["inlineData"]["data"]
    assert base64.b64decode(plain(text)).endswith(b"IEND\xaeB`\x82")


async def test_bad_base64_cannot_be_decoded(start):
    text = (await (await start()).ask("[[bad_base64]]")).parts[-1]["inlineData"]["data"]
    with pytest.raises(ValueError, match="base64"):
        base64.b64decode(text, validate=True)


async def test_a_cut_image_decodes_but_ends_early(start):
    heard = await (await start()).ask("[[cut_image]]")
    assert b"IEND" not in heard.data


async def test_broken_json_has_the_right_length(start):
    heard = await (await start()).ask("[[broken_json]]")
    assert int(heard.headers["Content-Length"]) == len(heard.body)
    assert not heard.body.endswith(b"}")


BROKEN = pytest.mark.parametrize(
    ("name", "error"),
    [
        pytest.param("cut_body", aiohttp.ClientPayloadError, id="H33-cut_body"),
        pytest.param("reset_body", aiohttp.ClientPayloadError, id="H32-reset_body"),
        pytest.param("stall", aiohttp.ClientPayloadError, id="H36-stall"),
        pytest.param("reset", aiohttp.ClientOSError, id="H29-reset"),
        pytest.param("disconnect", aiohttp.ServerDisconnectedError, id="H28-disconnect"),
    ],
)


@BROKEN
async def test_a_broken_connection_is_billed_as_cut(start, tmp_path, name, error):
    bill = tmp_path / "bill"
    asker = await start(bill=bill, picture_bytes=200_000)
    with pytest.raises(error):
        await asker.ask(f"[[{name}]]")
    assert '"outcome":"cut","billed":true' in bill.read_text()


@BROKEN
def test_connections_break_on_the_event_loop_of_a_run_too(quick_profile, name, error):
    async def ask():
        async with Simulator(quick_profile(picture_bytes=200_000)) as simulator, aiohttp.ClientSession() as session:
            await Asker(simulator, session).ask(f"[[{name}]]")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, pytest.raises(error):
        runner.run(ask())


async def test_an_unframed_body_that_ends_early_looks_whole_to_the_client(start):
    heard = await (await start()).ask("[[cut_unframed]]")
    assert (heard.status, heard.body[-1:]) != (200, b"}")
    assert "Content-Length" not in heard.headers


async def test_a_hang_answers_after_its_seconds(start, time):
    asker = await start(faults=[{"name": "hang", "seconds": "90s"}])
    assert (await asker.ask()).status == 200
    assert 90.0 in time.slept


async def test_a_trickle_brings_the_whole_answer_in_its_seconds(start, time):
    asker = await start(faults=[{"name": "trickle", "seconds": "20s"}])
    assert (await asker.ask()).image.size == (1024, 1024)
    assert sum(time.slept) == pytest.approx(20.0)
