"""Tasks that ask for the very same image: how many, and two of them by name.

In: fingerprints, one by one. Out: a count. A fingerprint has the variant in it, so the variants of one row are not
alike; two rows with one prompt are. Memory: 8 bytes a task, whatever a fingerprint's length; two different ones of a
million that share 8 bytes are met once in 40 million plans.
"""

from array import array
from typing import Final

NAMED: Final = 10_000  # tasks remembered by name, to tell which ones are meant


class Alike:
    """Counts the due tasks whose image is asked for by another task too."""

    def __init__(self) -> None:
        self._due = [array("Q") for _ in range(256)]
        self._others = [array("Q") for _ in range(256)]
        self._names: dict[int, tuple[str, bool]] = {}
        self.example: tuple[str, str] | None = None  # None: none found beside the first 10,000 tasks

    def add(self, task_id: str, fingerprint: str, *, is_due: bool) -> None:
        """Note one task. `fingerprint`: hex."""
        key = int(fingerprint[:16], 16)
        (self._due if is_due else self._others)[key >> 56].append(key)
        if self.example is not None:
            return
        first, is_first_due = self._names.get(key, ("", False))
        if first and (is_due or is_first_due):
            self.example = (first, task_id)
        elif not first and len(self._names) < NAMED:
            self._names[key] = (task_id, is_due)

    def count(self) -> int:
        """Return how many due tasks ask for an image that another one asks for as well, or has."""
        return sum(len(due) - len(set(due) - set(others)) for due, others in zip(self._due, self._others, strict=True))
