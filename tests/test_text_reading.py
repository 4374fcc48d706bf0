"""Amounts, durations and mistyped names as people write them."""

import pytest

from pipeline.text import nearest, parse_duration, parse_usd


@pytest.mark.parametrize(
    ("written", "microusd"),
    [("20", 20_000_000), ("0.039", 39_000), ("0", 0), ("1e-6", 1), ("1000000000", 10**15)],
)
def test_dollars_are_read_exactly(written: str, microusd: int) -> None:
    assert parse_usd(written) == microusd


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("twenty", "'twenty' is not an amount in USD"),
        ("nan", "nan USD is out of range"),
        ("inf", "inf USD is out of range"),
        ("-1", "-1 USD is out of range"),
        ("1000000001", "1000000001 USD is out of range"),
        ("0.0000001", "0.0000001 USD is finer than a millionth of a dollar"),
    ],
)
def test_other_amounts_are_refused_with_advice(written: str, what: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_usd(written)
    assert raised.value.args[0] == what
    assert raised.value.args[1].startswith(("write ", "round "))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90.0), ("250ms", 0.25), ("50m", 3000.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("2d", 172_800.0)]
    + [(text, None) for text in ("90", "", "s", "1 h", "1h30", "-5s", "1y", "٣s")],
)
def test_durations_carry_their_unit(written: str, seconds: float | None) -> None:
    assert parse_duration(written) == seconds


def test_the_nearest_name_is_close_or_none() -> None:
    assert nearest("colr", ["size", "color"]) == "color"
    assert nearest("zzz", ["size", "color"]) is None


def test_names_too_long_or_too_many_are_not_compared() -> None:
    assert nearest("a" * 101, ["a" * 101]) is None
    assert nearest("b", ["a", "b"], most=1) is None
