"""Tasks that ask for the very same image."""

import hashlib

import pytest

from pipeline.plan import plan as module
from pipeline.plan.plan import Alike

PRICES = {"x": 39_000, "y": 134_000, "z": None}


def counted(*tasks: tuple[str, str, bool]) -> Alike:
    alike = Alike()
    for task_id, request, is_due in tasks:
        price = PRICES[request] if is_due else 0
        alike.add(task_id, hashlib.sha256(request.encode()).hexdigest(), is_due=is_due, price=price)
    return alike


@pytest.mark.parametrize(
    ("tasks", "number", "example"),
    [
        ([], 0, None),
        ([("a", "x", True), ("b", "y", True)], 0, None),
        ([("a", "x", True), ("b", "x", True), ("c", "x", True)], 2, ("a", "b")),
        ([("a", "x", False), ("b", "x", True)], 1, ("a", "b")),
        ([("a", "x", True), ("b", "x", False)], 1, ("a", "b")),
        ([("a", "x", False), ("b", "x", False)], 0, None),
        ([("a", "x", False), ("b", "x", False), ("c", "y", True), ("d", "y", True)], 1, ("c", "d")),
    ],
    ids=["none", "different", "three", "one-is-there", "one-is-there-later", "all-are-there", "only-what-is-due"],
)
def test_due_tasks_are_counted_whose_image_another_one_asks_for(
    tasks: list[tuple[str, str, bool]], number: int, example: tuple[str, str] | None
) -> None:
    alike = counted(*tasks)
    assert (alike.sum().tasks, alike.examples) == (number, [example] if example else [])


def test_what_is_asked_for_twice_has_its_price() -> None:
    found = counted(*((name, name[0], True) for name in ("x1", "x2", "x3", "y1", "y2"))).sum()
    assert (found.tasks, found.known_price) == (3, 2 * 39_000 + 134_000)
    assert counted(("a", "z", True), ("b", "z", True)).sum().known_price is None


def test_beyond_the_named_ones_tasks_are_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMED", 1)
    alike = counted(("a", "x", True), ("b", "y", True), ("c", "y", True))
    assert (alike.sum().tasks, alike.examples) == (1, [])
