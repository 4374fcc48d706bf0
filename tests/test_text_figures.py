import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import count, duration, money, size, usd


@pytest.mark.parametrize(
    ("microusd", "text"),
    [
        (0, "$0.00"),
        (1_230_000, "$1.23"),
        (39_000, "$0.039"),
        (62_000_000, "$62.00"),
        (100, "$0.0001"),
        (49, "<$0.0001"),
        (33_712, "$0.0337"),
        (1_234_567_890, "$1,234.5679"),
        (-39_000, "-$0.039"),
    ],
)
def test_money_has_as_many_digits_as_it_needs(microusd: int, text: str) -> None:
    assert money(microusd) == text


def test_money_of_a_rehearsal_is_play_money() -> None:
    assert money(620_000, is_play_money=True) == "play $0.62"


@given(st.integers(min_value=1, max_value=10**15))
def test_money_spent_is_never_shown_as_nothing(microusd: int) -> None:
    assert money(microusd) != "$0.00"


@given(st.integers(min_value=0, max_value=10**13))
def test_usd_keeps_every_microdollar(microusd: int) -> None:
    assert round(usd(microusd) * 1_000_000) == microusd


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.42, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (72, "1 min 12 s"),
        (3599.7, "1 h 00 min"),
        (7380, "2 h 03 min"),
        (86399, "1 d 0 h"),
        (100 * 3600, "4 d 4 h"),
    ],
)
def test_duration_reads_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1200, "1.2 kB"),
        (999_949, "1.0 MB"),
        (56_000_000, "56.0 MB"),
        (3 * 10**15, "3000 TB"),
    ],
)
def test_size_uses_decimal_units(amount: int, text: str) -> None:
    assert size(amount) == text


def test_count_knows_its_plural() -> None:
    assert count(1, "task") == "1 task"
    assert count(1200, "task") == "1,200 tasks"
    assert count(2, "entry", "entries") == "2 entries"
