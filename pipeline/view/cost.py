"""Shows what was spent, by job, model or day: a sentence and a table, or the JSON of `cost --json`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.text import count, money, usd, visible
from pipeline.view.run import say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipeline.store.history import Cost


def costs_json(names: Sequence[str], lines: "Sequence[Cost]") -> list[dict[str, object]]:
    """Return the array of `cost --json`."""
    return [
        {
            **dict(zip(names, line.key, strict=True)),
            "attempts": line.attempts,
            "images": line.images,
            "spent_usd": usd(line.spent_microusd),
            "unknown_usd": usd(line.unknown_microusd),
        }
        for line in lines
    ]


def show_costs(names: Sequence[str], lines: "Sequence[Cost]", console: "Console", *, is_play_money: bool) -> None:
    """Print the whole sum in one sentence, then a line for each group."""
    say(costs_sentence(lines, is_play_money=is_play_money), console)
    if lines:
        console.print(_table(names, lines, is_play_money=is_play_money))


def costs_sentence(lines: "Sequence[Cost]", *, is_play_money: bool) -> str:
    """Return `Spent $1.23 for 18 images, $0.0685 each, in 19 attempts; $0.04 more may have been billed.`"""
    if not lines:
        return "Nothing was spent."
    spent, unknown = sum(line.spent_microusd for line in lines), sum(line.unknown_microusd for line in lines)
    images, attempts = sum(line.images for line in lines), sum(line.attempts for line in lines)
    text = f"Spent {money(spent, is_play_money)} for {count(images, 'image')}"
    if images > 1:
        text += f", {money(round(spent / images), is_play_money)} each"
    text += f", in {count(attempts, 'attempt')}"
    if unknown:
        text += f"; {money(unknown, is_play_money)} more may have been billed"
    return f"{text}."


def _table(names: Sequence[str], lines: "Sequence[Cost]", *, is_play_money: bool) -> "Table":
    """Return a line for each group; what may have been billed has a column only where there is any."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    is_any_unknown = any(line.unknown_microusd for line in lines)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", min_width=len("2026-11-22") if name == "day" else None)
    for name in ("attempts", "images", "spent", *(["maybe billed"] if is_any_unknown else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        sums = [line.spent_microusd, *([line.unknown_microusd] if is_any_unknown else [])]
        cells = [f"{line.attempts:,}", f"{line.images:,}", *(money(amount, is_play_money) for amount in sums)]
        table.add_row(*(Text(visible(each)) for each in line.key), *cells)
    return table
