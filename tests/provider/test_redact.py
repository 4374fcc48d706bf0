"""The key and control characters: nowhere, in no spelling."""

import base64
import html
import json
import tracemalloc
from urllib.parse import quote, quote_plus

import pytest

from pipeline.provider.redact import _CHUNK, MASK, Redactor

KEY = 'sk-canary/7+hard="to\\miss&~'
SCRUB = Redactor(KEY)

SPELLINGS = {
    "raw": KEY,
    "quoted": quote(KEY),
    "quoted-whole": quote(KEY, safe=""),
    "quoted-lower": quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d"),
    "plus": quote_plus(KEY),
    "json": json.dumps(KEY)[1:-1],
    "json-slash": KEY.replace("/", "\\/"),
    "unicode-escapes": "".join(f"\\u{ord(c):04x}" for c in KEY),
    "json-twice": json.dumps(json.dumps(KEY).replace("/", "\\/"))[3:-3],
    "quoted-twice": quote(quote(KEY, safe=""), safe=""),
    "html": html.escape(KEY),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64-bare": base64.b64encode(KEY.encode()).decode().rstrip("="),
    "base64-url": base64.urlsafe_b64encode(KEY.encode()).decode(),
}


@pytest.mark.parametrize("spelling", [pytest.param(s, id=f"S02-{name}") for name, s in SPELLINGS.items()])
def test_no_spelling_of_the_key_survives(spelling):
    text, body = SCRUB.text(f"before {spelling} after"), SCRUB.body(b"before " + spelling.encode() + b" after")
    assert MASK in text
    assert text.startswith("before ")
    assert MASK.encode() in body
    for one in SPELLINGS.values():
        assert one not in text
        assert one.encode() not in body


@pytest.mark.parametrize("offset", range(3), ids=["S01-aligned", "S01-one-off", "S01-two-off"])
def test_the_key_is_found_inside_other_base64(offset):
    wrapped = base64.b64encode(b"x" * offset + KEY.encode() + b" tail").decode()
    assert MASK in SCRUB.text(wrapped)


def test_S01_the_key_is_found_in_base64_of_either_alphabet():
    key = "ab~" * 7  # of every four characters the last is + or -
    for spelled in (base64.b64encode(key.encode()).decode(), base64.urlsafe_b64encode(key.encode()).decode()):
        assert Redactor(key).text(f"x {spelled} x") == f"x {MASK} x"


@pytest.mark.parametrize("length", [8, 15, len(KEY) - 1], ids=lambda n: f"S02-{n}-characters")
def test_a_key_that_was_cut_does_not_survive_either(length):
    cut = KEY[:length]
    assert SCRUB.text(f"a page titled '{cut}' instead") == f"a page titled '{MASK}' instead"
    assert SCRUB.body(b"dump: " + cut.encode()) == b"dump: " + MASK.encode()


LONG = "sk-Ab3dEf6hIj9lMn2pQr5tUv8xYz1bCd4fGh7j"
FORMS = {
    "as-it-is": lambda part: part,
    "upper": str.upper,
    "percent": lambda part: "".join(f"%{ord(char):02X}" for char in part),
    "percent-twice": lambda part: "".join(f"%25{ord(char):02x}" for char in part),
    "hex": lambda part: part.encode().hex(),
    "hex-upper": lambda part: part.encode().hex().upper(),
    "escapes": lambda part: "".join(f"\\u{ord(char):04x}" for char in part),
    "html": lambda part: "".join(f"&#{ord(char)};" for char in part),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_ten_characters_of_the_key_are_found(form):
    redactor = Redactor(LONG)
    for start in range(len(LONG) - 9):
        echo = form(LONG[start : start + 10])
        assert redactor.text(f"got <{echo}>") == f"got <{MASK}>"
        assert redactor.body(b"\0" + echo.encode() + b"!") == b"\0" + MASK.encode() + b"!"


@pytest.mark.parametrize("case", [str, str.lower, str.upper], ids=["as-it-is", "lower", "upper"])
@pytest.mark.parametrize("offset", range(3))
def test_every_ten_characters_of_its_base64_are_found(offset, case):
    redactor, encoded = Redactor(LONG), base64.b64encode(b"\0" * offset + LONG.encode()).decode().rstrip("=")
    whole = (offset + len(LONG)) // 3 * 4  # what follows may change the characters after it
    for start in range((0, 2, 3)[offset], whole - 9):
        assert MASK in redactor.text(f"got {case(encoded[start : start + 10])}"), start


def test_nine_characters_are_words_of_their_own():
    assert Redactor(LONG).text(f"got {LONG[9:18]}") == f"got {LONG[9:18]}"


def test_what_stands_between_two_echoes_stays():
    echo = LONG.replace("9", "%39")
    assert Redactor(LONG).text(f"%41{echo}\\/{LONG[5:20]}%41, {LONG}") == f"%41{MASK}\\/{MASK}%41, {MASK}"


def test_what_is_nothing_but_echoes_is_masked_whole():
    """Finding 20,000 places one by one takes seconds, and there is nothing else to keep."""
    assert SCRUB.body(KEY.encode() * 20_000) == MASK.encode()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_across_two_chunks_of_a_large_body_is_found(form):
    redactor, echo = Redactor(LONG), form(LONG).encode()
    for before in (_CHUNK - len(echo), _CHUNK - len(echo) // 2, _CHUNK - 1):
        body = b"." * before + echo + b"." * _CHUNK
        assert redactor.body(body) == b"." * before + MASK.encode() + b"." * _CHUNK


@pytest.mark.parametrize("escape", [b"%41x", b"\\a"])
def test_a_body_of_escapes_takes_memory_for_a_part_of_it_only(escape):
    body = escape * 500_000
    tracemalloc.start()
    try:
        assert Redactor(LONG).body(body) == body
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def test_a_bearer_prefix_hides_nothing():
    assert Redactor(f"Bearer {KEY}").text(f"got {KEY}") == f"got {MASK}"
    assert Redactor(f"Bearer  {KEY}").text(f"got {KEY[:8]}...") == f"got {MASK}..."


def test_ordinary_words_stay():
    assert Redactor("").text("the simulator says no") == "the simulator says no"
    assert Redactor("short").body(b"short") == b"short"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        pytest.param("a\r\nb\tc", "a b c", id="S06-lines"),
        pytest.param("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m", id="S06-escape"),
        pytest.param("bell\x07", "bell\\x07", id="S06-bell"),
        pytest.param("\u202egnp.exe", "\\u202egnp.exe", id="S06-bidi"),
        pytest.param("a\u200bb", "a\\u200bb", id="S06-invisible"),
        pytest.param("\ud800", "\\ud800", id="S06-surrogate"),
        pytest.param("当前 café 🍎", "当前 café 🍎", id="S06-words-stay"),
    ],
)
def test_text_is_one_harmless_line(raw, shown):
    assert SCRUB.text(raw) == shown
    SCRUB.text(raw).encode()


def test_a_long_text_is_cut_where_it_can_be_seen():
    assert SCRUB.text("x" * 5000, 100) == "x" * 99 + "…"


def test_the_repr_shows_no_key():
    assert "canary" not in repr(SCRUB)
