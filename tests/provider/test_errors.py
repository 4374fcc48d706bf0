"""The table of outcomes, row by row, over the pure function that reads like it."""

import json
from datetime import UTC, datetime

import pytest

from pipeline.model import Billed, Fault
from pipeline.provider import errors
from pipeline.provider.redact import Redactor

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NO, MAYBE = Billed.NO, Billed.MAYBE


def comet(message="m", code="", kind="comet_api_error"):
    return {"error": {"message": message, "type": kind, "param": "", "code": code}}


def google(code, status, message="m", *details):
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.7s"}
PER_DAY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "250"}]}
PER_MINUTE = {"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
PAGE = b"<html><head><title>524: A timeout occurred</title></head></html>"

TABLE = [
    ("H01-500", 500, comet("upstream"), Fault.OUTAGE, NO),
    ("H01-google-500", 500, google(500, "INTERNAL"), Fault.OUTAGE, NO),
    ("H02-invalid-request", 500, comet(code="invalid_request"), Fault.BAD_REQUEST, NO),
    ("H02-convert", 500, comet(code="convert_request_failed"), Fault.BAD_REQUEST, NO),
    *((f"H03-{s}", s, PAGE, Fault.OUTAGE, NO) for s in (502, 520, 521, 522, 523, 525, 526, 530)),
    ("H03-529", 529, comet("overloaded"), Fault.OUTAGE, NO),
    ("H04-503", 503, google(503, "UNAVAILABLE", "The model is overloaded."), Fault.OUTAGE, NO),
    ("H04-exhausted", 503, google(503, "RESOURCE_EXHAUSTED"), Fault.THROTTLED, NO),
    ("H04-503-per-day", 503, google(503, "RESOURCE_EXHAUSTED", "m", PER_DAY), Fault.QUOTA, NO),
    ("H05", 503, comet("no available channel", "model_not_found"), Fault.MODEL_MISSING, NO),
    ("H06-504", 504, google(504, "DEADLINE_EXCEEDED"), Fault.SILENCE, MAYBE),
    ("H06-524", 524, PAGE, Fault.SILENCE, MAYBE),
    ("H07", 429, comet("当前分组上游负载已饱和，请稍后再试"), Fault.THROTTLED, NO),
    ("H07-relayed", 429, comet("Resource has been exhausted (e.g. check quota).", 429), Fault.THROTTLED, NO),
    ("H07-per-key", 429, comet("API key limit exceeded: 60 requests per minute. Retry in 12s."), Fault.THROTTLED, NO),
    ("H11", 429, google(429, "RESOURCE_EXHAUSTED", "m", PER_MINUTE, RETRY), Fault.THROTTLED, NO),
    ("H12-per-day", 429, google(429, "RESOURCE_EXHAUSTED", "m", PER_DAY, RETRY), Fault.QUOTA, NO),
    ("H12-long-text", 429, comet("Your quota will reset after 18h31m10s."), Fault.QUOTA, NO),
    ("H12-long-503", 503, comet("Please retry in 301s."), Fault.QUOTA, NO),
    ("H12-at-the-edge", 429, comet("Please retry in 300s."), Fault.THROTTLED, NO),
    ("H13-408", 408, b"", Fault.SILENCE, MAYBE),
    *((f"H13-{s}", s, b"", Fault.OUTAGE, NO) for s in (409, 425)),
    ("H14-401", 401, comet("Invalid token"), Fault.ACCOUNT, NO),
    ("H14-google-400", 400, google(400, "INVALID_ARGUMENT", "API key not valid.", BAD_KEY), Fault.UPSTREAM_ACCOUNT, NO),
    ("H16-402", 402, b"", Fault.ACCOUNT, NO),
    ("H16-403-quota", 403, comet(code="insufficient_user_quota"), Fault.ACCOUNT, NO),
    ("H16-403-consume", 403, comet(code="pre_consume_token_quota_failed"), Fault.ACCOUNT, NO),
    ("H16-403-text", 403, comet("User's credit limit is insufficient, remaining: $0"), Fault.ACCOUNT, NO),
    ("H16-429-credit", 429, comet(code="insufficient_user_quota"), Fault.ACCOUNT, NO),
    ("H17-waf", 403, b"<html><title>Attention Required!</title></html>", Fault.FORBIDDEN, NO),
    ("H17-google", 403, google(403, "PERMISSION_DENIED", "The caller has no permission"), Fault.FORBIDDEN, NO),
    ("H18", 404, google(404, "NOT_FOUND"), Fault.NOT_FOUND, NO),
    ("H18-comet", 404, comet("Invalid URL (POST /x)", kind="invalid_request_error"), Fault.NOT_FOUND, NO),
    ("H19", 400, google(400, "INVALID_ARGUMENT"), Fault.BAD_REQUEST, NO),
    *((f"H20-{s}", s, b"", Fault.BAD_REQUEST, NO) for s in (413, 415, 422)),
    *((f"H21-{s}", s, b"", Fault.BAD_REQUEST, NO) for s in (405, 418, 451, 499)),
    ("H06-cancelled", 499, google(499, "CANCELLED", "The operation was cancelled."), Fault.SILENCE, MAYBE),
    *((f"H21-{s}", s, b"", Fault.OTHER, MAYBE) for s in (101, 501, 505, 599, 999, 600)),
    *((f"H22-{s}", s, b"", Fault.ADDRESS, NO) for s in (300, 301, 302, 303, 304, 307, 308)),
    ("H46-403", 403, PAGE, Fault.FORBIDDEN, NO),
    ("H71-407", 407, b"", Fault.ADDRESS, NO),
]


def judged(status, body, headers=(), **more):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return errors.failure_of_answer(status, headers, errors.parse_error(raw), redactor=Redactor(""), now=NOW, **more)


@pytest.mark.parametrize(("status", "body", "fault", "billed"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_outcome_follows_the_table(status, body, fault, billed):
    failure = judged(status, body)
    assert (failure.fault, failure.billed) == (fault, billed)
    assert failure.status == status
    assert failure.reason.startswith(f"HTTP {status}")


GIVEN_UP = [  # what these servers sent when the simulator took longer than they wait
    pytest.param(502, b"<html><head><title>502 Proxy Error</title></head></html>", id="apache"),
    pytest.param(503, b"<html><head><title>503 Backend fetch failed</title></head></html>", id="varnish"),
    pytest.param(502, b"I/O timeout", id="h2o"),
    pytest.param(502, b'{"message":"An invalid response was received from the upstream server"}', id="kong"),
    pytest.param(520, PAGE, id="cloudflare"),
    pytest.param(503, b"", id="nothing"),
]


@pytest.mark.parametrize(("status", "body"), GIVEN_UP)
def test_a_gateway_that_did_not_wait_for_the_answer_may_have_cost_money(status, body):
    failure = judged(status, body, seconds=30.1)
    assert (failure.fault, failure.billed) == (Fault.SILENCE, MAYBE)
    assert failure.reason.endswith(", after 30 s: a gateway may not have waited for the answer")
    assert (judged(status, body, seconds=3).fault, judged(status, body, seconds=3).billed) == (Fault.OUTAGE, NO)


def test_an_outage_in_the_words_of_the_api_is_free_however_late_it_is_told():
    assert judged(503, google(503, "UNAVAILABLE", "The model is overloaded."), seconds=90).billed is NO
    assert judged(502, comet("upstream error", code="do_request_failed"), seconds=90).billed is NO
    assert judged(521, PAGE, seconds=90).billed is NO


@pytest.mark.parametrize(
    ("status", "message", "fault"),
    [
        pytest.param(500, "blocked [IMAGE_SAFETY]", Fault.REFUSED, id="refusal"),
        pytest.param(500, "account balance insufficient", Fault.UPSTREAM_ACCOUNT, id="account"),
        pytest.param(503, "RESOURCE_EXHAUSTED: slow down", Fault.THROTTLED, id="exhausted"),
        pytest.param(503, "Please retry in 301s.", Fault.QUOTA, id="long-delay"),
    ],
)
def test_a_late_error_without_a_name_means_what_it_says(status, message, fault):
    assert judged(status, {"error": {"message": message}}, seconds=90).fault is fault


def test_every_status_has_an_outcome():
    assert all(errors.outcome(status, errors.ServerError(), None) for status in range(1200))


def test_reason_says_what_the_server_said():
    failure = judged(400, google(400, "INVALID_ARGUMENT", 'Unknown name "resolution"'))
    assert failure.reason == 'HTTP 400: INVALID_ARGUMENT: Unknown name "resolution"'
    assert failure.code == "INVALID_ARGUMENT"


def test_reason_of_a_page_is_its_title():
    assert judged(524, PAGE).reason == "HTTP 524: a page titled '524: A timeout occurred'"


@pytest.mark.parametrize(
    ("headers", "message", "found"),
    [
        ((), "Invalid token (request id: 20261122150800123456789AbCdEfGh)", "20261122150800123456789AbCdEfGh"),
        ((("x-oneapi-request-id", "from-header-1"),), "no id in here", "from-header-1"),
        ((("cf-ray", "8d1f-AMS"),), "", "8d1f-AMS"),
        ((), "nothing", None),
    ],
)
def test_request_id_is_kept_for_the_support_desk(headers, message, found):
    assert judged(401, comet(message), headers).request_id == found


def test_a_per_day_quota_lasts_until_midnight_in_california():
    failure = judged(429, google(429, "RESOURCE_EXHAUSTED", "m", PER_DAY, RETRY))
    assert failure.hint_s == 20 * 3600  # 12:00 UTC is 04:00 there, in November


def test_a_per_day_quota_goes_by_the_servers_clock():
    headers = (("date", "Sun, 22 Nov 2026 07:30:00 GMT"),)
    assert judged(429, google(429, "RESOURCE_EXHAUSTED", "m", PER_DAY), headers).hint_s == 30 * 60
    longer = (*headers, ("retry-after", "7200"))
    assert judged(429, google(429, "RESOURCE_EXHAUSTED", "m", PER_DAY), longer).hint_s == 7200


def test_the_words_of_a_mistake_name_no_delay():
    """They may be those of a prompt, and would stop the run for a day."""
    assert judged(400, comet('Invalid prompt: "please wait 20 hours"')).hint_s is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param({"error": {"message": {"error": {"code": 9, "message": "too dark"}}}}, "too dark", id="object"),
        pytest.param({"error": {"message": {"error": {"message": {"error": {"message": "x y"}}}}}}, "x y", id="nested"),
        pytest.param({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required", id="list"),
        pytest.param({"success": False, "errors": [{"code": 7, "message": "denied"}]}, "denied", id="errors"),
        pytest.param({"message": ["one", "two"]}, '["one", "two"]', id="texts"),
        pytest.param("boom", "boom", id="text"),
    ],
)
def test_what_an_error_says_is_told_whatever_holds_it(body, words):
    assert judged(502, body).reason.endswith(words)


def test_a_refusal_in_an_object_is_a_refusal():
    body = {"error": {"message": {"error": {"code": 400, "message": "blocked: PROHIBITED_CONTENT"}}}}
    assert judged(400, body).fault is Fault.REFUSED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'"text"',
        b'{"error":"just text"}',
        b'{"error":null}',
        b'{"error":{"code":null,"message":null,"details":null}}',
        b'{"error":{"code":{},"message":[],"details":{"a":1},"status":7}}',
        b'{"error":{"details":[null,1,{"violations":[null,{"quotaId":null}],"metadata":5,"retryDelay":9}]}}',
        b'[{"error":{"code":503,"status":"UNAVAILABLE"}}]',
        b"\xff\xfe\x00",
        b"[" * 200_000,
    ],
    ids=range(13),
)
def test_any_error_body_is_read_without_an_exception(body):
    assert judged(503, body).fault is Fault.OUTAGE


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param({"code": 429}, 429, id="H49-number"),
        pytest.param({"code": "429"}, 429, id="H49-text"),
        pytest.param({"status": "UNAVAILABLE"}, 503, id="H49-status"),
        pytest.param({"code": "model_not_found"}, 503, id="H49-code"),
        pytest.param({"code": "insufficient_user_quota"}, 403, id="H49-credit"),
        pytest.param({"code": 7, "status": "DEADLINE_EXCEEDED"}, 504, id="H49-status-wins-over-nonsense"),
        pytest.param({"type": "rate_limit_error", "code": None}, 429, id="H49-type"),
        pytest.param({"type": "upstream_error", "code": 429}, 429, id="H49-code-before-type"),
        pytest.param({"type": "new_api_error"}, 0, id="H49-type-of-a-gateway"),
        pytest.param({"code": "something_new"}, 0, id="H49-unknown"),
        pytest.param({"code": 200}, 0, id="H49-a-success-is-no-error"),
        pytest.param({"code": "9" * 5000}, 0, id="H49-endless-number"),
    ],
)
def test_an_error_inside_a_200_names_its_status(error, status):
    assert errors.status_inside(errors.from_tree({"error": error})) == status


