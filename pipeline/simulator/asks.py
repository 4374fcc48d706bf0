"""What a checked request asks for.

In: nothing. Out: the noun that the checks make, and that pictures, answers and the bill read.
"""

from dataclasses import dataclass
from hashlib import sha256

from pipeline.simulator.models import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPicture:
    """One input image; its type was checked against its bytes."""

    mime: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request that passed every check. `ratio` and `size` are None where the request left them open."""

    model: Model
    prompt: str
    system: str = ""
    images: tuple[InputPicture, ...] = ()
    ratio: str | None = None
    size: str | None = None
    seed: int | None = None
    with_text: bool = True  # responseModalities holds TEXT
    with_image: bool = True
    thinking: str | None = None
    show_thoughts: bool = False

    @property
    def digest(self) -> str:
        """Return what makes two requests the same one, hex; the seed counts, the key does not."""
        parts = (self.model.name, self.prompt, self.system, self.ratio, self.size, self.seed, self.thinking)
        hasher = sha256(repr(parts).encode("utf-8", "surrogatepass"))
        for image in self.images:
            hasher.update(sha256(image.data).digest())
        return hasher.hexdigest()
