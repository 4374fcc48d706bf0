"""The bodies of errors: the gateway's envelope, the model owner's envelope, and pages of HTML.

In: what went wrong, in the server's words. Out: a `WireReply`. It refuses to know who asked and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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


class TurnedAway(Exception):  # noqa: N818 - an answer, carried out of a check
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


def bad_argument(message: str) -> TurnedAway:
    """Make the model owner's 400, ready to raise."""
    return TurnedAway(google(400, "INVALID_ARGUMENT", message))


def retry_info(delay_s: float) -> Mapping[str, object]:
    """Return the detail that names a delay, as a protobuf Duration with nine decimals."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay_s:.9f}s"}


def quota_failure(quota: str, model: str) -> Mapping[str, object]:
    """Return the detail that names the quota which is used up, e.g. `GenerateRequestsPerDayPerProjectPerModel`."""
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
            {
                "quotaMetric": "generativelanguage.googleapis.com/generate_requests_per_model",
                "quotaId": quota,
                "quotaDimensions": {"location": "global", "model": model},
                "quotaValue": "250",
            }
        ],
    }