def nested(status, error):
    """An error as a relay of relays sends it: the whole of it as text in its own message."""
    return comet(json.dumps({"error": error}, indent=2) + " (request id: 20261128184500123456789AbCdEfGh)", status)


def openrouter(raw):
    return {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw}}}


LIMIT_0 = (
    "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: "
    "generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: m\nPlease retry in 37.3s."
)
EXPIRED = "API key expired. Please renew the API key."
LEAKED = "Your API key was reported as leaked. Please use another API key."
SUSPENDED = "Permission denied: Consumer 'api_key:AIza' has been suspended."
CAP = "Your billing account has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/billing"
DEPLETED = "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing."
REGION = "User location is not supported for the API use."
DISABLED = (
    "Gemini has been disabled in this account for violation of Terms of\n\t\tService. If you believe this is an error"
)
UNUSED = (
    "Generative Language API has not been used in project 123 before or it is disabled. Enable it by visiting https://x"
)
DUNNING = "Lightning dunning decision is deny for project: projects/123"


def reason(name):
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": name, "domain": "googleapis.com"}


ACCOUNTS = [
    ("expired", 400, google(400, "INVALID_ARGUMENT", EXPIRED, BAD_KEY)),
    ("expired-without-details", 400, google(400, "INVALID_ARGUMENT", EXPIRED)),
    ("expired-relayed", 400, comet(EXPIRED, "bad_response_status_code", "upstream_error")),
    ("expired-relayed-as-500", 500, comet(EXPIRED, "bad_response_status_code", "upstream_error")),
    ("not-found", 400, google(400, "INVALID_ARGUMENT", "API Key not found. Please pass a valid API key.")),
    ("reason-only", 400, google(400, "INVALID_ARGUMENT", "m", BAD_KEY)),
    ("leaked", 403, google(403, "PERMISSION_DENIED", LEAKED)),
    ("leaked-nested", 403, nested(403, google(403, "PERMISSION_DENIED", LEAKED)["error"])),
    ("leaked-relayed-as-429", 429, comet(LEAKED)),
    ("suspended", 403, google(403, "PERMISSION_DENIED", SUSPENDED, reason("CONSUMER_SUSPENDED"))),
    ("suspended-relayed", 403, comet(f"status code 403: {SUSPENDED}")),
    ("service-blocked", 403, google(403, "PERMISSION_DENIED", "m", reason("API_KEY_SERVICE_BLOCKED"))),
    ("service-blocked-relayed", 403, comet("Requests to this API generativelanguage.googleapis.com are blocked.")),
    ("service-disabled", 403, google(403, "PERMISSION_DENIED", UNUSED, reason("SERVICE_DISABLED"))),
    ("service-disabled-relayed", 403, comet(UNUSED)),
    ("account-disabled", 403, google(403, "PERMISSION_DENIED", DISABLED)),
    ("account-disabled-nested", 403, {"error": f"HTTP 403: {json.dumps(google(403, 'PERMISSION_DENIED', DISABLED))}"}),
    ("dunning", 403, google(403, "PERMISSION_DENIED", DUNNING)),
    ("access-denied", 403, google(403, "PERMISSION_DENIED", "Your project has been denied access.")),
    ("spending-cap", 429, google(429, "RESOURCE_EXHAUSTED", CAP)),
    ("spending-cap-relayed", 429, comet(CAP, 429, "upstream_error")),
    ("spending-cap-with-a-delay", 429, google(429, "RESOURCE_EXHAUSTED", CAP, RETRY)),
    ("project-cap", 429, google(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap.")),
    ("credits-depleted", 429, google(429, "RESOURCE_EXHAUSTED", DEPLETED)),
    ("credits-depleted-as-503", 503, comet(DEPLETED)),
    ("limit-0", 429, google(429, "RESOURCE_EXHAUSTED", LIMIT_0, PER_DAY, RETRY)),
    ("limit-0-relayed", 429, comet(LIMIT_0, 429, "upstream_error")),
    ("limit-0-in-details", 429, google(429, "RESOURCE_EXHAUSTED", "m", {"violations": [{"quotaValue": "0"}]})),
    ("limit-0-in-metadata", 429, google(429, "RESOURCE_EXHAUSTED", "m", {"metadata": {"quota_limit_value": "0"}})),
    ("region", 400, google(400, "FAILED_PRECONDITION", REGION)),
    ("region-relayed", 400, comet(f"{REGION} (request id: 2026112818450012)", "", "upstream_error")),
    ("region-as-openrouter", 400, comet("Provider returned error: " + json.dumps({"error": {"message": REGION}}))),
    ("raw-of-openrouter", 400, openrouter(google(400, "INVALID_ARGUMENT", EXPIRED))),
    ("raw-text-of-openrouter", 400, openrouter(json.dumps(google(400, "INVALID_ARGUMENT", EXPIRED)))),
    ("key-limit-of-openrouter", 403, comet("Key limit exceeded (total limit). Manage it using https://x/keys")),
    ("user-banned", 403, comet("User has been banned (request id: 2026112818450012)")),
    ("subscription", 403, {"code": "SUBSCRIPTION_EXPIRED", "message": "subscription has expired"}),
    ("unregistered", 403, google(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")),
    ("region-openai", 403, comet("m", "unsupported_country_region_territory")),
    ("free-tier-region", 400, google(400, "FAILED_PRECONDITION", "The free tier is not available in your country.")),
    ("channel-key", 500, comet("m", "channel:invalid_key", "new_api_error")),
    ("no-channel-key", 500, comet("no enabled keys", "channel:no_available_key", "new_api_error")),
    ("openai-key", 400, comet("Incorrect API key provided: sk-...", "invalid_api_key")),
    ("chinese", 403, comet("该令牌已过期 (request id: 2026112818450012)")),
    ("budget-400", 400, comet("Budget has been exceeded! Current cost: 76.16, Max budget: 10.0", "400")),
    ("budget-429", 429, comet("LiteLLM User: me, exceeded budget for model=gemini", "429")),
    ("budget-deployment", 429, comet("No deployments available - crossed budget: Exceeded budget for deployment")),
    ("budget-type", 429, comet("m", "429", "budget_exceeded")),
    ("quota-400", 400, {"code": 0, "message": "Insufficient quota available", "type": "invalid_request_error"}),
    ("user-quota", 500, comet("user quota is not enough, user quota: -12345")),
    ("negative-balance", 429, comet("Your account balance is negative (-0.32)")),
    ("chinese-top-up", 429, comet("您的账户余额为 -0.32 元，请充值后使用")),
    ("chinese-used-up", 429, comet("用户额度已用完")),
    ("chinese-points", 400, {"code": -1, "msg": "积分不足"}),
    ("own-fields", 400, {"errorKey": "x", "errorMessage": "Insufficient credit balance"}),
]  # fmt: skip


@pytest.mark.parametrize("words", ["thinking budget exceeded 8192", "请求过于频繁，充值用户可提高限额"])
def test_words_that_only_resemble_those_of_an_account_are_not_about_one(words):
    assert judged(429, comet(words)).fault is Fault.THROTTLED


SCALEWAY = {
    "status": 429,
    "error": "INSUFFICIENT QUOTA",
    "message": "You exceeded your current limit of concurrent requests.",
}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (SCALEWAY, ()),
        (SCALEWAY | {"message": "You exceeded your current quota of tokens per minute."}, ()),
        (comet("Insufficient quota, please retry in 20s"), ()),
        (comet("Insufficient quota"), (("retry-after", "20"),)),
        (comet("当前分钟配额已用完，请稍后再试"), ()),
    ],
    ids=["concurrent", "tokens-a-minute", "delay-in-words", "delay-in-a-header", "chinese"],
)
def test_a_quota_that_waiting_brings_back_is_a_rate_limit(body, headers):
    assert judged(429, body, headers=headers).fault is Fault.THROTTLED


@pytest.mark.parametrize("words", ["今日额度已用完", "Insufficient quota: 100 requests per day"])
def test_a_quota_of_a_day_is_one_in_whatever_words(words):
    assert judged(429, comet(words)).fault is Fault.QUOTA


def test_an_error_that_names_no_message_is_shown_as_it_came():
    assert judged(400, {"errorMessage": "odd", "n": 1}).reason == 'HTTP 400: {"errorMessage": "odd", "n": 1}'


@pytest.mark.parametrize(("status", "body"), [pytest.param(*row[1:], id=row[0]) for row in ACCOUNTS])
def test_an_account_is_told_from_a_task_in_whatever_words(status, body):
    failure = judged(status, body)
    assert (failure.fault, failure.billed, failure.hint_s) == (Fault.UPSTREAM_ACCOUNT, NO, None)


def test_googles_own_word_about_an_account_is_final_when_it_is_the_first():
    assert judged(403, google(403, "PERMISSION_DENIED", LEAKED), is_first=True).fault is Fault.ACCOUNT
    assert judged(403, comet(LEAKED), is_first=True).fault is Fault.UPSTREAM_ACCOUNT  # a relay may have other keys


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, google(403, "PERMISSION_DENIED", "m", reason("BILLING_DISABLED"))),
        (400, google(400, "PUP_LIMITED_DISABLED")),
        (403, comet("m", "ACCOUNT_DISABLED")),
        (500, comet("m", "BILLING_NOT_FOUND")),
    ],
    ids=["billing-disabled", "pup", "account", "relayed-as-500"],
)
def test_an_account_that_is_limited_or_disabled_by_its_name_is_final(status, body):
    assert judged(status, body).fault is Fault.ACCOUNT


