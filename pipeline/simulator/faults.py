"""Every fault by name, and the error answers: the gateway's envelope, the model owner's, pages of HTML.

Profiles and prompts name faults from this table. Faults of the stage error are answered from here, the others are
carried out in `responses` (bodies) and `api` (the connection).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from functools import partial
from math import ceil

import msgspec


class Stage(StrEnum):
    """Where on its way an answer is spoiled."""

    ERROR = "error"  # answered with an error instead of being executed
    CONTENT = "content"  # executed, a 200 without an image
    ENCODING = "encoding"  # an image is there; how it is wrapped
    DAMAGE = "damage"  # an image was made, its bytes or the body are spoilt
    CONNECTION = "connection"  # the answer is right, the connection is not


class Outcome(StrEnum):
    """What the bill says of an answer."""

    IMAGE = "image"
    REFUSED = "refused"
    NO_IMAGE = "no_image"
    ERROR = "error"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class SimulatedFault:
    """One row of the table. `is_billed`: the work was done, so it is paid, whatever the client saw."""

    name: str
    about: str
    finish: str = ""  # finishReason or blockReason
    _: KW_ONLY
    stage: Stage
    outcome: Outcome
    is_billed: bool = True


_error = partial(SimulatedFault, stage=Stage.ERROR, outcome=Outcome.ERROR, is_billed=False)
_refused = partial(SimulatedFault, stage=Stage.CONTENT, outcome=Outcome.REFUSED)
_no_image = partial(SimulatedFault, finish="STOP", stage=Stage.CONTENT, outcome=Outcome.NO_IMAGE)
_encoding = partial(SimulatedFault, stage=Stage.ENCODING, outcome=Outcome.IMAGE)
_damage = partial(SimulatedFault, stage=Stage.DAMAGE, outcome=Outcome.IMAGE)
_cut = partial(SimulatedFault, stage=Stage.CONNECTION, outcome=Outcome.CUT)
_slow = partial(SimulatedFault, stage=Stage.CONNECTION, outcome=Outcome.IMAGE)

_TABLE = (
    _error("rate_limited", "429 of the gateway, with Retry-After when the rule has retry_after"),
    _error("rate_limited_date", "429 whose Retry-After is a date"),
    _error("rate_limited_retry_info", "429 of the model owner with RetryInfo"),
    _error("rate_limited_text", "429 relayed, the delay only in words"),
    _error("quota_per_day", "429 whose quota is per day"),
    _error("server_error", "500 of the gateway"),
    _error("internal", "500 INTERNAL of the model owner"),
    _error("invalid_request", "500 with code invalid_request"),
    _error("convert_request_failed", "500 with code convert_request_failed"),
    _error("bad_gateway", "502, a page of HTML"),
    _error("overloaded", "503 UNAVAILABLE"),
    _error("exhausted", "503 RESOURCE_EXHAUSTED"),
    _error("model_not_found", "503 model_not_found"),
    _error("deadline", "504 DEADLINE_EXCEEDED", is_billed=True),
    _error("gateway_timeout", "524, a page of HTML", is_billed=True),
    _error("request_timeout", "408", is_billed=True),
    _error("unauthorized", "401"),
    _error("payment_required", "402"),
    _error("insufficient_quota", "403 insufficient_user_quota"),
    _error("forbidden", "403 of a firewall, a page of HTML"),
    _error("bad_argument", "400 INVALID_ARGUMENT"),
    _error("not_found", "404 NOT_FOUND"),
    _error("too_large", "413"),
    _error("redirect", "302 to another host"),
    _error("html", "200, a page of HTML"),
    _error("error_in_200", "200 whose body is an error"),
    _refused("prompt_blocked", "blocked", "PROHIBITED_CONTENT"),
    _refused("safety", "blocked", "SAFETY"),
    _refused("image_safety", "blocked", "IMAGE_SAFETY"),
    _refused("prohibited", "blocked", "PROHIBITED_CONTENT"),
    _refused("image_prohibited", "blocked", "IMAGE_PROHIBITED_CONTENT"),
    _refused("recitation", "blocked", "RECITATION"),
    _refused("image_recitation", "blocked", "IMAGE_RECITATION"),
    _refused("blocklist", "blocked", "BLOCKLIST"),
    _refused("spii", "blocked", "SPII"),
    _no_image("no_image", "NO_IMAGE after a moment", finish="NO_IMAGE"),
    _no_image("image_other", "a render that failed", finish="IMAGE_OTHER"),
    _no_image("other", "OTHER without parts", finish="OTHER"),
    _no_image("malformed", "MALFORMED_RESPONSE", finish="MALFORMED_RESPONSE"),
    _no_image("max_tokens", "cut by MAX_TOKENS before the image", finish="MAX_TOKENS"),
    _no_image("text_only", "words instead of an image"),
    _no_image("empty", "STOP with an empty list of parts"),
    _no_image("null_parts", "STOP with parts: null"),
    _no_image("no_candidates", "candidates: null"),
    _no_image("file_uri", "an address instead of the bytes"),
    _no_image("empty_data", "an inline image of no bytes"),
    _encoding("several_images", "drafts as ordinary parts, each of them billed; the last is meant"),
    _encoding("drafts", "thoughts with draft images, then the image"),
    _encoding("only_thought", "the only image stands in a thought"),
    _encoding("wrong_mime", "the label names another type than the bytes"),
    _encoding("snake_case", "inline_data and mime_type"),
    _encoding("data_prefix", "data:image/png;base64, before the data"),
    _encoding("url_safe_base64", "the other Base64 alphabet, without padding"),
    _encoding("base64_lines", "Base64 in lines of 76"),
    _encoding("escaped_json", "slashes and equal signs escaped in JSON"),
    _encoding("wrong_size", "half the width and height that were asked for"),
    _damage("bad_base64", "a character that is no Base64"),
    _damage("cut_image", "an image file that ends early"),
    _damage("broken_json", "JSON that ends early, with the right length"),
    _cut("cut_body", "the connection closes in the middle of the body"),
    _cut("cut_unframed", "no length, and the body ends early"),
    _cut("reset_body", "a reset in the middle of the body"),
    _cut("reset", "a reset before the headers"),
    _cut("disconnect", "closed before the headers"),
    _cut("stall", "half the body, then silence for `seconds` (60)"),
    _slow("hang", "nothing for `seconds` (60), then the answer"),
    _slow("trickle", "the whole answer, spread over `seconds` (10)"),
)

FAULTS: Mapping[str, SimulatedFault] = {fault.name: fault for fault in _TABLE}
ALIASES: Mapping[str, str] = {"refuse": "image_safety"}  # for prompts: [[refuse]]


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
    """What an error answer names."""

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
