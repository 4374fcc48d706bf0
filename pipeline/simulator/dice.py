"""Chance that can be repeated: the same seed and the same question always get the same answer.

In: a seed and any words or numbers. Out: a fraction, a choice, a count. It keeps no state, so the order in which
concurrent requests arrive does not change what happens to each of them.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")
_SPAN = 2.0**64


class Dice:
    """Rolls by hashing what is asked about."""

    def __init__(self, *seed: object) -> None:
        self._seed = "\x1f".join(map(str, seed))

    def __repr__(self) -> str:
        return f"<Dice {self._seed!r}>"

    def number(self, *about: object) -> int:
        """Return 64 bits."""
        text = "\x1f".join((self._seed, *map(str, about)))
        return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())

    def fraction(self, *about: object) -> float:
        """Return a number from 0 up to but not including 1."""
        return self.number(*about) / _SPAN

    def between(self, low: float, high: float, *about: object) -> float:
        """Return a number from `low` to `high`."""
        return low + (high - low) * self.fraction(*about)

    def whole(self, low: int, high: int, *about: object) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + self.number(*about) % (high - low + 1)

    def choice(self, among: Sequence[T], *about: object) -> T:
        """Return one of `among`."""
        return among[self.number(*about) % len(among)]