OPENAI = "Your request was rejected as a result of our safety system."
SAFE = "Gemini image generation blocked [IMAGE_SAFETY]: The generated image was blocked due to safety policy violation"
REFUSED = [
    ("channel-error", comet(SAFE, "channel:image_generation_failed", "channel_error"), "IMAGE_SAFETY"),
    ("prompt-blocked", comet("blocked by Gemini API: PROHIBITED_CONTENT", "prompt_blocked"), "PROHIBITED_CONTENT"),
    ("prompt-blocked-only", comet("m", "prompt_blocked"), "prompt_blocked"),
    ("one-api", comet("blocked: prompt: BlockedReasonProhibitedContent ()", "do_request_failed"), "blocked"),
    ("candidate", comet("Candidate was blocked due to SAFETY"), "SAFETY"),
    ("google-status", google(400, "PROHIBITED_CONTENT"), "PROHIBITED_CONTENT"),
    ("openai", comet(OPENAI, "content_policy_violation"), "content_policy_violation"),
    ("openai-words", comet(OPENAI), "blocked"),
    ("moderation", comet("m", "moderation_blocked"), "moderation_blocked"),
    ("vertex", comet("The prompt contains sensitive words that violate Google's Responsible AI practices."), "blocked"),
    ("new-api-words", comet("user sensitive words detected", "sensitive_words_detected"), "sensitive_words_detected"),
    ("nested", nested(400, {"message": SAFE}), "IMAGE_SAFETY"),
    ("chinese", comet("提示词包含敏感词，请修改后重试"), "blocked"),
    ("chinese-content", comet("您的提示词包含违规内容"), "blocked"),
    ("openrouter", comet('m requires moderation. Your input was flagged for "x". No credits were charged.'), "blocked"),
    ("raw-of-openrouter", openrouter("Prompt blocked: PROHIBITED_CONTENT"), "PROHIBITED_CONTENT"),
    ("imagen", comet("Your current safety filter threshold prohibited one or more inputs."), "blocked"),
    ("about-money", comet("A prompt about credit and balance", "content_filter"), "content_filter"),
]  # fmt: skip


