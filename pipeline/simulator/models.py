"""The models that are served, and what a valid request asks of one.

Sizes, pixels, tokens, prices, most images and thinking levels are the catalogue's; here stands only what a client
never decides by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from pipeline.provider.catalogue import Catalogue, Family

CATALOGUE = Catalogue()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One served model. `input_tokens` are those of one input image."""

    name: str
    mimes: tuple[str, ...]  # one of them is drawn for every answer, the first most often
    thought_tokens: Mapping[str, tuple[int, int]]  # level -> least and most; a level that is missing reports none

    @property
    def family(self) -> Family:
        """Return its tables."""
        found = CATALOGUE.family(self.name)
        assert found is not None, self.name  # a test asks for each of SERVED
        return found

    @property
    def thinks(self) -> bool:
        """Whether answers carry thought signatures, drafts are sent on demand, and `imageSize` may be asked for."""
        return self.family.thinking.default is not None

    @property
    def sizes(self) -> tuple[str, ...]:
        return CATALOGUE.sizes(self.name)

    @property
    def ratios(self) -> tuple[str, ...]:
        return CATALOGUE.ratios(self.name)

    def pixels(self, size: str | None, ratio: str) -> tuple[int, int]:
        """Return width and height of a combination that was checked before."""
        found = CATALOGUE.pixels(self.name, size, ratio)
        if found is None:
            raise LookupError(f"{self.name} does not make {size} at {ratio}")
        return found

    def image_tokens(self, size: str | None) -> int:
        """Return the output tokens of one image."""
        return CATALOGUE.tokens(self.name, size) or 0


_PNG = ("image/png",)
_MIXED = ("image/jpeg", "image/jpeg", "image/jpeg", "image/png")
_FLASH_THOUGHTS = {"high": (700, 800)}
_PRO_THOUGHTS = {"minimal": (50, 350), "medium": (50, 350), "high": (50, 350)}
_BANANA_THOUGHTS = {"minimal": (40, 120), "medium": (180, 420), "high": (600, 900)}


SERVED: Mapping[str, ServedModel] = {
    name: ServedModel(name=name, mimes=mimes, thought_tokens=thoughts)
    for name, mimes, thoughts in (
        ("gemini-2.5-flash-image-preview", _PNG, {}),
        ("gemini-2.5-flash-image", _PNG, {}),
        ("gemini-3-pro-image-preview", _MIXED, _PRO_THOUGHTS),
        ("gemini-3-pro-image", _MIXED, _PRO_THOUGHTS),
        ("gemini-3.1-flash-image-preview", _MIXED, _FLASH_THOUGHTS),
        ("gemini-3.1-flash-image", _MIXED, _FLASH_THOUGHTS),
        ("gemini-3.1-flash-lite-image", _MIXED, _FLASH_THOUGHTS),
        ("gemini-nano-banana-2.1", (*_MIXED, "image/webp"), _BANANA_THOUGHTS),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPicture:
    """One input image; its type was checked against its bytes."""

    mime: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request that passed every check. `ratio` and `size` are None where the request left them open."""

    model: ServedModel
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
    tier: str | None = None  # as it was asked for

    @property
    def digest(self) -> str:
        """Return what makes two requests the same one, hex; the seed counts, the key does not."""
        parts = (self.model.name, self.prompt, self.system, self.ratio, self.size, self.seed, self.thinking)
        hasher = sha256(repr(parts).encode("utf-8", "surrogatepass"))
        for image in self.images:
            hasher.update(sha256(image.data).digest())
        return hasher.hexdigest()
