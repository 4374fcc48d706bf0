"""Tasks that ask for the very same image: how many, for how much, and two of them by name.

In: fingerprints, one by one. Out: a count and its price. A fingerprint has the variant in it, so the variants of one
row are not alike; two rows with one prompt are. Memory: 8 bytes a task, whatever a fingerprint's length; two different
ones of a million that share 8 bytes are met once in 40 million plans.
"""

from array import array
from typing import Final

from pipeline.plan.totals import Group

NAMED: Final = 10_000  # tasks remembered by name, to tell which ones are meant

_Keys = list["array[int]"]  # 64 bits of each fingerprint, apart by their first byte: sets are made one byte at a time


class Alike:
    """Counts the due tasks whose image is asked for by another task too."""

    def __init__(self) -> None:
        self._due: dict[int | None, _Keys] = {}  # by price; there are as many as pairs of model and size
        self._others = _keys()
        self._names: dict[int, tuple[str, bool]] = {}
        self.example: tuple[str, str] | None = None  # None: none found beside the first 10,000 tasks

    def add(self, task_id: str, fingerprint: str, *, is_due: bool, price: int | None) -> None:
        """Note one task. `fingerprint`: hex; `price`: micro-dollars of its image, None: not known."""
        key = int(fingerprint[:16], 16)
        if is_due and price not in self._due:
            self._due[price] = _keys()
        (self._due[price] if is_due else self._others)[key >> 56].append(key)
        if self.example is not None:
            return
        first, is_first_due = self._names.get(key, ("", False))
        if first and (is_due or is_first_due):
            self.example = (first, task_id)
        elif not first and len(self._names) < NAMED:
            self._names[key] = (task_id, is_due)

    def sum(self) -> Group:
        """Sum up the due tasks that ask for an image that another one asks for as well, or has."""
        whole = Group()
        for price, keys in self._due.items():
            tasks = sum(len(due) - len(set(due) - set(others)) for due, others in zip(keys, self._others, strict=True))
            whole.add(Group(tasks, tasks * (price or 0), tasks if price is None else 0))
        return whole


def _keys() -> _Keys:
    return [array("Q") for _ in range(256)]
