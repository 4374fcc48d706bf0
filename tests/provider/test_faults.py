"""The table of outcomes, row by row, over the pure function that reads like it."""

import json
from datetime import UTC, datetime

import pytest

from pipeline.model import Billed, Fault
from pipeline.provider import faults
from pipeline.provider.scrub import Scrubber

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
    *((f"H03-{s}", s, PAGE, Fault.OUTAGE, NO) for s in (502, 520, 521, 522, 523)),
    ("H03-529", 529, comet("overloaded"), Fault.OUTAGE, NO),
    ("H04-503", 503, google(503, "UNAVAILABLE", "The model is overloaded."), Fault.OUTAGE, NO),
    ("H04-exhausted", 503, google(503, "RESOURCE_EXHAUSTED"), Fault.THROTTLED, NO),
    ("H04-503-per-day", 503, google(503, "RESOURCE_EXHAUSTED", "m", PER_DAY), Fault.QUOTA, NO),
    ("H05", 503, comet("no available channel", "model_not_found"), Fault.MODEL_MISSING, NO),
    ("H06-504", 504, google(504, "DEADLINE_EXCEEDED"), Fault.SILENCE, MAYBE),
    ("H06-524", 524, PAGE, Fault.SILENCE, MAYBE),
    ("H07", 429, comet("当前分组上游负载已饱和，请稍后再试"), Fault.THROTTLED, NO),
    ("H07-relayed", 429, comet("Resource has been exhausted (e.g. check quota).", 429), Fault.THROTTLED, NO),
    ("H11", 429, google(429, "RESOURCE_EXHAUSTED", "m", PER_MINUTE, RETRY), Fault.THROTTLED, NO),
    ("H12-per-day", 429, google(429, "RESOURCE_EXHAUSTED", "m", PER_DAY, RETRY), Fault.QUOTA, NO),
    ("H12-long-text", 429, comet("Your quota will reset after 18h31m10s."), Fault.QUOTA, NO),
    ("H12-long-503", 503, comet("Please retry in 301s."), Fault.QUOTA, NO),
    ("H12-at-the-edge", 429, comet("Please retry in 300s."), Fault.THROTTLED, NO),
    ("H13-408", 408, b"", Fault.SILENCE, MAYBE),
    *((f"H13-{s}", s, b"", Fault.BAD_REQUEST, NO) for s in (409, 425)),
    ("H14-401", 401, comet("Invalid token"), Fault.ACCOUNT, NO),
    ("H14-google-400", 400, google(400, "INVALID_ARGUMENT", "API key not valid.", BAD_KEY), Fault.ACCOUNT, NO),
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
    *((f"H21-{s}", s, b"", Fault.OTHER, MAYBE) for s in (101, 501, 505, 599, 999, 600)),
    *((f"H22-{s}", s, b"", Fault.ADDRESS, NO) for s in (300, 301, 302, 303, 304, 307, 308)),
    ("H46-403", 403, PAGE, Fault.FORBIDDEN, NO),
    ("H71-407", 407, b"", Fault.ADDRESS, NO),
]


def judged(status, body, headers=()):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return faults.judge(status, headers, faults.parse_error(raw), scrubber=Scrubber(""), now=NOW)


@pytest.mark.parametrize(("status", "body", "fault", "billed"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_outcome_follows_the_table(status, body, fault, billed):
    failure = judged(status, body)
    assert (failure.fault, failure.billed) == (fault, billed)
    assert failure.status == status
    assert failure.reason.startswith(f"HTTP {status}")


def test_every_status_has_an_outcome():
    assert all(faults.outcome(status, faults.ServerError(), None) for status in range(1200))


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
        pytest.param({"code": "something_new"}, 0, id="H49-unknown"),
        pytest.param({"code": 200}, 0, id="H49-a-success-is-no-error"),
        pytest.param({"code": "9" * 5000}, 0, id="H49-endless-number"),
    ],
)
def test_an_error_inside_a_200_names_its_status(error, status):
    assert faults.status_inside(faults.from_tree({"error": error})) == status
