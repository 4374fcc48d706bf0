"""What was spent: the sum first, then one line a group, whole at 80 columns."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.store.rows import Cost
from pipeline.view.status import costs_json, costs_sentence, show_costs

LINE = Cost(
    key=("posters", "gemini-3.1-flash-image-preview", "2026-11-22"),
    attempts=7,
    images=6,
    spent_microusd=234_000,
    unknown_microusd=0,
)
NAMES = ("job", "model", "day")


def printed(*lines: Cost) -> list[str]:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    show_costs(NAMES, lines, console, is_play_money=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_first_line_is_the_whole_sum() -> None:
    lost = replace(
        LINE, key=("mugs", "x", "2026-11-23"), attempts=1, images=0, spent_microusd=0, unknown_microusd=39_000
    )
    assert printed(LINE, lost)[0] == (
        "Spent $0.234 for 6 images, $0.039 each, in 8 attempts; $0.039 more may have been billed."
    )
    assert costs_sentence([], is_play_money=False) == "Nothing was spent."


def test_names_and_days_are_whole_at_80_columns() -> None:
    (row,) = [line for line in printed(LINE) if "posters" in line]
    assert row.split() == ["posters", "gemini-3.1-flash-image-preview", "2026-11-22", "7", "6", "$0.234"]


@pytest.mark.parametrize("unknown", [0, 39_000], ids=["all-known", "maybe"])
def test_what_may_have_been_billed_has_a_column_where_there_is_any(unknown: int) -> None:
    assert ("maybe billed" in "\n".join(printed(replace(LINE, unknown_microusd=unknown)))) is (unknown > 0)


def test_machines_get_every_number() -> None:
    assert costs_json(NAMES, [LINE]) == [
        {
            "job": "posters",
            "model": "gemini-3.1-flash-image-preview",
            "day": "2026-11-22",
            "attempts": 7,
            "images": 6,
            "spent_usd": 0.234,
            "unknown_usd": 0.0,
        }
    ]
