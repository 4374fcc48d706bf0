import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import clipped, visible

_TURNS = frozenset(["RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"])


@given(st.text())
def test_visible_leaves_nothing_that_moves_a_cursor_or_a_line(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [c for c in shown if unicodedata.bidirectional(c) in _TURNS]
    shown.encode()


def test_visible_writes_an_escape_out() -> None:
    assert visible("a\x1b[31m\nb\u202ec") == r"a\x1b[31m\nb\u202ec"


def test_visible_leaves_words_and_emoji_alone() -> None:
    assert visible("café 日本 👩‍🚀") == "café 日本 👩‍🚀"


def test_clipped_shows_that_something_is_missing() -> None:
    assert clipped("abcdef", 4) == "abc…"
    assert clipped("abcd", 4) == "abcd"
