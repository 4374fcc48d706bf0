"""Answers of requests that are not executed: one function for each fault of the stage `door`.

In: the model's name, the request id and the delay a rule names. Out: a `WireReply` as the real API sends it. It
refuses to know when a fault strikes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil

import msgspec

from pipeline.simulator.checks import INTERNAL
from pipeline.simulator.envelopes import WireReply, comet, google, html, quota_failure, retry_info

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


def _rate_limited(case: Case) -> WireReply:
    return comet(429, SATURATED, case.request_id, headers=case.headers())


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


def _no_channel(case: Case) -> WireReply:
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


REFUSALS: Mapping[str, Callable[[Case], WireReply]] = {
    "rate_limited": _rate_limited,
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
    "model_not_found": _no_channel,
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
