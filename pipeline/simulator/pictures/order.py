"""What is to be drawn.

In: nothing. Out: the noun that the studio makes and that every painter reads.
"""

from dataclasses import dataclass, replace
from hashlib import sha256


class UnreadableImage(Exception):  # noqa: N818 - what it is, not that it is an error
    """An input image whose bytes cannot be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One picture. The same order always gives the same bytes."""

    prompt: str
    seed: int
    width: int
    height: int
    mime: str  # image/png | image/jpeg | image/webp
    inputs: tuple[bytes, ...] = ()

    def changed(self, *, width: int, height: int, seed: int) -> "Order":
        """Return the same picture in another size and variant."""
        return replace(self, width=width, height=height, seed=seed)

    def digest(self) -> bytes:
        """Return 32 bytes that differ for every other order."""
        hasher = sha256(repr((self.prompt, self.seed, self.width, self.height, self.mime)).encode("utf-8", "replace"))
        for data in self.inputs:
            hasher.update(sha256(data).digest())
        return hasher.digest()
