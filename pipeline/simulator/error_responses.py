"""Error answers: the gateway's envelope, the model owner's, pages of HTML; one for each fault."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil

import msgspec

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=UTF-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class WireReply:
    """One HTTP answer before it is sent."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class RequestRejected(Exception):  # noqa: N818 - an answer, carried out of a check
    """A request that is answered without being executed."""

    def __init__(self, reply: WireReply) -> None:
        super().__init__(f"HTTP {reply.status}")
        self.reply = reply


def comet(
    status: int,
    message: str,
    request_id: str,
    *,
    code: str | int = "",
    kind: str = "comet_api_error",
    headers: Mapping[str, str] | None = None,
) -> WireReply:
    """Make the gateway's error: the message ends with the request id; 401 and 503 carry no `param`."""
    error: dict[str, object] = {"code": code, "message": f"{message} (request id: {request_id})", "type": kind}
    if status not in (401, 503):
        error["param"] = ""
    return WireReply(status=status, body=msgspec.json.encode({"error": error}), headers=headers or {})


def google(
    status: int,
    name: str,
    message: str,
    *,
    details: Sequence[Mapping[str, object]] = (),
    headers: Mapping[str, str] | None = None,
) -> WireReply:
    """Make the model owner's error, `google.rpc.Status` as JSON."""
    error: dict[str, object] = {"code": status, "message": message, "status": name}
    if details:
        error["details"] = list(details)
    body = msgspec.json.format(msgspec.json.encode({"error": error}), indent=2)
    return WireReply(status=status, body=body, headers=headers or {})


def html(status: int, title: str, text: str, *, headers: Mapping[str, str] | None = None) -> WireReply:
    """Make a page as a proxy in front of the API shows it."""
    page = (
        f'<!DOCTYPE html>\n<html lang="en-US">\n<head><title>{title}</title><meta charset="UTF-8"></head>\n'
        f'<body><div id="cf-wrapper"><h1>{title}</h1><p>{text}</p></div></body>\n</html>\n'
    )
    return WireReply(status=status, body=page.encode(), content_type=HTML, headers=headers or {})


def bad_argument(message: str) -> RequestRejected:
    """Make the model owner's 400, ready to raise."""
    return RequestRejected(google(400, "INVALID_ARGUMENT", message))


def retry_info(delay_s: float) -> Mapping[str, object]:
    """Return the detail that names a delay, as a protobuf Duration with nine decimals."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay_s:.9f}s"}


def quota_failure(quota: str, model: str) -> Mapping[str, object]:
    """Return the detail that names the quota which is used up, e.g. `GenerateRequestsPerDayPerProjectPerModel`."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_requests_per_model",
        "quotaId": quota,
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": "250",
    }
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


INTERNAL = (
    "An internal error has occurred. Please retry or report in "
    "https://developers.generativeai.google/guide/troubleshooting"
)
SATURATED = "当前分组上游负载已饱和，请稍后再试"
EXHAUSTED = "Resource has been exhausted (e.g. check quota)."
OVERLOADED = (
    "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try again later."
)
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a refusal speaks about."""

    model: str
    request_id: str
    delay_s: float | None = None

    def headers(self) -> Mapping[str, str]:
        """Return Retry-After in whole seconds, when a delay is named."""
        return {} if self.delay_s is None else {"Retry-After": str(ceil(self.delay_s))}


def _rate_limited_date(case: Case) -> WireReply:
    until = datetime.now(UTC) + timedelta(seconds=ceil(case.delay_s or 1))
    return comet(429, SATURATED, case.request_id, headers={"Retry-After": format_datetime(until, usegmt=True)})


def _rate_limited_retry_info(case: Case) -> WireReply:
    delay = case.delay_s or 1.0
    details = [quota_failure("GenerateRequestsPerMinutePerProjectPerModel", case.model), retry_info(delay)]
    return google(429, "RESOURCE_EXHAUSTED", f"{QUOTA} \nPlease retry in {delay:.9f}s.", details=details)


def _rate_limited_text(case: Case) -> WireReply:
    message = f"{EXHAUSTED} Please retry in {case.delay_s or 1.0:.9f}s."
    return comet(429, message, case.request_id, code=429, kind="upstream_error")


def _quota_per_day(case: Case) -> WireReply:
    details = [quota_failure("GenerateRequestsPerDayPerProjectPerModel", case.model)]
    if case.delay_s is not None:
        details.append(retry_info(case.delay_s))
    return google(429, "RESOURCE_EXHAUSTED", QUOTA, details=details)


def _convert(case: Case) -> WireReply:
    message = "not supported model for image generation, only imagen models are supported"
    return comet(500, message, case.request_id, code="convert_request_failed")


def no_channel(case: Case) -> WireReply:
    """Answer for a model that nobody serves, or that has no free channel: the gateway's ambiguous 503."""
    message = f"no available channel for group default and model {case.model} (distributor)"
    return comet(503, message, case.request_id, code="model_not_found")


