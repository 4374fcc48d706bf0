"""Classifies an error answer: status, headers and body to a `Failure`. Pure functions.

Relays drop Google's details, change the status and send their own codes: names (`reason`, `code`, `status`, `type`) are
looked at first, the text of the message last. Sources of the words: google.api.ErrorReason; new-api `types/error.go`;
OpenAI's images API; reports of people who met them, such as QuantumNous/new-api#2266 (expired key),
continuedev/continue#11541 (leaked), #10902 (suspended), #12781 (blocked), openclaw/openclaw#74120 (spending cap),
langgenius/dify#25946 (region, in JSON in JSON), BerriAI/litellm#14144 (budget), jeffstric/ZJT#494 (refusal).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pipeline.model import Billed, Failure, Fault
from pipeline.provider.decoding import NotJsonError, decode_answer
from pipeline.provider.delays import Headers, Json, delay, server_time
from pipeline.provider.redact import Redactor
from pipeline.settings import next_midnight, quota_zone

# Finish and block reasons, which stand in the errors of relays too.
REFUSALS: Final = frozenset((
    "SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION",
    "IMAGE_RECITATION", "MODEL_ARMOR", "JAILBREAK",
))  # fmt: skip
_ALL_REFUSALS = REFUSALS | frozenset((
    "prompt_blocked", "sensitive_words_detected", "content_policy_violation", "content_filter",
    "moderation_blocked", "ResponsibleAIPolicyViolation",
))  # fmt: skip
_ACCOUNT_CODES = frozenset((
    "access_denied", "access_terminated", "account_deactivated", "account_disabled", "billing_hard_limit_reached",
    "billing_not_active", "budget_exceeded", "channel:invalid_key", "channel:no_available_key", "insufficient_balance",
    "insufficient_credits", "invalid_api_key", "unsupported_country_region_territory",
))  # fmt: skip
_CLOSED_ACCOUNT = re.compile(r"(?:PUP|ACCOUNT|BILLING)_[A-Z_]+")
_ACCOUNT_NAME = re.compile(
    r"(?:API_KEY|CONSUMER|ACCESS_TOKEN)_[A-Z_]+|SERVICE_DISABLED|USER_PROJECT_DENIED"
    r"|USER_BLOCKED_BY_ADMIN|CREDENTIALS_MISSING|RESOURCE_PROJECT_INVALID"
)


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE | re.DOTALL)


_LONGEST_FIRST = sorted(REFUSALS - {"SAFETY"}, key=len, reverse=True)  # SAFETY alone is a word of the settings too
_REFUSAL_NAME = re.compile(rf"(?<![A-Z_])(?:{'|'.join(_LONGEST_FIRST)})(?![A-Z_])")
_REFUSAL_WORDS = _any(
    r"\bblock(?:ed|ing)?\b.{0,60}\b(?:safety|prohibited|polic|moderation|sensitive)",
    r"\bblock(?:ed)?_?reason[ .:_]*(?!unspecified|other)[a-z]",  # BlockedReasonProhibitedContent
    r"\b(?:violat|reject|refus|flag|prohibit|not allowed)\w*\b.{0,80}\b(?:content|usage|use)[ _-](?:polic|guideline)",
    r"\b(?:violat|reject|refus|flag|prohibit|not allowed)\w*\b.{0,80}\b(?:safety|responsible ai|moderation)",
    r"\b(?:content|usage|safety)[ _-]?policy[ _-]?violation",
    r"\bsafety (?:filter|system|polic\w+)\b.{0,60}\b(?:block|reject|refus|prohibit)",
    r"\bsensitive words?\b|\b(?:input|prompt|content|image)s? (?:was|were|has been) flagged\b|\bmoderation block",
    r"敏感词|敏感内容|违规内容|内容(?:违规|审核|安全)|违反.{0,12}(?:政策|规定|准则|安全)|涉嫌违规",
)
_ACCOUNT_WORDS = _any(
    r"\bapi[ _-]?key\b.{0,60}\b(?:expired|invalid|not (?:valid|found|active)|leaked|revoked|disabled|suspended|banned)",
    r"\b(?:invalid|incorrect|expired|revoked|disabled|leaked)\s+(?:\w+\s+)?api[ _-]?key",
    r"\breported as leaked|\bspending cap|\bmonthly spend|\bdunning\b",
    r"(?<![\w.])limit\W{1,3}0(?![\d.,]*\d)",  # a quota of nothing: `limit: 0`
    r"\bcredits?\b.{0,20}\b(?:depleted|exhausted|used up|run out)",
    r"\b(?:insufficient|not enough|out of) (?:account )?(?:balance|credit|funds)",
    r"\bbalance\b.{0,20}\b(?:insufficient|not enough|too low|exhausted|negative)",
    r"\bbudget has been exceeded\b|\b(?:exceeded|crossed|over) budget\b|\b(?:model|monthly) budget exceeded\b",
    r"余额.{0,4}(?:不足|用尽|用完|耗尽|为负)|欠费|请.{0,2}充值",
    r"\blocation is not supported|\bnot (?:available|supported) in your (?:country|region|location|territory)",
    r"\b(?:country|region|territory)\b.{0,20}\bnot (?:supported|available)|\bunsupported (?:country|region)",
    r"不支持.{0,8}地区|地区.{0,8}不支持",
    r"\b(?:account|project|organi[sz]ation|consumer|workspace)\b.{0,80}\b(?:disabled|suspended|deactivated|banned)\b",
    r"\b(?:account|project|organi[sz]ation|consumer|workspace)\b.{0,80}\b(?:terminated|closed|denied access)\b",
    r"\baccount\b.{0,80}\b(?:restricted|locked|not in good standing)\b|\bdisabled in this account",
    r"\bbilling\b.{0,20}\b(?:disabled|not (?:enabled|active))|\b(?:requires?|enable) billing",
    r"\brequests to this api\b.{0,200}\bblocked|\bunregistered callers\b|\bkey limit exceeded\b.{0,30}\bmanage it\b",
    r"\b(?:user|subscription) (?:account )?(?:has|is|was) (?:been )?(?:banned|disabled|suspended|expired)\b",
    r"令牌.{0,10}(?:过期|禁用|不可用|无效)|无效的?令牌|密钥.{0,8}(?:无效|过期|失效|泄露)",
    r"(?:用户|账[号户]).{0,8}(?:封禁|停用|禁用|异常)",
)
_USED_UP_WORDS = _any(  # by some of a minute's rate, too (LibreChat-AI/agents#357, dimetron/pi-go#177)
    r"\b(?:insufficient|not enough|out of) (?:(?:account|user|token) )?quota",
    r"\b(?:user|token) quota\b.{0,20}\b(?:insufficient|not enough|too low|exhausted|negative)",
    r"(?:额度|配额|点数|积分).{0,4}(?:不足|用尽|用完|耗尽|为负)",
)
_RATE_WORDS = _any(
    r"\bper[ _-]?(?:second|minute|hour)|\b[rt]pm\b|\bconcurren|\brate limit|\b(?:retry|try again) (?:in|after|later)",
    r"每秒|分钟|小时|并发|频率|稍后",
)
_NO_SUCH_PATH = _any(
    r"\binvalid url|\bcannot (?:get|post)\b|\bno (?:such )?(?:route|handler|endpoint)",
    r"\b(?:route|path|url|endpoint|page)\b.{0,80}\bnot found|\bunknown (?:route|path|url|endpoint)",
    r"^\W*(?:404 )?(?:page )?not found\W*$",
)


LONG_DELAY_S = 300.0
PATIENT_S = 10.0  # no gateway gives up waiting sooner, and few outages take as long to be told
_OUTAGES = frozenset({500, 502, 503, 520})
_NOT_REACHED = frozenset({521, 522, 523, 525, 526, 530})  # Cloudflare did not reach the server
_LATER = frozenset({409, 425, 529})  # a conflict, too early, overloaded: nothing was done (SDKs of OpenAI and others)
_PARSED_BYTES = 2**20  # of an error body; no honest one is longer
_CALLERS_CODES = frozenset({"invalid_request", "convert_request_failed"})
_CREDIT_CODES = frozenset({"insufficient_user_quota", "pre_consume_token_quota_failed", "insufficient_quota"})
_NESTED = 3  # errors within errors, as relays of relays send them
_CREDIT_WORDS = re.compile(r"credit|balance|quota|billing|insufficient|余额|额度", re.IGNORECASE)
_QUOTA_NAMES = ("quotaId", "quota_id", "quotaMetric", "quota_metric")
_PER_DAY = re.compile(r"per[ _-]?day|[今当每]日|[今每]天", re.IGNORECASE)
_REQUEST_ID = re.compile(r"request[ _-]id:?\s*([\w.-]{8,80})", re.IGNORECASE)
_REQUEST_ID_HEADERS = ("x-oneapi-request-id", "x-request-id", "request-id", "x-goog-request-id", "cf-ray")
_TITLE = re.compile(r"<title[^>]*>([^<]{1,300})", re.IGNORECASE)
_INVALID = ("invalid_request", "invalid_request_error", "convert_request_failed")
_NAMES = {  # of errors inside a 200, which relays send to keep a connection alive (Wei-Shaw/sub2api#4777)
    400: ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", *_INVALID),
    401: ("UNAUTHENTICATED", "authentication_error"),
    403: ("PERMISSION_DENIED", "permission_error", "insufficient_user_quota", "pre_consume_token_quota_failed"),
    404: ("NOT_FOUND", "not_found_error"),
    409: ("ALREADY_EXISTS", "ABORTED"),
    429: ("RESOURCE_EXHAUSTED", "rate_limit_exceeded", "rate_limit_error"),
    499: ("CANCELLED",),
    500: ("INTERNAL", "UNKNOWN", "DATA_LOSS", "count_token_failed", "api_error"),
    502: ("do_request_failed", "bad_response_body", "bad_response_status_code", "upstream_error"),
    503: ("UNAVAILABLE", "model_not_found", "get_channel_failed", "overloaded_error"),
    504: ("DEADLINE_EXCEEDED",),
}
_STATUS_OF = {name: status for status, names in _NAMES.items() for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerError:
    """What the body of an error answer says; every field may be empty."""

    code: str = ""
    status: str = ""  # Google's name of it
    kind: str = ""
    message: str = ""
    details: tuple[Json, ...] = ()
    is_page: bool = False  # HTML, not JSON

    @property
    def is_exhausted(self) -> bool:
        return "RESOURCE_EXHAUSTED" in (self.status, self.code) or "RESOURCE_EXHAUSTED" in self.message

    @property
    def is_about_credit(self) -> bool:
        return self.code in _CREDIT_CODES or bool(_CREDIT_WORDS.search(f"{self.code} {self.kind} {self.message}"))

    @property
    def is_per_day(self) -> bool:
        named = [str(v.get(name, "")) for v in self._violations for name in _QUOTA_NAMES]
        return any(_PER_DAY.search(text) for text in (*named, self.message))

    @property
    def names(self) -> tuple[str, ...]:
        """Return whatever names the error: reasons of its details, code, status and type."""
        reasons = (_text(detail.get("reason")) for detail in self.details)
        return tuple(name for name in (*reasons, self.code, self.status, self.kind) if name)

    @property
    def refusal_name(self) -> str | None:
        return next((name for name in self.names if name in _ALL_REFUSALS), None)

    @property
    def refusal(self) -> str | None:
        """Return by which name the error refuses a prompt or a picture; None when it does not."""
        if (found := _REFUSAL_NAME.search(self.message)) is not None:
            return found[0]
        if re.search(r"(?<![A-Z_])SAFETY(?![A-Z_])", self.message) and "block" in self.message.lower():
            return "SAFETY"
        return self.refusal_name or ("blocked" if _REFUSAL_WORDS.search(self.message) else None)

    @property
    def is_about_an_account(self) -> bool:
        """Whether a key, an account or a region is not served, which waiting does not end.

        By its names (perhaps of one key of several), by a quota of nothing, by its words last.
        """
        is_named = any(name in _ACCOUNT_CODES or _ACCOUNT_NAME.fullmatch(name) for name in self.names)
        if is_named or self._has_no_quota:
            return True
        return self.refusal_name is None and _ACCOUNT_WORDS.search(self.message) is not None

    @property
    def is_used_up(self) -> bool:
        """Whether a quota of no named time is used up, by the words alone."""
        is_of_a_time = self.is_per_day or _RATE_WORDS.search(self.message) is not None
        return self.refusal_name is None and not is_of_a_time and _USED_UP_WORDS.search(self.message) is not None

    @property
    def _violations(self) -> list[Json]:
        return [violation for detail in self.details for violation in _objects(detail.get("violations"))]

    @property
    def _has_no_quota(self) -> bool:
        values = [v.get("quotaValue", v.get("quota_value")) for v in self._violations]
        values += [_object(detail.get("metadata")).get("quota_limit_value") for detail in self.details]
        return any(_text(value) == "0" for value in values)

    @property
    def is_no_such_path(self) -> bool:
        """Whether a 404 is about the address, not about a model or a file."""
        is_of_no_api = not self.names and self.message[:1] in ("", "{")  # nothing, or a body in fields of its own
        return self.is_page or is_of_no_api or _NO_SUCH_PATH.search(self.message) is not None


def outcome(
    status: int, error: ServerError, delay_s: float | None, *, is_first: bool = False, seconds: float = 0.0
) -> tuple[Fault, Billed]:
    """Name what a status other than success means, and whether it may have cost money.

    is_first: no answer came before it in this run. seconds: that the server took to answer.
    """
    if 300 <= status < 400 or status == 407:
        return Fault.ADDRESS, Billed.NO
    if status in (408, 504, 524) or (status, error.status) == (499, "CANCELLED"):  # Google's own, under load
        return Fault.SILENCE, Billed.MAYBE
    if (fault := _account_fault(status, error, delay_s, is_first=is_first)) is not None:
        return fault, Billed.NO
    if error.refusal is not None:
        return Fault.REFUSED, Billed.YES
    fault = _status_fault(status, error, delay_s, is_first=is_first)
    if fault is Fault.OUTAGE and _is_given_up(status, error, seconds):
        return Fault.SILENCE, Billed.MAYBE
    return fault, Billed.MAYBE if fault is Fault.OTHER else Billed.NO


def _is_given_up(status: int, error: ServerError, seconds: float) -> bool:
    """Whether a gateway says by an outage's status that it did not wait for the answer: late, and in no API's words.

    Not all of them say 504. Measured: 502 of Apache (ProxyTimeout) and of h2o ("I/O timeout"), 503 of Varnish. Fastly's
    503 comes after 15 s, Heroku's after 30 s (https://devcenter.heroku.com/articles/request-timeout).
    """
    return status in _OUTAGES and seconds >= PATIENT_S and not error.names


def _account_fault(status: int, error: ServerError, delay_s: float | None, *, is_first: bool) -> Fault | None:
    """Name an error that is about a key, its account or its credit; None: it is about something else."""
    if status in (401, 402) or any(map(is_closed_account, error.names)):
        return Fault.ACCOUNT
    if status in (403, 429) and error.code in _CREDIT_CODES:  # waiting brings no credit
        return Fault.ACCOUNT
    if status == 403 and error.is_about_credit and error.refusal is None:  # "No credits were charged"
        return Fault.ACCOUNT
    if not (error.is_about_an_account or (error.is_used_up and delay_s is None)):
        return None
    # What has Google's status or details came from Google, or through a relay that drops nothing.
    return Fault.ACCOUNT if is_first and (error.status or error.details) else Fault.UPSTREAM_ACCOUNT


def _status_fault(status: int, error: ServerError, delay_s: float | None, *, is_first: bool) -> Fault:
    is_long = delay_s is not None and delay_s > LONG_DELAY_S
    match status:
        case 403:
            return Fault.FORBIDDEN
        case 404 | 405 if is_first and error.is_no_such_path:
            return Fault.ADDRESS
        case 404:
            return Fault.NOT_FOUND
        case 503 if error.code == "model_not_found":
            return Fault.MODEL_MISSING
        case 429 | 503 if is_long or (error.is_per_day and (status == 429 or error.is_exhausted)):
            return Fault.QUOTA
        case 429 | 503 if status == 429 or error.is_exhausted:
            return Fault.THROTTLED
        case 500 if error.code in _CALLERS_CODES:
            return Fault.BAD_REQUEST
        case _ if status in _OUTAGES | _NOT_REACHED | _LATER:
            return Fault.OUTAGE
        case _ if 400 <= status < 500:
            return Fault.BAD_REQUEST
        case _:
            return Fault.OTHER


def is_closed_account(name: str) -> bool:
    """Whether a finish reason, reason, status or code says that the account is limited or disabled."""
    return _CLOSED_ACCOUNT.fullmatch(name) is not None


def failure_of_answer(
    status: int,
    headers: Headers,
    error: ServerError,
    *,
    redactor: Redactor,
    now: datetime,
    is_first: bool = False,
    seconds: float = 0.0,
) -> Failure:
    """Turn an error answer into a `Failure`, with the delay the server named and its request id.

    status: of the answer, or of the error inside a 200. now: for dates when the answer carries none. is_first: no
    answer came before it in this run. seconds: that the server took to answer.
    """
    says_later = status in (408, 429) or status >= 500  # else its words may be those of a prompt
    delay_s = delay(headers, error.details, error.message if says_later else "", now=now)
    fault, billed = outcome(status, error, delay_s, is_first=is_first, seconds=seconds)
    if fault in _NOT_ENDED_BY_WAITING:
        delay_s = None
    if fault is Fault.QUOTA and error.is_per_day:
        there = server_time(headers, now)
        delay_s = max(delay_s or 0.0, (next_midnight(there, quota_zone()) - there).total_seconds())
    error = replace(error, message=_message_of(status, headers, error, fault, seconds))
    named = error.code if error.code and not error.code.isdecimal() else error.status
    if fault is Fault.REFUSED:
        named = error.refusal or named
    return Failure(
        fault=fault,
        billed=billed,
        reason=redactor.text(": ".join(part for part in (f"HTTP {status}", named, error.message) if part)),
        status=status,
        code=redactor.text(named, 80) or None,
        request_id=request_id(headers, redactor, error.message),
        hint_s=delay_s,
    )


def _message_of(status: int, headers: Headers, error: ServerError, fault: Fault, seconds: float) -> str:
    """Return what an error says, and what to do where it does not say it."""
    if 300 <= status < 400:
        target = next((value for name, value in headers if name == "location"), "nowhere")
        return f"a redirect to {target}, not followed; is base_url right?"
    if fault is Fault.ADDRESS and status != 407:
        return f"{error.message or 'no such path'}; is base_url right?"
    if fault is Fault.SILENCE and status in _OUTAGES:
        return f"{error.message or 'no words'}, after {seconds:.0f} s: a gateway may not have waited for the answer"
    return error.message


_NOT_ENDED_BY_WAITING = frozenset({Fault.ACCOUNT, Fault.UPSTREAM_ACCOUNT, Fault.REFUSED, Fault.ADDRESS})


def parse_error(body: bytes) -> ServerError:
    """Read an error body of any kind: the gateway's or Google's envelope, a bare message, a page, plain text."""
    try:
        tree = decode_answer(body[:_PARSED_BYTES]).tree
    except NotJsonError:
        return ServerError(message=page_title(body), is_page=body.lstrip().startswith(b"<"))
    error = from_tree(tree)
    return error if error.message or not tree else replace(error, message=page_title(body))  # in fields of its own


def from_tree(tree: object) -> ServerError:
    """Read the error in a parsed body; everything in it may be missing or of a strange type.

    Where a relay puts the whole error it got into its message, that one is read, with its own status and details.
    """
    error = _from_tree(tree)
    for _ in range(_NESTED):
        inner = _inner(error.message)
        if inner is None:
            return error
        error = inner
    return error


def _inner(message: str) -> ServerError | None:
    """Return the error that a message holds as JSON."""
    start = message.find("{")
    if start == -1 or '"' not in message:
        return None
    try:
        tree, _ = json.JSONDecoder(strict=False).raw_decode(message[start:])
    except (ValueError, RecursionError):
        return None
    inner = _from_tree(tree)
    return inner if inner.message else None


def _from_tree(tree: object) -> ServerError:
    if isinstance(tree, list):  # streaming endpoints wrap the object
        items = _objects(tree)
        tree = next((item for item in items if item.get("error")), items[0] if items else None)
    if isinstance(tree, str):
        return ServerError(message=tree)
    node = _object(tree).get("error")
    if isinstance(node, str) and node:  # a title; what it is about may stand beside it (LibreChat-AI/agents#357)
        return ServerError(message=": ".join(dict.fromkeys(filter(None, (node, _message(_object(tree)))))))
    node = _object(node) or _object(tree)
    return ServerError(
        code=_text(node.get("code")),
        status=_text(node.get("status")),
        kind=_text(node.get("type")),
        message=_message(node),
        details=tuple(_objects(node.get("details"))),
    )


def _message(node: Json) -> str:
    """Return what an error says; as JSON where it is not a text, but one more error or a list of them."""
    raw = _object(node.get("metadata")).get("raw")  # OpenRouter's: the error it got (lumina-ai-inc/chunkr#341)
    given = (raw, *(node.get(name) for name in ("message", "msg", "detail", "error_description", "errors")))
    said = next((value for value in given if _text(value) or (isinstance(value, Mapping | list) and value)), None)
    return _text(said) or ("" if said is None else json.dumps(said, ensure_ascii=False))


def status_inside(error: ServerError) -> int:
    """Return the HTTP status an error inside a 200 stands for; 0 when it does not say."""
    if error.code.isdecimal() and 400 <= int(error.code[:4]) <= 599:
        return int(error.code)
    return next(filter(None, map(_STATUS_OF.get, (error.status, error.code, error.kind))), 0)


def request_id(headers: Headers, redactor: Redactor, message: str = "") -> str | None:
    """Return the id the provider's support desk asks for, from the message or the headers, without the key."""
    in_text, given = _REQUEST_ID.search(message), dict(headers)
    found = in_text[1] if in_text is not None else next(filter(None, map(given.get, _REQUEST_ID_HEADERS)), None)
    return None if found is None else redactor.text(found, 80)


def page_title(body: bytes) -> str:
    """Return a page's title, or the beginning of a text."""
    text = body[:4096].decode("utf-8", "replace")
    title = _TITLE.search(text)
    return f"a page titled {title[1].strip()!r}" if title is not None else text.strip()[:300]


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
