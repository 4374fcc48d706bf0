"""Every way an answer can go wrong, by name: at which stage it strikes, what the bill says, what it looks like.

In: nothing. Out: the table that profiles and prompts name faults from. How each stage obeys is told in `refusals`
(answers without execution), `answers` (bodies) and `wire` (how bytes travel).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """Where on its way an answer is spoiled."""

    DOOR = "door"  # answered with an error instead of being executed
    CONTENT = "content"  # executed, a 200 without an image
    DRESS = "dress"  # an image is there; how it is wrapped
    BREAK = "break"  # an image was made, its bytes or the body are spoilt
    WIRE = "wire"  # the answer is right, the connection is not


class Outcome(StrEnum):
    """What the bill says of an answer."""

    IMAGE = "image"
    REFUSED = "refused"
    NO_IMAGE = "no_image"
    ERROR = "error"
    CUT = "cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table. `is_billed`: the work was done, so it is paid, whatever the client saw."""

    name: str
    stage: Stage
    about: str
    outcome: Outcome
    is_billed: bool
    finish: str = ""  # finishReason or blockReason


def _door(name: str, about: str, *, is_billed: bool = False) -> Fault:
    return Fault(name=name, stage=Stage.DOOR, about=about, outcome=Outcome.ERROR, is_billed=is_billed)


def _refused(name: str, finish: str) -> Fault:
    about = f"blocked with {finish}"
    return Fault(name=name, stage=Stage.CONTENT, about=about, outcome=Outcome.REFUSED, is_billed=True, finish=finish)


def _no_image(name: str, about: str, finish: str = "STOP") -> Fault:
    return Fault(name=name, stage=Stage.CONTENT, about=about, outcome=Outcome.NO_IMAGE, is_billed=True, finish=finish)


def _dress(name: str, about: str) -> Fault:
    return Fault(name=name, stage=Stage.DRESS, about=about, outcome=Outcome.IMAGE, is_billed=True)


def _break(name: str, about: str) -> Fault:
    return Fault(name=name, stage=Stage.BREAK, about=about, outcome=Outcome.IMAGE, is_billed=True)


def _wire(name: str, about: str, outcome: Outcome = Outcome.CUT) -> Fault:
    return Fault(name=name, stage=Stage.WIRE, about=about, outcome=outcome, is_billed=True)


_TABLE = (
    _door("rate_limited", "429 of the gateway, with Retry-After when the rule has retry_after"),
    _door("rate_limited_date", "429 whose Retry-After is a date"),
    _door("rate_limited_retry_info", "429 of the model owner with RetryInfo"),
    _door("rate_limited_text", "429 relayed, the delay only in words"),
    _door("quota_per_day", "429 whose quota is per day"),
    _door("server_error", "500 of the gateway"),
    _door("internal", "500 INTERNAL of the model owner"),
    _door("invalid_request", "500 with code invalid_request"),
    _door("convert_request_failed", "500 with code convert_request_failed"),
    _door("bad_gateway", "502, a page of HTML"),
    _door("overloaded", "503 UNAVAILABLE"),
    _door("exhausted", "503 RESOURCE_EXHAUSTED"),
    _door("model_not_found", "503 model_not_found"),
    _door("deadline", "504 DEADLINE_EXCEEDED", is_billed=True),
    _door("gateway_timeout", "524, a page of HTML", is_billed=True),
    _door("request_timeout", "408", is_billed=True),
    _door("unauthorized", "401"),
    _door("payment_required", "402"),
    _door("insufficient_quota", "403 insufficient_user_quota"),
    _door("forbidden", "403 of a firewall, a page of HTML"),
    _door("bad_argument", "400 INVALID_ARGUMENT"),
    _door("not_found", "404 NOT_FOUND"),
    _door("too_large", "413"),
    _door("redirect", "302 to another host"),
    _door("html", "200, a page of HTML"),
    _door("error_in_200", "200 whose body is an error"),
    _refused("prompt_blocked", "PROHIBITED_CONTENT"),
    _refused("safety", "SAFETY"),
    _refused("image_safety", "IMAGE_SAFETY"),
    _refused("prohibited", "PROHIBITED_CONTENT"),
    _refused("image_prohibited", "IMAGE_PROHIBITED_CONTENT"),
    _refused("recitation", "RECITATION"),
    _refused("image_recitation", "IMAGE_RECITATION"),
    _refused("blocklist", "BLOCKLIST"),
    _refused("spii", "SPII"),
    _no_image("no_image", "NO_IMAGE after a moment", "NO_IMAGE"),
    _no_image("image_other", "a render that failed", "IMAGE_OTHER"),
    _no_image("other", "OTHER without parts", "OTHER"),
    _no_image("malformed", "MALFORMED_RESPONSE", "MALFORMED_RESPONSE"),
    _no_image("max_tokens", "cut by MAX_TOKENS before the image", "MAX_TOKENS"),
    _no_image("text_only", "words instead of an image"),
    _no_image("empty", "STOP with an empty list of parts"),
    _no_image("null_parts", "STOP with parts: null"),
    _no_image("no_candidates", "candidates: null"),
    _no_image("file_uri", "an address instead of the bytes"),
    _no_image("empty_data", "an inline image of no bytes"),
    _dress("several_images", "drafts as ordinary parts, each of them billed; the last is meant"),
    _dress("drafts", "thoughts with draft images, then the image"),
    _dress("only_thought", "the only image stands in a thought"),
    _dress("wrong_mime", "the label names another type than the bytes"),
    _dress("snake_case", "inline_data and mime_type"),
    _dress("data_prefix", "data:image/png;base64, before the data"),
    _dress("url_safe_base64", "the other Base64 alphabet, without padding"),
    _dress("base64_lines", "Base64 in lines of 76"),
    _dress("escaped_json", "slashes and equal signs escaped in JSON"),
    _dress("wrong_size", "half the width and height that were asked for"),
    _break("bad_base64", "a character that is no Base64"),
    _break("cut_image", "an image file that ends early"),
    _break("broken_json", "JSON that ends early, with the right length"),
    _wire("cut_body", "the connection closes in the middle of the body"),
    _wire("cut_unframed", "no length, and the body ends early"),
    _wire("reset_body", "a reset in the middle of the body"),
    _wire("reset", "a reset before the headers"),
    _wire("disconnect", "closed before the headers"),
    _wire("stall", "half the body, then silence for `seconds` (60)"),
    _wire("hang", "nothing for `seconds` (60), then the answer", Outcome.IMAGE),
    _wire("trickle", "the whole answer, spread over `seconds` (10)", Outcome.IMAGE),
)

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _TABLE}
ALIASES: Mapping[str, str] = {"refuse": "image_safety"}  # for prompts: [[refuse]]
