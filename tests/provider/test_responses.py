"""Whole answers, judged: the shapes seen in the wild, and some that nobody has seen yet."""

import base64
import json
import struct
import tracemalloc
import zlib
from urllib.parse import quote

import pytest

from pipeline.model import Answer, Billed, Failure, Fault, Tier, Usage
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.redact import Redactor
from pipeline.provider.responses import AnswerReader

KEY = "sk-canary/7+hard=to~miss"
READER = AnswerReader(Redactor(KEY), Catalogue())


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width=4, height=4, *, noise=0):
    """A whole PNG; `noise` bytes make its Base64 long enough for the fast path."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    filler = chunk(b"fiLl", bytes(i * 7 % 256 for i in range(noise))) if noise else b""
    pixels = zlib.compress((b"\0" + b"\1\2\3" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + filler + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


SMALL, LARGE, OTHER = png(), png(8, 8, noise=9000), png(5, 5, noise=5000)


def b64(data):
    return base64.b64encode(data).decode()


def inline(data, mime="image/png", **more):
    return {"inlineData": {"mimeType": mime, "data": data if isinstance(data, str) else b64(data)}, **more}


def candidate(*parts, finish="STOP", **more):
    return {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, "index": 0, **more}


def whole(*parts, finish="STOP", **more):
    return {"candidates": [candidate(*parts, finish=finish)], **more}


def judged(make_reply, task, body, status=200, **reply):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return READER.read(make_reply(raw, status, **reply), task)


def url_safe(data):
    return base64.urlsafe_b64encode(data).decode()


def spaced(data):
    return "\n ".join(b64(data)[i : i + 76] for i in range(0, len(b64(data)), 76)) + "\r\n"


def events(*told, before=b""):
    """A stream of server-sent events."""
    texts = (each if isinstance(each, str) else json.dumps(each) for each in told)
    return b"".join(before + b"data: " + text.encode() + b"\n\n" for text in texts)


def raw_json(template, data):
    return template.replace("@", data).encode()


HALVES = ("data:image/png;base64," + b64(LARGE)[:999], b64(LARGE)[999:])
TEMPLATE = '{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"@"}}]}}]}'
SNAKE_PART = {"inline_data": {"mime_type": "image/png", "data": b64(LARGE)}}
SNAKE = {"candidates": [{"content": {"parts": [SNAKE_PART]}}]}

WITH_IMAGE = [
    ("plain", whole(inline(LARGE)), LARGE),
    ("small", whole(inline(SMALL)), SMALL),
    ("pretty", json.dumps(whole(inline(LARGE)), indent=2).encode(), LARGE),
    ("text-then-image", whole({"text": "Here"}, inline(LARGE)), LARGE),
    ("image-then-text", whole(inline(LARGE), {"text": "Done"}), LARGE),
    ("no-finish-reason", {"candidates": [{"content": {"parts": [inline(LARGE)]}}]}, LARGE),
    ("H60-several", whole(inline(OTHER), inline(LARGE)), LARGE),
    ("H60-two-candidates", {"candidates": [candidate(inline(OTHER)), candidate(inline(LARGE))]}, LARGE),
    ("H60-draft-last", whole(inline(LARGE), inline(OTHER, thought=True)), LARGE),
    ("H60-draft-first", whole(inline(OTHER, thought=True), {"text": "x"}, inline(LARGE)), LARGE),
    ("H61-only-a-draft", whole(inline(LARGE, thought=True)), LARGE),
    ("H61-last-draft", whole(inline(OTHER, thought=True), inline(LARGE, thought=True)), LARGE),
    ("H61-thought-false", whole(inline(OTHER, thought=True), inline(LARGE, thought=False)), LARGE),
    ("H65-max-tokens", whole(inline(LARGE), finish="MAX_TOKENS"), LARGE),
    ("H65-unknown-reason", whole(inline(LARGE), finish="SOMETHING_NEW"), LARGE),
    ("H63-image-and-safety", whole(inline(LARGE), finish="SAFETY"), LARGE),
    ("H67-snake-case", SNAKE, LARGE),
    ("H67-snake-beside-null", {"candidates": [candidate({"inlineData": None, **SNAKE_PART})]}, LARGE),
    ("H51-data-prefix", whole(inline("data:image/png;base64," + b64(LARGE))), LARGE),
    ("H51-data-prefix-small", whole(inline("data:image/png;base64," + b64(SMALL))), SMALL),
    ("H52-url-safe", whole(inline(url_safe(LARGE))), LARGE),
    ("H52-url-safe-no-padding", whole(inline(url_safe(SMALL).rstrip("="))), SMALL),
    ("H53-white-space", whole(inline(spaced(LARGE))), LARGE),
    ("H53-raw-line-breaks", raw_json(TEMPLATE, spaced(LARGE)), LARGE),
    ("H53-no-padding", whole(inline(b64(LARGE).rstrip("="))), LARGE),
    ("H53-escaped-padding", raw_json(TEMPLATE, b64(LARGE).replace("=", "\\u003d")), LARGE),
    ("H53-escaped-slashes", raw_json(TEMPLATE, b64(LARGE).replace("/", "\\/")), LARGE),
    ("H43-bom", b"\xef\xbb\xbf" + json.dumps(whole(inline(LARGE))).encode(), LARGE),
    ("H43-latin-1", raw_json(TEMPLATE, b64(LARGE)).replace(b"{", b'{"t":"caf\xe9",', 1), LARGE),
    ("H43-utf-16", json.dumps(whole(inline(LARGE))).encode("utf-16"), LARGE),
    ("H50-nan", raw_json(TEMPLATE, b64(LARGE)).replace(b"{", b'{"t":NaN,', 1), LARGE),
    ("H50-raw-newline-in-a-text", raw_json(TEMPLATE, b64(LARGE)).replace(b"{", b'{"t":"a\n\x01b",', 1), LARGE),
    ("H50-raw-newline-and-more", raw_json(TEMPLATE, b64(SMALL)).replace(b"{", b'{"t":"a\nb",', 1) + b"\0", SMALL),
    ("H50-surrogate", raw_json(TEMPLATE, b64(LARGE)).replace(b"{", b'{"t":"\\ud800",', 1), LARGE),
    ("H50-duplicate-keys", raw_json(TEMPLATE, b64(LARGE)).replace(b"{", b'{"candidates":5,', 1), LARGE),
    ("H49-error-null", whole(inline(LARGE), error=None), LARGE),
    ("H49-image-beside-an-error", whole(inline(LARGE), error={"code": 500}), LARGE),
    ("stream-list", [whole({"text": "a"}, finish=None), whole(inline(LARGE)), {"usageMetadata": {}}], LARGE),
    ("candidates-as-object", {"candidates": candidate(inline(LARGE))}, LARGE),
    ("null-parts-around", whole(None, inline(LARGE), None), LARGE),
    ("strange-parts-around", whole(5, "x", [], inline(LARGE), {"functionCall": {"data": "x" * 5000}}), LARGE),
    ("data-key-elsewhere", {"data": "z" * 9000, **whole({"text": '"data":"' + "A" * 9000}, inline(LARGE))}, LARGE),
    ("data-as-value", whole({"text": "data"}, inline(LARGE)), LARGE),
    ("mark-as-text", whole({"text": "\0cut:0"}, inline(LARGE)), LARGE),
    ("markdown-in-text", whole({"text": f"![image](data:image/png;base64,{b64(LARGE)})"}), LARGE),
    ("empty-data-last", whole(inline(LARGE), inline("")), LARGE),
    ("base64-twice", whole(inline(b64(b64(LARGE).encode()))), LARGE),
    ("base64-twice-small", whole(inline(b64(b64(SMALL).encode()))), SMALL),
    ("base64-thrice", whole(inline(b64(b64(b64(LARGE).encode()).encode()))), LARGE),
    ("base64-of-a-data-uri", whole(inline(b64(f"data:image/png;base64,{b64(LARGE)}".encode()))), LARGE),
    ("uri-wrapped-at-76", whole({"text": f"data:image/png;base64,\n{spaced(LARGE)}\nHere is your picture"}), LARGE),
    ("uri-then-words", whole({"text": f"data:image/png;base64,{b64(SMALL)} Here is it"}), SMALL),
    ("uri-then-words-of-base64", whole({"text": f"data:image/png;base64,{b64(LARGE).rstrip('=')}\nDone"}), LARGE),
    ("uri-in-html", whole({"text": f"<img alt='x' src='data:image/png;base64,{b64(LARGE)}'>"}), LARGE),
    ("uri-in-a-fence", whole({"text": f"```\ndata:image/png;base64,{b64(LARGE)}\n```"}), LARGE),
    ("uri-in-json-in-text", whole({"text": json.dumps({"url": f"data:image/png;base64,{spaced(LARGE)}"})}), LARGE),
    ("uri-quoted", whole({"text": "> data:image/png;base64,\n> " + spaced(LARGE).replace("\n", "\n> ")}), LARGE),
    ("uri-with-parameters", whole({"text": f"DATA:image/png;charset=utf-8;name=a.png;BASE64,{b64(LARGE)}"}), LARGE),
    ("uri-without-type", whole({"text": f"data:;base64,{b64(LARGE)}"}), LARGE),
    ("uri-in-percents", whole({"text": "data:image/png;base64," + quote(b64(LARGE), safe="")}), LARGE),
    ("uri-url-safe", whole({"text": f"![x](data:image/png;base64,{url_safe(LARGE)})"}), LARGE),
    ("uri-twice-encoded", whole({"text": f"![x](data:image/png;base64,{b64(b64(LARGE).encode())})"}), LARGE),
    ("uri-in-two-parts", whole({"text": HALVES[0]}, {"text": HALVES[1]}), LARGE),
    ("two-uris", whole({"text": f"data:image/png;base64,{b64(OTHER)} and data:image/png;base64,{b64(LARGE)}"}), LARGE),
    ("bare-base64-in-text", whole({"text": f"Here:\n{spaced(LARGE)}"}), LARGE),
    ("broken-inline-and-a-whole-uri", whole(inline("%%%"), {"text": f"data:image/png;base64,{b64(LARGE)}"}), LARGE),
    ("openai-b64-json", {"created": 1, "data": [{"b64_json": b64(LARGE)}]}, LARGE),
    ("openai-chat", {"choices": [{"message": {"images": [{"image_url": {"url": "".join(HALVES)}}]}}]}, LARGE),
    ("data-key-elsewhere-is-an-image", {"result": {"image": {"data": b64(LARGE)}}}, LARGE),
    ("event-stream", events(whole({"text": "a"}, finish=None), whole(inline(LARGE)), {"usageMetadata": {}}), LARGE),
    ("event-stream-crlf", events(whole(inline(LARGE)), "[DONE]").replace(b"\n", b"\r\n"), LARGE),
    ("event-stream-named", b": hello\n\n" + events(whole(inline(LARGE)), before=b"event: message\nid: 7\n"), LARGE),
    ("event-stream-no-space", events(whole(inline(LARGE))).replace(b"data: ", b"data:"), LARGE),
    ("event-stream-without-an-end", events(whole(inline(LARGE))).rstrip(), LARGE),
    ("event-stream-bom", b"\xef\xbb\xbf" + events(whole(inline(LARGE))), LARGE),
    ("event-of-many-lines", events(json.dumps(whole(inline(LARGE)), indent=1).replace("\n", "\ndata: ")), LARGE),
    ("event-stream-uri-in-pieces", events(*(whole({"text": half}) for half in HALVES)), LARGE),
    ("lines-of-json", b'{"candidates": []}\n' + json.dumps(whole(inline(LARGE))).encode(), LARGE),
    ("json-then-a-comment", json.dumps(whole(inline(LARGE))).encode() + b"<!-- served in 0.2 s -->", LARGE),
    ("json-then-a-null-byte", json.dumps(whole(inline(LARGE))).encode() + b"\0", LARGE),
    ("json-then-json", b'{"status": "queued"}' + json.dumps(whole(inline(LARGE))).encode(), LARGE),
    ("image-as-the-body", LARGE, LARGE),
    ("base64-as-the-body", b64(LARGE).encode() + b"\n", LARGE),
    ("uri-as-the-body", f"data:image/png;base64,{b64(LARGE)}".encode(), LARGE),
]  # fmt: skip


@pytest.mark.parametrize(("body", "data"), [pytest.param(*row[1:], id=row[0]) for row in WITH_IMAGE])
def test_the_right_image_is_taken(make_reply, task, body, data):
    answer = judged(make_reply, task, body)
    assert isinstance(answer, Answer), answer
    assert answer.image.data == data
    assert (answer.image.mime, answer.image.suffix) == ("image/png", ".png")


REFUSALS = ["SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "BLOCKLIST", "SPII"]
REFUSALS += ["RECITATION", "IMAGE_RECITATION"]
NO_IMAGE = ["NO_IMAGE", "IMAGE_OTHER", "OTHER", "MAX_TOKENS", "LANGUAGE", "MALFORMED_RESPONSE", "SOMETHING_NEW", "STOP"]

WITHOUT = [
    *((f"H63-{r}", {"candidates": [{"content": {}, "finishReason": r}]}, Fault.REFUSED) for r in REFUSALS),
    ("H63-prompt", {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, Fault.REFUSED),
    ("H63-prompt-relay", {"candidates": None, "promptFeedback": {"blockReason": "OTHER"}}, Fault.REFUSED),
    ("H63-prompt-snake", {"prompt_feedback": {"block_reason": "SAFETY"}}, Fault.REFUSED),
    ("H63-draft-of-a-refusal", whole(inline(LARGE, thought=True), finish="IMAGE_SAFETY"), Fault.REFUSED),
    *((f"H62-{r}", {"candidates": [{"content": {}, "finishReason": r}]}, Fault.NO_IMAGE) for r in NO_IMAGE),
    ("H62-parts-null", {"candidates": [{"content": {"parts": None}, "finishReason": "NO_IMAGE"}]}, Fault.NO_IMAGE),
    ("H62-text-only", whole({"text": "Here is an image of a cat:"}), Fault.NO_IMAGE),
    ("H62-empty-object", {}, Fault.NO_IMAGE),
    ("H62-candidates-null", {"candidates": None}, Fault.NO_IMAGE),
    ("H62-candidates-empty", {"candidates": []}, Fault.NO_IMAGE),
    ("H62-content-null", {"candidates": [{"content": None}]}, Fault.NO_IMAGE),
    ("H62-content-role-only", {"candidates": [{"content": {"role": "model"}}]}, Fault.NO_IMAGE),
    ("H62-thought-text-only", whole({"text": "Thinking", "thought": True}), Fault.NO_IMAGE),
    ("H55-empty-data", whole(inline("")), Fault.NO_IMAGE),
    ("H55-spaces", whole(inline(" \n")), Fault.NO_IMAGE),
    ("H55-one-byte", whole(inline("AA==")), Fault.NO_IMAGE),
    ("H48-list", [], Fault.BROKEN),
    ("H48-null", None, Fault.BROKEN),
    ("H48-number", 5, Fault.BROKEN),
    ("H48-text", "x", Fault.BROKEN),
    ("H48-true", True, Fault.BROKEN),
    ("H48-list-of-numbers", [1, 2], Fault.BROKEN),
    ("H48-candidates-number", {"candidates": 5}, Fault.BROKEN),
    ("H48-candidates-text", {"candidates": "x"}, Fault.BROKEN),
    ("H48-candidate-number", {"candidates": [5]}, Fault.BROKEN),
    ("H48-content-list-of-text", {"candidates": [{"content": ["x"]}]}, Fault.BROKEN),
    ("H48-parts-text", {"candidates": [{"content": {"parts": "x"}}]}, Fault.BROKEN),
    ("H48-inline-text", whole({"inlineData": "x"}), Fault.BROKEN),
    ("H48-data-number", whole({"inlineData": {"data": 5}}), Fault.BROKEN),
    ("H48-data-list", whole({"inlineData": {"data": [1]}}), Fault.BROKEN),
    ("H44-empty", b"", Fault.BROKEN),
    ("H44-spaces", b"  \n ", Fault.BROKEN),
    ("H45-later-page", b"<!DOCTYPE html><title>Just a moment...</title>", Fault.BROKEN),
    ("H47-truncated", json.dumps(whole(inline(LARGE))).encode()[:-9], Fault.BROKEN),
    ("H47-cut-in-the-image", json.dumps(whole(inline(LARGE))).encode()[:6000], Fault.BROKEN),
    ("H50-deep", b"[" * 100_000, Fault.BROKEN),
    ("H50-deep-and-closed", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, Fault.BROKEN),
    ("H50-garbage", bytes(range(256)) * 50, Fault.BROKEN),
    ("H50-long-number", b'{"candidates":' + b"9" * 10_000 + b"}", Fault.BROKEN),
    ("H54-bad-character", whole(inline(b64(LARGE)[:-40] + "!" + b64(LARGE)[-39:])), Fault.BROKEN),
    ("H54-padding-inside", whole(inline(b64(SMALL)[:20] + "==" + b64(SMALL)[20:])), Fault.BROKEN),
    ("H54-odd-length", whole(inline("A" * 4097)), Fault.BROKEN),
    ("H54-not-ascii", whole(inline("é" * 5000)), Fault.BROKEN),
    ("H57-pdf", whole(inline(b"%PDF-1.7 " + b"x" * 50, "application/pdf")), Fault.BROKEN),
    ("H57-unknown", whole(inline(b"what is this, if not nothing at all")), Fault.BROKEN),
    ("H58-cut-png", whole(inline(LARGE[:-15])), Fault.BROKEN),
    ("H58-flipped-bit", whole(inline(LARGE[:500] + bytes([LARGE[500] ^ 1]) + LARGE[501:])), Fault.BROKEN),
    ("H58-header-only", whole(inline(LARGE[:16])), Fault.BROKEN),
    ("H66-file-uri", whole({"fileData": {"fileUri": "https://x/y.png"}}), Fault.LINK),
    ("link-markdown", whole({"text": "It is:\n\n![image](https://img.example.net/f/a1b2.png)\n"}), Fault.LINK),
    ("link-markdown-no-suffix", whole({"text": "![image](https://img.example.net/f/a1b2?sig=x)"}), Fault.LINK),
    ("link-html", whole({"text": '<img width=10 src="https://img.example.net/f/1">'}), Fault.LINK),
    ("link-bare", whole({"text": "Done: https://img.example.net/f/1.JPG?x=1 enjoy"}), Fault.LINK),
    ("link-alone", whole({"text": "https://img.example.net/f/1"}), Fault.LINK),
    ("link-named", whole({"text": "[Download your image](https://img.example.net/f/1)"}), Fault.LINK),
    ("link-as-data", whole(inline("https://img.example.net/f/1.png")), Fault.LINK),
    ("link-openai", {"data": [{"url": "https://img.example.net/f/1"}]}, Fault.LINK),
    ("link-beside-a-message", {"message": "ok", "data": {"url": "https://img.example.net/f/1"}}, Fault.LINK),
    ("link-in-list", {"images": [{"url": ["https://img.example.net/f/1"]}]}, Fault.LINK),
    ("link-in-events", events(whole({"text": "![i](https://img.example.net/1.png)"})), Fault.LINK),
    ("no-link-of-an-image", whole({"text": "I cannot draw; read https://example.net/help first."}), Fault.NO_IMAGE),
    ("uri-cut", whole({"text": f"![x](data:image/png;base64,{b64(LARGE)[:900]})"}), Fault.NO_IMAGE),
    ("uri-of-a-refusal", whole({"text": f"data:image/png;base64,{b64(LARGE)}"}, finish="IMAGE_SAFETY"), Fault.REFUSED),
    ("uri-in-a-thought", whole({"text": f"data:image/png;base64,{b64(LARGE)}", "thought": True}), Fault.NO_IMAGE),
    ("request-echoed", {"request": {"contents": [{"parts": [inline(LARGE)]}]}, "candidates": []}, Fault.NO_IMAGE),
    ("events-cut", events(whole({"text": "a"}), whole(inline(LARGE)))[:-40], Fault.BROKEN),
    ("events-with-an-error", events(whole({"text": "a"}), {"error": {"code": 429}}), Fault.THROTTLED),
    ("pup", {"candidates": [{"content": {}, "finishReason": "PUP_LIMITED_DISABLED"}]}, Fault.ACCOUNT),
    ("account-block", {"promptFeedback": {"blockReason": "ACCOUNT_SUSPENDED"}}, Fault.ACCOUNT),
    ("H49-rate", {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, Fault.THROTTLED),
    ("H49-bad-request", {"error": {"code": "invalid_request"}}, Fault.BAD_REQUEST),
    ("H49-account", {"error": {"code": "insufficient_user_quota", "message": "x"}}, Fault.ACCOUNT),
    ("H49-unknown", {"error": {"code": "new_thing", "message": "x"}}, Fault.OTHER),
    ("H49-text", {"error": "something broke"}, Fault.OTHER),
    ("H49-true", {"error": True, "message": "overloaded"}, Fault.OTHER),
    ("H49-none", {"error": False, "candidates": []}, Fault.NO_IMAGE),
    ("H49-bare-code", {"code": 429, "message": "slow down"}, Fault.THROTTLED),
    ("H49-bare-words", {"code": "fail", "msg": "saturated", "data": None}, Fault.OTHER),
    ("H49-bare-account", {"success": False, "message": "insufficient balance"}, Fault.UPSTREAM_ACCOUNT),
    ("H49-bare-with-tokens", {"code": 0, "message": "ok", "usageMetadata": {"promptTokenCount": 9}}, Fault.NO_IMAGE),
    ("words-before-json", b"OK {}", Fault.BROKEN),
]  # fmt: skip


@pytest.mark.parametrize(("body", "fault"), [pytest.param(*row[1:], id=row[0]) for row in WITHOUT])
def test_no_image_has_its_reason(make_reply, task, body, fault):
    failure = judged(make_reply, task, body)
    assert isinstance(failure, Failure)
    assert failure.fault is fault
    paid = dict.fromkeys((Fault.REFUSED, Fault.NO_IMAGE, Fault.BROKEN, Fault.LINK), Billed.YES)
    assert failure.billed is (paid | {Fault.OTHER: Billed.MAYBE}).get(fault, Billed.NO)
    assert failure.reason
    assert (failure.body is not None) == (fault in (Fault.NO_IMAGE, Fault.BROKEN, Fault.LINK, Fault.OTHER))


def test_a_link_is_told_and_the_answer_kept_whole(make_reply, task):
    body = json.dumps(whole({"text": "![image](https://img.example.net/f/a1b2.png)"})).encode()
    failure = judged(make_reply, task, body)
    assert "https://img.example.net/f/a1b2.png" in failure.reason
    assert failure.body == body


def test_an_account_that_is_limited_costs_what_its_answer_counts(make_reply, task):
    limited = {"candidates": [{"finishReason": "PUP_LIMITED_DISABLED"}], "usageMetadata": {"promptTokenCount": 9}}
    failure = judged(make_reply, task, limited)
    assert (failure.fault, failure.billed, failure.code) == (Fault.ACCOUNT, Billed.YES, "PUP_LIMITED_DISABLED")


@pytest.mark.parametrize("row", ["H45"])
def test_a_page_as_the_first_answer_is_a_wrong_address(make_reply, task, row):
    failure = judged(make_reply, task, b"\n<html><title>Welcome</title>", is_first=True)
    assert (failure.fault, failure.billed) == (Fault.ADDRESS, Billed.NO)
    assert "Welcome" in failure.reason
    assert "base_url" in failure.reason


def test_h59_too_many_pixels_are_refused_from_the_header(make_reply, task):
    head = struct.pack(">IIBBBBB", 14_000, 14_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    failure = judged(make_reply, task, whole(inline(bomb)))
    assert failure.fault is Fault.BROKEN
    assert "14000x14000" in failure.reason


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        pytest.param(LARGE[:-15], ".png", id="H58-cut"),
        pytest.param(b"%PDF-1.7 " + b"x" * 50, ".pdf", id="H57-pdf"),
        pytest.param(b"nobody knows what this is", ".bin", id="H57-unknown"),
    ],
)
def test_what_is_no_whole_image_is_kept_decoded(make_reply, task, data, suffix):
    failure = judged(make_reply, task, whole(inline(data)))
    assert (failure.body, failure.suffix) == (data, suffix)


@pytest.mark.parametrize("bad", ["!", "\u00e9", "=A"], ids=["H54-sign", "H54-letter", "H54-padding"])
def test_base64_is_never_decoded_leniently(make_reply, task, bad):
    text = b64(LARGE)
    failure = judged(make_reply, task, whole(inline(text[:100] + bad + text[100:])))
    assert failure.reason.startswith("an image that is not Base64")


def test_s02_a_kept_body_holds_no_key(make_reply, task):
    body = json.dumps({"candidates": 5, "echo": KEY, "url": "?key=sk-canary%2F7%2Bhard%3Dto~miss"}).encode()
    failure = judged(make_reply, task, body)
    assert failure.body is not None
    assert b"canary" not in failure.body


def test_s02_reasons_codes_and_ids_hold_no_key(make_reply, task):
    body = {"candidates": [{"finishReason": f"X_{KEY}", "finishMessage": KEY}]}
    failure = judged(make_reply, task, body, x_request_id=f"id-{KEY}")
    assert "canary" not in repr(failure)
    answer = judged(make_reply, task, whole(inline(SMALL, f"image/{KEY}"), modelVersion=KEY, responseId=KEY))
    assert "canary" not in repr(answer)
    error = judged(make_reply, task, {"error": {"code": f"X_{KEY}", "message": KEY}}, 501)
    assert error.body is not None
    assert b"canary" not in error.body
    assert "canary" not in repr(error)


def test_s06_the_models_words_are_one_harmless_line(make_reply, task):
    failure = judged(make_reply, task, whole({"text": "I can\x1b[2Jnot\r\ndraw \u202ethat"}, finish="NO_IMAGE"))
    assert failure.reason == "no image came (NO_IMAGE): I can\\x1b[2Jnot draw \\u202ethat"


def test_a_refusal_says_why(make_reply, task):
    body = {"candidates": [{"content": {}, "finishReason": "IMAGE_SAFETY", "finishMessage": "Unable to show it."}]}
    failure = judged(make_reply, task, body)
    assert failure.reason == "refused (IMAGE_SAFETY): Unable to show it."
    assert failure.code == "IMAGE_SAFETY"


@pytest.mark.parametrize(
    ("body", "note"),
    [
        pytest.param(whole(inline(SMALL), inline(SMALL)), "2 images came", id="H60"),
        pytest.param(whole(inline(SMALL, thought=True)), "only a draft came", id="H61"),
        pytest.param(whole(inline(SMALL, "image/jpeg")), "labelled image/jpeg, its bytes are image/png", id="H56"),
        pytest.param(whole(inline(SMALL), finish="MAX_TOKENS"), "finishReason MAX_TOKENS", id="H65"),
    ],
)
def test_what_is_strange_about_an_image_is_noted(make_reply, task, body, note):
    answer = judged(make_reply, task, body)
    assert any(note in one for one in answer.notes)


@pytest.mark.parametrize("mime", ["image/png", "", "IMAGE/PNG"])
def test_an_ordinary_answer_has_no_notes(make_reply, task, mime):
    assert judged(make_reply, task, whole(inline(SMALL, mime))).notes == ()


@pytest.mark.parametrize(
    ("ratio", "size", "pixels", "is_noted"),
    [
        pytest.param("16:9", None, (1344, 768), False, id="H68-as-asked"),
        pytest.param("16:9", None, (1280, 720), False, id="H68-near-enough"),
        pytest.param("16:9", None, (1024, 1024), True, id="H68-another-shape"),
        pytest.param(None, "1K", (256, 256), True, id="H68-another-size"),
        pytest.param(None, None, (256, 200), False, id="H68-nothing-asked"),
    ],
)
def test_another_size_than_asked_for_is_noted(make_reply, make_task, ratio, size, pixels, is_noted):
    answer = judged(make_reply, make_task(aspect_ratio=ratio, size=size), whole(inline(png(*pixels))))
    assert any("asked for" in note for note in answer.notes) is is_noted
    assert any("asked for" in doubt for doubt in answer.doubts) is is_noted


@pytest.mark.parametrize("status", [201, 206])
def test_h21_an_image_with_another_2xx_is_still_an_image(make_reply, task, status):
    answer = judged(make_reply, task, whole(inline(SMALL)), status)
    assert isinstance(answer, Answer)
    assert any(str(status) in note for note in answer.notes)


@pytest.mark.parametrize(("status", "body"), [(204, b""), (206, b'{"cand'), (202, b"{}")])
def test_h21_another_2xx_without_an_image_may_have_been_billed(make_reply, task, status, body):
    failure = judged(make_reply, task, body, status)
    assert (failure.fault, failure.billed) == (Fault.OTHER, Billed.MAYBE)


USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 1304, "thoughtsTokenCount": 200, "totalTokenCount": 1511}
REFUSED = {"promptTokenCount": 9, "candidatesTokenCount": 60, "thoughtsTokenCount": 60, "totalTokenCount": 69}
UNNAMED = {name: number for name, number in USAGE.items() if name != "thoughtsTokenCount"}
NO_TOTAL = {name: number for name, number in USAGE.items() if name != "totalTokenCount"}
IMAGE_ROW = {"candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}, {"modality": "TEXT"}]}


@pytest.mark.parametrize(
    ("parts", "counted", "usage"),
    [
        ([inline(SMALL)], USAGE | IMAGE_ROW, Usage(prompt_tokens=7, image_tokens=1290, text_tokens=214)),
        ([inline(SMALL)], USAGE, Usage(prompt_tokens=7, image_tokens=1304, text_tokens=200)),
        ([inline(SMALL)], NO_TOTAL | IMAGE_ROW, Usage(prompt_tokens=7, image_tokens=1290, text_tokens=214)),
        ([{"text": "no"}], USAGE, Usage(prompt_tokens=7, image_tokens=0, text_tokens=1504)),
        ([], REFUSED, Usage(prompt_tokens=9, image_tokens=0, text_tokens=60)),
        ([inline(SMALL)], UNNAMED | IMAGE_ROW, Usage(prompt_tokens=7, image_tokens=1290, text_tokens=214)),
        ([inline(SMALL)], UNNAMED | {"totalTokenCount": 5}, Usage(prompt_tokens=7, image_tokens=1304, text_tokens=0)),
        ([inline(SMALL)], USAGE | {"candidatesTokensDetails": []}, None),
        ([inline(SMALL)], {"promptTokenCount": 7}, None),
        ([inline(SMALL)], {}, None),
        ([inline(SMALL)], {"candidatesTokenCount": "many"}, None),
        ([inline(SMALL)], {"candidatesTokenCount": 1e300}, None),
        ([inline(SMALL)], {"candidatesTokenCount": -5}, None),
        ([inline(SMALL)], {"candidatesTokenCount": 1}, None),
        ([inline(SMALL)], {"candidatesTokenCount": True}, None),
        ([{"text": "no"}], {"promptTokenCount": 9}, Usage(prompt_tokens=9, image_tokens=0, text_tokens=0)),
        ([], {name: str(n) for name, n in REFUSED.items()}, Usage(prompt_tokens=9, image_tokens=0, text_tokens=60)),
    ],
    ids=range(17),
)
def test_usage_is_counted_so_that_nothing_is_under_reported(make_reply, task, parts, counted, usage):
    assert judged(make_reply, task, whole(*parts, usageMetadata=counted)).usage == usage


@pytest.mark.parametrize(
    ("code", "billed"), [("prompt_blocked", Billed.YES), ("new_thing", Billed.MAYBE), (503, Billed.NO)]
)
def test_h49_an_error_inside_a_200_keeps_its_tokens_and_is_billed_by_its_code(make_reply, task, code, billed):
    result = judged(make_reply, task, {"error": {"code": code, "message": "x"}, "usageMetadata": REFUSED})
    assert result.billed is billed
    assert result.usage == Usage(prompt_tokens=9, image_tokens=0, text_tokens=60)


def test_ids_and_version_are_kept(make_reply, task):
    body = whole(inline(SMALL), modelVersion="gemini-3-pro-image", responseId="hweY")
    answer = judged(make_reply, task, body, x_oneapi_request_id="req-12345")
    assert (answer.model_version, answer.response_id, answer.request_id) == ("gemini-3-pro-image", "hweY", "req-12345")


def test_a_bug_in_judging_keeps_the_body(make_reply, task):
    def broken_clock():
        raise RuntimeError("no time")

    reader = AnswerReader(Redactor(KEY), Catalogue(), clock=broken_clock)
    failure = reader.read(make_reply(b'{"error":{}}', 429), task)
    assert (failure.fault, failure.billed, failure.body) == (Fault.OTHER, Billed.MAYBE, b'{"error":{}}')
    assert "RuntimeError: no time" in failure.reason


@pytest.mark.parametrize(
    ("told", "headers", "served"),
    [
        ({"serviceTier": "flex"}, {}, Tier.FLEX),
        ({"serviceTier": "STANDARD"}, {"x_gemini_service_tier": "flex"}, Tier.STANDARD),
        ({}, {"x_gemini_service_tier": "flex"}, Tier.FLEX),
        ({}, {}, Tier.STANDARD),
    ],
)
def test_the_tier_that_was_served_is_the_answers_then_the_headers_else_standard(
    make_reply, make_task, told, headers, served
):
    counted = {"promptTokenCount": 7, "candidatesTokenCount": 1120, **told}
    answer = judged(make_reply, make_task(tier=Tier.FLEX), whole(inline(SMALL), usageMetadata=counted), **headers)
    assert isinstance(answer, Answer)
    assert answer.usage.tier is served


@pytest.mark.parametrize(
    ("tier", "error", "fault"),
    [
        (Tier.FLEX, {"status": "UNAVAILABLE", "message": "busy"}, Fault.THROTTLED),
        (Tier.STANDARD, {"status": "UNAVAILABLE", "message": "busy"}, Fault.OUTAGE),
        (Tier.FLEX, {"code": "model_not_found", "message": "no"}, Fault.MODEL_MISSING),
    ],
)
def test_a_503_of_flex_is_throttled_and_no_outage(make_reply, make_task, tier, error, fault):
    failure = judged(make_reply, make_task(tier=tier), {"error": error}, 503)
    assert (failure.fault, failure.billed) == (fault, Billed.NO)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" + b"{}," * 200_001 + b"{}]", id="objects"),
        pytest.param(b"[" + b"1," * 200_001 + b"1]", id="numbers"),
        pytest.param(b'{"candidates": [' + b"[]," * 200_001 + b"[]]}", id="lists"),
        pytest.param(b"{}\n" * 200_001, id="lines"),
        pytest.param(b"data: {}\n\n" * 200_001, id="events"),
    ],
)
def test_an_answer_of_too_many_values_is_kept_and_not_decoded(make_reply, task, body):
    result = judged(make_reply, task, body)
    assert (result.fault, result.billed, result.body) == (Fault.BROKEN, Billed.YES, body)
    assert "more than 200,000 values" in result.reason


def test_a_body_of_nothing_but_line_ends_takes_no_memory(make_reply, task):
    body = b"\n" * 2_000_000
    tracemalloc.start()
    try:
        result, peak = judged(make_reply, task, body), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.fault is Fault.BROKEN
    assert peak < 10 * len(body)


def test_a_bare_image_full_of_commas_is_an_image(make_reply, task):
    commas = SMALL[:-12] + chunk(b"fiLl", b"," * 300_000) + SMALL[-12:]
    assert judged(make_reply, task, commas).image.data == commas