@pytest.mark.parametrize("status", [400, 403, 422, 429, 500, 503, 529])
@pytest.mark.parametrize(("body", "code"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_a_refusal_is_one_whatever_its_status(status, body, code):
    failure = judged(status, body)
    assert (failure.fault, failure.billed, failure.code) == (Fault.REFUSED, Billed.YES, code)


QUOTA = "You exceeded your current quota, please check your plan and billing details. For more information, head to: x"
SPEND_RATE = (  # dollars in ten minutes, which goes by; not the spending cap of a month
    "You exceeded your spend-based rate limit. Your spending rate has exceeded the allowed limit for your account's "
    "billing history and tier."
)
HARMLESS = [
    ("quota-without-a-limit", 429, google(429, "RESOURCE_EXHAUSTED", QUOTA), Fault.THROTTLED),
    ("quota-without-a-limit-relayed", 429, comet(QUOTA, 429, "upstream_error"), Fault.THROTTLED),
    ("spend-rate", 429, google(429, "RESOURCE_EXHAUSTED", SPEND_RATE), Fault.THROTTLED),
    ("spend-rate-relayed", 429, comet(SPEND_RATE, 429, "upstream_error"), Fault.THROTTLED),
    ("quota-words", 429, google(429, "RESOURCE_EXHAUSTED", LIMIT_0.replace("limit: 0", "limit: 20")), Fault.THROTTLED),
    ("limit-0.5", 429, comet("rate limit: 0.5 requests per second"), Fault.THROTTLED),
    ("limit-10", 429, comet("Quota exceeded, limit: 10"), Fault.THROTTLED),
    ("organization", 429, comet("Rate limit reached for m in organization org-1 on requests per min"), Fault.THROTTLED),
    ("overloaded", 503, google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), Fault.OUTAGE),
    ("disabled-service", 503, comet("The service is temporarily disabled for maintenance"), Fault.OUTAGE),
    ("user-message", 400, google(400, "INVALID_ARGUMENT", "The user message is disabled"), Fault.BAD_REQUEST),
    ("bad-field", 400, google(400, "INVALID_ARGUMENT", "Invalid value at safety_settings[0]"), Fault.BAD_REQUEST),
    ("waf", 403, b"<html><title>Sorry, you have been blocked</title></html>", Fault.FORBIDDEN),
    ("model", 404, google(404, "NOT_FOUND", "models/x is not found for API version v1beta"), Fault.NOT_FOUND),
    ("channel", 503, comet("no available channel for group default", "model_not_found"), Fault.MODEL_MISSING),
]  # fmt: skip


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize(("status", "body", "fault"), [pytest.param(*row[1:], id=row[0]) for row in HARMLESS])
def test_words_alike_are_neither_an_account_nor_a_refusal(status, body, fault, is_first):
    assert judged(status, body, is_first=is_first).fault is fault


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, comet("Invalid URL (POST /v1beta/openai/v1beta/models/m)", kind="invalid_request_error")),
        (404, b"<html><head><title>404 Not Found</title></head></html>"),
        (404, b"404 page not found"),
        (404, b'{"detail":"Not Found"}'),
        (404, b""),
        (405, b'{"detail":"Method Not Allowed","error":"no route for POST"}'),
        (404, b"Cannot POST /v1/v1beta/models"),
        (404, b'{"fault":{"faultstring":"Unable to identify proxy for host"}}'),
    ],
    ids=["new-api", "nginx", "go", "fastapi", "silent", "405", "express", "apigee"],
)
def test_a_path_that_is_not_there_is_a_wrong_address_when_it_is_the_first_answer(status, body):
    first = judged(status, body, is_first=True)
    assert (first.fault, first.billed) == (Fault.ADDRESS, NO)
    assert "is base_url right?" in first.reason
    assert judged(status, body).fault is not Fault.ADDRESS
