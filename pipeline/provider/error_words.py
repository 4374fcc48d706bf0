"""Names and phrases by which errors mean a refused prompt, a dead account or a wrong address.

Relays drop Google's details, change the status and send their own codes: names (`reason`, `code`, `status`, `type`) are
looked at first, the text of the message last. Pure computation over text.

Sources: google.api.ErrorReason; new-api `types/error.go`; OpenAI's images API; reports of people who met them, such as
QuantumNous/new-api#2266 (expired key), continuedev/continue#11541 (leaked), #10902 (suspended), #12781 (blocked),
openclaw/openclaw#74120 (spending cap), langgenius/dify#25946 (region, in JSON in JSON), jeffstric/ZJT#494 (refusal).
"""

import re
from collections.abc import Iterable
from typing import Final

# Finish and block reasons, which stand in the errors of relays too.
REFUSALS: Final = frozenset((
    "SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION",
    "IMAGE_RECITATION", "MODEL_ARMOR", "JAILBREAK",
))  # fmt: skip
_REFUSAL_CODES = frozenset((
    "prompt_blocked", "sensitive_words_detected", "content_policy_violation", "content_filter",
    "moderation_blocked", "ResponsibleAIPolicyViolation",
))  # fmt: skip
_ACCOUNT_CODES = frozenset((
    "access_denied", "access_terminated", "account_deactivated", "account_disabled", "billing_hard_limit_reached",
    "billing_not_active", "channel:invalid_key", "channel:no_available_key", "insufficient_balance",
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
    r"\bsafety (?:filter|system|polic\w+)\b.{0,60}\b(?:block|reject|refus)",
    r"\bsensitive words?\b",
    r"敏感词|敏感内容|内容(?:违规|审核|安全)|违反.{0,12}(?:政策|规定|准则|安全)|涉嫌违规",
)
_ACCOUNT_WORDS = _any(
    r"\bapi[ _-]?key\b.{0,60}\b(?:expired|invalid|not (?:valid|found|active)|leaked|revoked|disabled|suspended|banned)",
    r"\b(?:invalid|incorrect|expired|revoked|disabled|leaked)\s+(?:\w+\s+)?api[ _-]?key",
    r"\breported as leaked|\bspending cap|\bmonthly spend|\bdunning\b",
    r"(?<![\w.])limit\W{1,3}0(?![\d.,]*\d)",  # a quota of nothing: `limit: 0`
    r"\bcredits?\b.{0,20}\b(?:depleted|exhausted|used up|run out)",
    r"\b(?:insufficient|not enough|out of) (?:account )?(?:balance|credit|funds)",
    r"\bbalance\b.{0,20}\b(?:insufficient|not enough|too low|exhausted)",
    r"余额不足|欠费|额度(?:不足|已用尽)",
    r"\blocation is not supported|\bnot (?:available|supported) in your (?:country|region|location|territory)",
    r"\b(?:country|region|territory)\b.{0,20}\bnot (?:supported|available)|\bunsupported (?:country|region)",
    r"不支持.{0,8}地区|地区.{0,8}不支持",
    r"\b(?:account|project|organi[sz]ation|consumer|workspace)\b.{0,80}\b(?:disabled|suspended|deactivated|banned)\b",
    r"\b(?:account|project|organi[sz]ation|consumer|workspace)\b.{0,80}\b(?:terminated|closed|denied access)\b",
    r"\baccount\b.{0,80}\b(?:restricted|locked|not in good standing)\b|\bdisabled in this account",
    r"\bbilling\b.{0,20}\b(?:disabled|not (?:enabled|active))|\b(?:requires?|enable) billing",
    r"\brequests to this api\b.{0,200}\bblocked",
    r"令牌.{0,10}(?:过期|禁用|不可用|无效)|无效的?令牌|密钥.{0,8}(?:无效|过期|失效|泄露)",
    r"(?:用户|账[号户]).{0,8}(?:封禁|停用|禁用|异常)",
)
_NO_SUCH_PATH = _any(
    r"\binvalid url|\bcannot (?:get|post)\b|\bno (?:such )?(?:route|handler|endpoint)",
    r"\b(?:route|path|url|endpoint|page)\b.{0,80}\bnot found|\bunknown (?:route|path|url|endpoint)",
    r"^\W*(?:404 )?(?:page )?not found\W*$",
)


def refusal(names: Iterable[str], message: str) -> str | None:
    """Return by which name an error refuses a prompt or a picture; None when it does not."""
    named = [name for name in names if name in REFUSALS or name in _REFUSAL_CODES]
    found = _REFUSAL_NAME.search(message)
    if found is not None:
        return found[0]
    if re.search(r"(?<![A-Z_])SAFETY(?![A-Z_])", message) and "block" in message.lower():
        return "SAFETY"
    return named[0] if named else "blocked" if _REFUSAL_WORDS.search(message) else None


def is_refusal_name(names: Iterable[str]) -> bool:
    """Whether an error is a refusal by its names alone."""
    return any(name in REFUSALS or name in _REFUSAL_CODES for name in names)


def is_closed_account(name: str) -> bool:
    """Whether a finish reason, reason, status or code says that the account is limited or disabled."""
    return _CLOSED_ACCOUNT.fullmatch(name) is not None


def is_account_name(name: str) -> bool:
    """Whether a reason, status or code says that a key or an account is not served, perhaps one of several."""
    return name in _ACCOUNT_CODES or _ACCOUNT_NAME.fullmatch(name) is not None


def is_about_an_account(message: str) -> bool:
    """Whether a message says that a key, an account or a region is at fault, which waiting does not fix."""
    return _ACCOUNT_WORDS.search(message) is not None


def is_no_such_path(message: str) -> bool:
    """Whether a 404 is about the address, not about a model or a file."""
    return _NO_SUCH_PATH.search(message) is not None
