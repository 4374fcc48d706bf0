"""Foreign text made safe for a terminal and for log lines.

In: text from prompts, file names and servers. Out: the same text on one line, with everything that could move a cursor,
start a line or turn the reading direction written as an escape. It knows nothing of HTML or CSV.
"""

import re

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
