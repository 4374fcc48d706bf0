"""Money, sizes, durations and untrusted text as people read and write them, and the nearest known name.

Text from prompts, file names and servers is escaped to one line without control characters: nothing in it can move a
cursor, start a line or turn the reading direction.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from itertools import islice
from typing import Any, Final

_FINEST = Decimal("0.0001")
MAX_USD: Final = 10**9
UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
DURATION_PATTERN: Final = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+"
_STEP = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
_LONGEST_NAME = 100  # characters of a name that another one is looked for


def money(microusd: int, is_play_money: bool = False) -> str:
    """Write an amount with two to four decimals, as many as it needs: `$1.23`, `$0.039`, `play $0.62`.

    What is smaller than the last digit is `<$0.0001`, never a free lunch.
    """
    sign = "-" if microusd < 0 else ""
    amount = (Decimal(abs(microusd)) / 1_000_000).quantize(_FINEST, ROUND_HALF_UP)
    if microusd != 0 and amount == 0:
        text = f"<{sign}${_FINEST}"
    else:
        whole, _, decimals = f"{amount:,}".partition(".")
        text = f"{sign}${whole}.{decimals.rstrip('0').ljust(2, '0')}"
    return f"play {text}" if is_play_money else text


def usd(microusd: int) -> float:
    """Return dollars for a machine: exact to the micro-dollar in its shortest decimal form."""
    return round(microusd / 1_000_000, 6)


def usd_or_none(microusd: int | None) -> float | None:
    """Return dollars for a machine, None where there is no amount."""
    return None if microusd is None else usd(microusd)


def as_json(noun: Any, *names: str) -> dict[str, Any]:
    """Return the named attributes of a value (none named: all fields of the dataclass), for a JSON object.

    An amount is in dollars there: `price_usd` of the field `price_microusd`. `task_id` is `task`. Of None all are None.
    """
    shown: dict[str, Any] = {}
    for name in names or noun.__dataclass_fields__:
        value = None if noun is None else getattr(noun, name)
        if name.endswith("microusd"):
            shown[name.removesuffix("microusd") + "usd"] = usd_or_none(value)
        else:
            shown["task" if name == "task_id" else name] = value
    return shown


class InUsd:
    """An attribute in dollars, for callers in Python: `cost_usd = InUsd()` reads the field `cost_microusd`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._field = name.removesuffix("usd") + "microusd"

    def __get__(self, instance: object, owner: type | None = None) -> float:
        return usd(getattr(instance, self._field))


class InUsdOrNone(InUsd):
    """The same where the amount may not be known: None."""

    def __get__(self, instance: object, owner: type | None = None) -> float | None:  # type: ignore[override] # wider
        return usd_or_none(getattr(instance, self._field))


def parse_usd(written: str) -> int:
    """Read dollars as micro-dollars, exactly: `0.039` is 39,000. Raises ValueError: what is wrong, what to write."""
    try:
        amount = Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{written!r} is not an amount in USD", "write a plain number, such as 20 or 0.50") from None
    if not amount.is_finite() or not 0 <= amount <= MAX_USD:
        raise ValueError(f"{written} USD is out of range", f"write a number from 0 to {MAX_USD:,}")
    microusd = amount * 10**6
    if microusd != microusd.to_integral_value():
        raise ValueError(f"{written} USD is finer than a millionth of a dollar", "round it to six decimals")
    return int(microusd)


def parse_duration(written: str) -> float | None:
    """Read `90s`, `50m` or `1h30m` as seconds; None for anything else, a number without its unit included."""
    if re.fullmatch(DURATION_PATTERN, written) is None:
        return None
    return sum(float(number) * UNITS_S[unit] for number, unit in _STEP.findall(written))


def name_key(name: str) -> str:
    """Return what two output names must not share, because some file system takes them for one: NFC, case folded."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6, most: int = 1000) -> str | None:
    """Return the known name that was probably meant; None when there is none.

    Long names, and all after the first `most`, are left out: the search takes the product of both lengths.
    """
    from difflib import get_close_matches  # 3 ms, and only needed where something is mistyped

    if len(name) > _LONGEST_NAME:
        return None
    candidates = [each for each in islice(known, most) if len(each) <= _LONGEST_NAME]
    return next(iter(get_close_matches(name, candidates, n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Advise the known name that was probably meant; `otherwise` where there is none."""
    near = nearest(name, known)
    return otherwise if near is None else f"did you mean {near!r}?"


def duration(seconds: float) -> str:
    """Write a span: `0.4 s`, `12 s`, `1 min 12 s`, `2 h 03 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def moment(at: datetime) -> str:
    """Write a point in time, for people and machines alike: `2026-11-22T15:08:00Z` (RFC 3339, UTC)."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def size(count: int) -> str:
    """Write a number of bytes in decimal units: `512 B`, `1.2 MB`."""
    if count < 1000:
        return f"{count} B"
    amount, units = count / 1000, ["kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} {units[0]}" if amount >= 99.95 else f"{amount:.1f} {units[0]}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Write a number with its noun: `1 task`, `1,200 tasks`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


# C0, DEL and C1 controls, line and paragraph separators, surrogates that UTF-8 cannot write, and the controls of the
# bidirectional algorithm (Unicode Standard Annex 9, section 2), which can make a line read as something else.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def visible(text: str) -> str:
    r"""Return the text with hidden and directional characters written out: ESC becomes `\x1b`."""
    return _HIDDEN.sub(_escape, text)


def clipped(text: str, most: int) -> str:
    """Return at most `most` characters of the visible text, ending in `…` where something was left out."""
    shown = visible(text[: most + 1])
    return shown if len(shown) <= most else shown[: max(most - 1, 0)] + "…"


_SHOWN = 8
_PLAIN = re.compile(r"(?!(?:\D*\d){5})[^\W\d_](?:[\w .()/&%€'+-]{0,30}[\w.)%€])?")  # at most 32 characters, 4 digits


def is_plain(text: str) -> bool:
    """True for a word or two, as columns and choices are named: a message may show it. A password or key is not.

    Tables may be any file that a manifest of a stranger names.
    """
    return _PLAIN.fullmatch(text) is not None


def plain_names(names: Collection[str]) -> str:
    """List names for a message; those that are no plain words are counted only."""
    shown = [name for name in islice(names, _SHOWN) if is_plain(name)]
    hidden = len(names) - len(shown)
    return ", ".join(shown + [f"{hidden:,} more"] * bool(shown and hidden)) or (
        f"{hidden:,} that are no plain words" if hidden else "none"
    )
