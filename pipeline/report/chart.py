"""Money over time as a small SVG.

In: amounts with their moments. Out: one `<svg>` element for the page, coloured by its style sheet. It computes nothing
but sums.
"""

from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import accumulate

from pipeline.report.figures import money

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 400, 118, 56, 22, 8
_MOST_POINTS = 200  # about two units each

Spend = Sequence[tuple[datetime, int]]


def spend_chart(spend: Spend, *, is_play_money: bool) -> str:
    """Draw the running total of `spend` (moment, micro-dollars of that moment).

    Empty text where nothing was spent, or all of it at one moment.
    """
    points = _running(spend)
    if not points or points[-1][1] <= 0 or points[0][0] == points[-1][0]:
        return ""
    start, end, top = points[0][0], points[-1][0], points[-1][1]
    line = _path(points)
    floor = _HEIGHT - _BOTTOM
    right = _WIDTH - 6
    total = money(top, is_play_money)
    label = f"Money spent over time: {total} from {_moment(start)} to {_moment(end)}"
    ticks = "".join(_tick(amount, top) for amount in (0, top // 2, top))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{ticks}'
        f'<path class="area" d="{line}V{floor}H{_LEFT}Z"/><path class="line" d="{line}"/>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}">{_moment(start)}</text>'
        f'<text x="{right}" y="{_HEIGHT - 6}" text-anchor="end">{_moment(end)}</text></svg>'
    )


def _tick(amount: int, top: int) -> str:
    y = _y(amount, top)
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 6}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(money(amount))}</text>'
    )


def _running(spend: Spend) -> list[tuple[datetime, int]]:
    """Return moments with running totals, thinned evenly; the last one always stays."""
    ordered = sorted(spend)
    totals = list(zip((when for when, _ in ordered), accumulate(amount for _, amount in ordered), strict=True))
    step = -(-len(totals) // _MOST_POINTS) or 1
    return totals[::-step][::-1]


def _path(points: Sequence[tuple[datetime, int]]) -> str:
    """Return a step line: money jumps when it is spent."""
    start, top = points[0][0], points[-1][1]
    span = (points[-1][0] - start).total_seconds()
    room = _WIDTH - 6 - _LEFT
    steps = [f"M{_LEFT},{_y(0, top):.1f}"]
    for when, total in points:
        x = _LEFT + room * (when - start).total_seconds() / span
        steps.append(f"H{x:.1f}V{_y(total, top):.1f}")
    steps.append(f"H{_WIDTH - 6}")
    return "".join(steps)


def _y(amount: int, top: int) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - amount / top)


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M")
