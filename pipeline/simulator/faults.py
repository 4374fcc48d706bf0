"""Every fault by name: at which stage it strikes and what the bill says.

Profiles and prompts name faults from this table. They are carried out in `error_responses` (requests that are not
executed), `responses` (bodies) and `transport` (the connection).
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from functools import partial


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
