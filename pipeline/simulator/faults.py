"""Every fault by name, and the error answers: the gateway's envelope, the model owner's, pages of HTML.

Profiles and prompts name faults from this table. Faults of the stage error are answered from here, the others are
carried out in `responses` (bodies) and `api` (the connection).
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
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


_REQUEST_ID = b"<request id>"  # stands in the gateway's errors until the request is known


def signed(reply: WireReply, request_id: str) -> WireReply:
    """Return the answer with its request id in a header and in the gateway's words, as this family sends it."""
    body = reply.body if reply.status == 200 else reply.body.replace(_REQUEST_ID, request_id.encode())
    return replace(reply, body=body, headers={**reply.headers, "X-Oneapi-Request-Id": request_id})


def comet(
    status: int,
    message: str,
    *,
    code: str | int = "",
    kind: str = "comet_api_error",
    headers: Mapping[str, str] | None = None,
) -> WireReply:
    """Make the gateway's error: the message ends with the request id; 401 and 503 carry no `param`."""
    named = f"{message} (request id: {_REQUEST_ID.decode()})"
    error: dict[str, object] = {"code": code, "message": named, "type": kind}
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
NOT_FOUND = (
    "is not found for API version v1beta, or is not supported for generateContent. Call ModelService.ListModels to see "
    "the list of available models and their supported methods."
)
ONLY_IMAGEN = "not supported model for image generation, only imagen models are supported"
NO_CREDIT = "User's credit limit is insufficient, remaining credit limit: $0.000000"
SATURATED = "当前分组上游负载已饱和，请稍后再试"
EXHAUSTED = "Resource has been exhausted (e.g. check quota)."
OVERLOADED = (
    "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try again later."
)
QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)


def no_channel(model: str) -> WireReply:
    """Answer for a model that is not served, or that has no free channel: the gateway's ambiguous 503."""
    message = f"no available channel for group default and model {model} (distributor)"
    return comet(503, message, code="model_not_found")


def error_response(name: str, model: str, delay_s: float | None = None) -> WireReply:
    """Return the answer of a fault of the stage error; some name a delay."""
    headers = {} if delay_s is None else {"Retry-After": str(ceil(delay_s))}
    named_s = delay_s or 1.0
    details = [] if delay_s is None else [retry_info(delay_s)]
    match name:
        case "rate_limited":
            return comet(429, SATURATED, headers=headers)
        case "rate_limited_date":
            until = format_datetime(datetime.now(UTC) + timedelta(seconds=ceil(named_s)), usegmt=True)
            return comet(429, SATURATED, headers={"Retry-After": until})
        case "rate_limited_retry_info":
            quota = quota_failure("GenerateRequestsPerMinutePerProjectPerModel", model)
            message = f"{QUOTA} \nPlease retry in {named_s:.9f}s."
            return google(429, "RESOURCE_EXHAUSTED", message, details=[quota, retry_info(named_s)])
        case "rate_limited_text":
            return comet(429, f"{EXHAUSTED} Please retry in {named_s:.9f}s.", code=429, kind="upstream_error")
        case "quota_per_day":
            quota = quota_failure("GenerateRequestsPerDayPerProjectPerModel", model)
            return google(429, "RESOURCE_EXHAUSTED", QUOTA, details=[quota, *details])
        case "overloaded":
            return google(503, "UNAVAILABLE", OVERLOADED, headers=headers)
        case "exhausted":
            return google(503, "RESOURCE_EXHAUSTED", EXHAUSTED, headers=headers)
        case "model_not_found":
            return no_channel(model)
        case "not_found":
            return google(404, "NOT_FOUND", f"models/{model} {NOT_FOUND}")
        case _:
            return _FIXED[name]


_FIXED: Mapping[str, WireReply] = {
    "server_error": comet(500, "do request failed", code="do_request_failed"),
    "internal": google(500, "INTERNAL", INTERNAL),
    "invalid_request": comet(500, "field contents is invalid", code="invalid_request"),
    "convert_request_failed": comet(500, ONLY_IMAGEN, code="convert_request_failed"),
    "bad_gateway": html(502, "502 Bad Gateway", "The web server reported a bad gateway error."),
    "deadline": google(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    "gateway_timeout": html(524, "524: A timeout occurred", "The origin web server timed out responding."),
    "request_timeout": comet(408, "request timeout"),
    "unauthorized": comet(401, "Invalid token"),
    "payment_required": comet(402, "payment required"),
    "insufficient_quota": comet(403, NO_CREDIT, code="insufficient_user_quota", kind="new_api_error"),
    "forbidden": html(403, "Attention Required! | Cloudflare", "Sorry, you have been blocked."),
    "bad_argument": google(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "too_large": comet(413, "request body too large", code="read_request_body_failed"),
    "redirect": html(302, "302 Found", "", headers={"Location": "https://example.invalid/elsewhere"}),
    "html": html(200, "Just a moment...", "Checking your browser before accessing the site."),
    "error_in_200": replace(google(503, "UNAVAILABLE", OVERLOADED), status=200),
}