def _no_quota(case: Case) -> WireReply:
    message = "User's credit limit is insufficient, remaining credit limit: $0.000000"
    return comet(403, message, case.request_id, code="insufficient_user_quota", kind="new_api_error")


def _not_found(case: Case) -> WireReply:
    return google(
        404,
        "NOT_FOUND",
        f"models/{case.model} is not found for API version v1beta, or is not supported for generateContent. "
        "Call ModelService.ListModels to see the list of available models and their supported methods.",
    )


def _error_in_200(_: Case) -> WireReply:
    error = {"error": {"code": 503, "message": OVERLOADED, "status": "UNAVAILABLE"}}
    return WireReply(status=200, body=msgspec.json.encode(error))


ERROR_RESPONSES: Mapping[str, Callable[[Case], WireReply]] = {
    "rate_limited": lambda case: comet(429, SATURATED, case.request_id, headers=case.headers()),
    "rate_limited_date": _rate_limited_date,
    "rate_limited_retry_info": _rate_limited_retry_info,
    "rate_limited_text": _rate_limited_text,
    "quota_per_day": _quota_per_day,
    "server_error": lambda case: comet(500, "do request failed", case.request_id, code="do_request_failed"),
    "internal": lambda _: google(500, "INTERNAL", INTERNAL),
    "invalid_request": lambda case: comet(500, "field contents is invalid", case.request_id, code="invalid_request"),
    "convert_request_failed": _convert,
    "bad_gateway": lambda _: html(502, "502 Bad Gateway", "The web server reported a bad gateway error."),
    "overloaded": lambda case: google(503, "UNAVAILABLE", OVERLOADED, headers=case.headers()),
    "exhausted": lambda case: google(503, "RESOURCE_EXHAUSTED", EXHAUSTED, headers=case.headers()),
    "model_not_found": no_channel,
    "deadline": lambda _: google(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    "gateway_timeout": lambda _: html(524, "524: A timeout occurred", "The origin web server timed out responding."),
    "request_timeout": lambda case: comet(408, "request timeout", case.request_id),
    "unauthorized": lambda case: comet(401, "Invalid token", case.request_id),
    "payment_required": lambda case: comet(402, "payment required", case.request_id),
    "insufficient_quota": _no_quota,
    "forbidden": lambda _: html(403, "Attention Required! | Cloudflare", "Sorry, you have been blocked."),
    "bad_argument": lambda _: google(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "not_found": _not_found,
    "too_large": lambda case: comet(413, "request body too large", case.request_id, code="read_request_body_failed"),
    "redirect": lambda _: html(302, "302 Found", "", headers={"Location": "https://example.invalid/elsewhere"}),
    "html": lambda _: html(200, "Just a moment...", "Checking your browser before accessing the site."),
    "error_in_200": _error_in_200,
}
