import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.report.plan_view import Bill, PlanLine, plan_json, plan_sentence, show_plan

BILL = Bill(
    lines=(
        PlanLine(job="posters", reason="unchanged", tasks=40, is_due=False),
        PlanLine(job="posters", reason="new", tasks=10, is_due=True, price_microusd=390_000),
        PlanLine(job="mugs", reason="prompt changed", tasks=2, is_due=True, price_microusd=78_000),
        PlanLine(job="mugs", reason="new", tasks=1, is_due=True, price_microusd=39_000),
        PlanLine(job="mugs", reason="orphaned", tasks=5, is_due=False),
    ),
    min_microusd=507_000,
    max_microusd=1_521_000,
    seconds=72,
)


def printed(bill: Bill, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_plan(bill, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plan_json_has_exactly_the_keys_of_the_contract() -> None:
    assert json.loads(json.dumps(plan_json(replace(BILL, problems=("a: wrong",))))) == {
        "tasks": 53,
        "due": 13,
        "skip": 40,
        "reasons": {"new": 11, "prompt changed": 2},
        "cost_usd": {"min": 0.507, "max": 1.521},
        "problems": ["a: wrong"],
    }


def test_the_bill_lists_each_reason_with_its_price_and_sums_up() -> None:
    lines = [line.split() for line in printed(BILL).splitlines()]
    assert ["posters", "new", "10", "$0.39"] in lines
    assert ["unchanged", "40"] in lines
    assert ["mugs", "prompt", "changed", "2", "$0.078"] in lines
    assert ["in", "total", "13", "due", "53", "$0.507"] in lines


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "13 of 53 tasks are due, for $0.507; at most $1.521 with every repeat; about 1 min 12 s."),
        ({"is_play_money": True, "seconds": None, "max_microusd": 507_000}, "13 of 53 tasks are due, for play $0.507."),
        ({"min_microusd": None, "max_microusd": None, "seconds": None}, "13 of 53 tasks are due, for unknown price."),
        ({"lines": BILL.lines[:1]}, "Nothing is due: 40 tasks, no request, no cost."),
    ],
)
def test_the_sentence_says_how_many_and_how_much(changes: dict[str, object], text: str) -> None:
    assert plan_sentence(replace(BILL, **changes)) == text


def test_s06_markup_and_escapes_in_names_and_notes_are_text() -> None:
    line = PlanLine(job="[red]x[/red]\x1b[2J", reason="new", tasks=1, is_due=True, price_microusd=0)
    text = printed(Bill(lines=(line,), min_microusd=0, max_microusd=0, notes=("[bold]a\nb",)))
    assert r"[red]x[/red]\x1b[2J" in text
    assert r"note: [bold]a\nb" in text


def test_many_notes_are_cut_with_their_number() -> None:
    text = printed(replace(BILL, notes=tuple(f"n{n}" for n in range(25))))
    assert "note: n19" in text
    assert "note: n20" not in text
    assert "note: and 5 more" in text
