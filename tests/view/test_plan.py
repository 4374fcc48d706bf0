import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.view.plan import Forecast, PlanBill, PlanLine, plan_json, plan_sentence, show_plan

BILL = PlanBill(
    lines=(
        PlanLine(job="posters", reason="unchanged", tasks=40, is_due=False),
        PlanLine(job="posters", reason="new", tasks=10, is_due=True, price_microusd=390_000),
        PlanLine(job="mugs", reason="prompt changed", tasks=2, is_due=True, price_microusd=78_000),
        PlanLine(job="mugs", reason="new", tasks=1, is_due=True, price_microusd=39_000),
        PlanLine(job="mugs", reason="orphaned", tasks=5, is_due=False),
    ),
    min_microusd=507_000,
    max_microusd=612_000,
    repeats_microusd=1_521_000,
    forecast=Forecast(seconds=72, basis="at the pace of the last run"),
)


def printed(bill: PlanBill, width: int = 80, *, is_terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=is_terminal)
    show_plan(bill, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_sample_prompts_are_shown_on_one_line_each() -> None:
    samples = [("posters/lisbon", "A poster\nof \x1b[31mLisbon"), ("mugs/red", "x" * 500)]
    text = printed(replace(BILL, samples=samples), width=400)
    assert r"sample: posters/lisbon: A poster of \x1b[31mLisbon" in text
    assert f"sample: mugs/red: {'x' * 199}…" in text
    assert plan_json(replace(BILL, samples=samples))["samples"] == [
        {"name": name, "prompt": prompt} for name, prompt in samples
    ]


CONTRACT = {
    "tasks": 53,
    "due": 13,
    "skip": 40,
    "reasons": {"new": 11, "prompt changed": 2},
    "cost_usd": {"min": 0.507, "max": 0.612},
    "problems": ["a: wrong"],
    "samples": [],
}


def test_plan_json_has_the_keys_of_the_contract_then_time_groups_and_notes() -> None:
    document = json.loads(
        json.dumps(plan_json(replace(BILL, problems=("a: wrong",), notes=("mind",), alike=2, alike_microusd=78_000)))
    )
    groups = document.pop("groups")
    assert document == {
        **CONTRACT,
        "seconds": 72.0,
        "duplicates": {"tasks": 2, "cost_usd": 0.078},
        "notes": ["mind"],
    }
    assert groups[1:3] == [
        {"job": "posters", "why": "new", "tasks": 10, "due": True, "cost_usd": 0.39},
        {"job": "mugs", "why": "prompt changed", "tasks": 2, "due": True, "cost_usd": 0.078},
    ]
    assert groups[-1] == {"job": "mugs", "why": "orphaned", "tasks": 5, "due": False, "cost_usd": 0.0}


def test_the_bill_lists_each_reason_with_its_price_and_sums_up() -> None:
    lines = [line.split() for line in printed(BILL).splitlines()]
    assert ["posters", "new", "10", "$0.39"] in lines
    assert ["unchanged", "40"] in lines
    assert ["mugs", "prompt", "changed", "2", "$0.078"] in lines
    assert ["all", "jobs", "new", "11", "$0.429"] in lines
    assert ["in", "total", "13", "due", "53", "$0.507"] in lines


def test_what_is_asked_for_twice_is_a_line_of_the_bill() -> None:
    assert "duplicates" not in printed(BILL)
    text = printed(replace(BILL, alike=2, alike_microusd=78_000))
    assert ["of", "these", "duplicates", "2", "$0.078"] in [line.split() for line in text.splitlines()]


def test_one_unknown_price_leaves_the_others_known() -> None:
    lines = (*BILL.lines[:2], replace(BILL.lines[2], price_microusd=None), BILL.lines[3])
    text = [line.split() for line in printed(replace(BILL, lines=lines, min_microusd=None)).splitlines()]
    assert ["posters", "new", "10", "$0.39"] in text
    assert ["mugs", "prompt", "changed", "2", "not", "known"] in text


@pytest.mark.parametrize("width", [40, 80, 140])
def test_prices_and_words_are_never_broken_whatever_the_width(width: int) -> None:
    text = printed(replace(BILL, is_play_money=True, notes=("word " * 40,)), width, is_terminal=True)
    assert "play $0.429" in text
    assert "unchanged" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"forecast": Forecast(seconds=12, basis="at run 3")},
            "13 of 53 tasks are due, for $0.507 to $0.612; at most $1.521 with every repeat; about 12 s at run 3.",
        ),
        (
            {
                "forecast": Forecast(seconds=9, basis="at 60 requests a minute", is_least=True),
                "max_microusd": 507_000,
                "repeats_microusd": 507_000,
            },
            "13 of 53 tasks are due, for $0.507; at least 9.0 s at 60 requests a minute.",
        ),
        (
            {"max_microusd": 200_000, "repeats_microusd": 200_000, "forecast": None},
            "13 of 53 tasks are due, for $0.507; at most $0.20 in one run.",
        ),
        (
            {"is_play_money": True, "forecast": None, "max_microusd": 507_000, "repeats_microusd": 507_000},
            "13 of 53 tasks are due, for play $0.507.",
        ),
        (
            {"min_microusd": None, "max_microusd": None, "repeats_microusd": None, "forecast": None},
            "13 of 53 tasks are due, at an unknown price.",
        ),
        ({"lines": BILL.lines[:1]}, "Nothing is due: 40 tasks, no request, no cost."),
    ],
)
def test_the_sentence_says_how_many_and_how_much(changes: dict[str, object], text: str) -> None:
    assert plan_sentence(replace(BILL, **changes)) == text


def test_s06_markup_and_escapes_in_names_and_notes_are_text() -> None:
    line = PlanLine(job="[red]x[/red]\x1b[2J", reason="new", tasks=1, is_due=True, price_microusd=0)
    text = printed(PlanBill(lines=(line,), min_microusd=0, max_microusd=0, notes=("[bold]a\nb",)))
    assert r"[red]x[/red]\x1b[2J" in text
    assert r"note: [bold]a\nb" in text


def test_many_notes_are_cut_with_their_number() -> None:
    text = printed(replace(BILL, notes=tuple(f"n{n}" for n in range(25))))
    assert "note: n9\n" in text
    assert "note: n10" not in text
    assert "note: and 15 more" in text
