"""What is known of the models (abilities, prices, end dates), and what one attempt costs: at most, and in the end.

The tables are `catalogue.yaml`; a manifest's `prices:` win over it. Money is in micro-dollars, rounded up. A model that
is not listed is not an error: names are free text. A gateway's discount is not used: the list price never counts too
little.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction
from functools import cache
from importlib.resources import files
from math import ceil
from types import MappingProxyType
from typing import Final

import msgspec
import yaml

from pipeline.model import Quote, Task, Tier, Usage
from pipeline.settings import Kind

DEFAULT_SIZE = "1K"  # what the API makes when no size is asked for
_NOTICE = timedelta(days=45)  # how long before its last day a model is warned about

Prices = Mapping[str, int | Mapping[str, int]]
_NO_PRICES: Prices = MappingProxyType({})


class Rates(msgspec.Struct, frozen=True):
    """USD per million tokens, which is micro-dollars per token."""

    image: float
    text: float
    prompt: float


class Thinking(msgspec.Struct, frozen=True):
    """Levels a model takes, each with the tokens to set aside for thoughts and text; `otherwise`: it takes none."""

    default: str | None = None
    levels: dict[str, int] = {}
    otherwise: int = 0

    def allowance(self, level: str | None) -> int:
        """Return the tokens to set aside at `level` (None: the default one); the most where it is not known."""
        return self.levels.get(level or self.default or "", max(self.levels.values(), default=self.otherwise))


class _Offer(msgspec.Struct, frozen=True):
    until: date | None = None


class Family(msgspec.Struct, frozen=True):
    """Models that share every table."""

    sizes: tuple[str, ...]
    ratios: tuple[str, ...]
    tokens: dict[str, int]
    price: dict[str, float]
    per_million: Rates
    input_tokens: int
    most_images: int
    thinking: Thinking
    tiers: dict[str, float]
    pixels: dict[str, dict[str, tuple[int, int]]]

    def cost(self, tier: str, *, image: int, text: int, prompt: int) -> int:
        """Return what tokens cost, in micro-USD, rounded up. Whole numbers throughout: a plan asks for a million."""
        counted = ((image, self.per_million.image), (text, self.per_million.text), (prompt, self.per_million.prompt))
        return self.part(sum(tokens * round(rate * 1000) for tokens, rate in counted), tier, over=1000)

    def part(self, amount: int, tier: str, *, over: int = 1) -> int:
        """Return what a tier costs of the standard price `amount / over`, rounded up."""
        return -(-amount * round(self.tiers.get(tier, 1) * 1000) // (1000 * over))


class _Model(msgspec.Struct, frozen=True):
    alias: str
    family: str
    offered: dict[Kind, _Offer]


class _Tables(msgspec.Struct, frozen=True):
    ratios: dict[Kind, float]  # what is billed of the list price
    families: dict[str, Family]
    models: dict[str, _Model]


@cache
def _tables() -> _Tables:
    text = files("pipeline.provider").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return msgspec.convert(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), _Tables)  # noqa: S506


@cache  # a plan asks for the price of each of a million tasks
def _microusd(usd: float) -> int:
    return ceil(Fraction(str(usd)) * 1_000_000)


def _bare(model: str) -> str:
    return model.removeprefix("models/")  # as Google's pages and lists write it


class Catalogue:
    """The models' tables, with a person's own prices before them."""

    def __init__(self, own_prices: Prices = _NO_PRICES) -> None:
        """`own_prices` (micro-USD an image, or a size) win over those of the tables."""
        self._own = own_prices
        self._models = _tables().models

    def price(self, model: str, size: str | None) -> int | None:
        """Return the list price of one image in micro-USD; None when nobody knows it."""
        family = self.family(model)
        usd = None if family is None else family.price.get(size or DEFAULT_SIZE)
        return None if usd is None else _microusd(usd)

    def own_price(self, model: str, size: str | None, images: int = 1) -> int | None:
        """Return what so many images cost by what a person wrote under `prices:`, in micro-USD; None: nothing."""
        own = self._own.get(model, self._own.get(_bare(model)))
        price = own.get(size or DEFAULT_SIZE) if isinstance(own, Mapping) else own
        return None if price is None else price * images

    def family(self, model: str) -> Family | None:
        """Return the tables of a known model; None for an unknown one."""
        known = self._known(model)
        return None if known is None else _tables().families[known.family]

    def _known(self, model: str) -> _Model | None:
        return self._models.get(_bare(model))

    def ratio(self, kind: Kind) -> float:
        """Return what `kind` bills of the list price, such as 0.8."""
        return _tables().ratios[kind]

    def warning(self, model: str, today: date, *, kind: Kind = Kind.COMETAPI) -> str | None:
        """Say that `kind` stopped or soon stops to offer a model, and name what it offers; None: nothing to say."""
        known = self._known(model)
        offer = None if known is None else known.offered.get(kind)
        if offer is None or offer.until is None or today < offer.until - _NOTICE:
            return None
        verb = "was retired" if today >= offer.until else "will be retired"
        names = ", ".join(self.current_models(today, kind=kind))
        return f"model {model} {verb} by {kind} on {offer.until}; current models: {names}"

    def unfit(self, task: Task) -> str | None:
        """Say why a known model cannot do what a task asks; None: it can, or the model is not known."""
        model, size, ratio, family = task.model, task.size, task.aspect_ratio, self.family(task.model)
        if family is None:
            return None
        if size is not None and size not in family.sizes:
            return f"model {model} cannot make size {size}; it makes {', '.join(family.sizes)}"
        if ratio is not None and ratio not in family.ratios:
            return f"model {model} cannot make aspect_ratio {ratio}; it makes {', '.join(family.ratios)}"
        levels = family.thinking.levels
        if task.thinking is not None and task.thinking not in levels:
            takes = f"it takes {', '.join(levels)}" if levels else "it has no thinking; remove `thinking`"
            return f"model {model} cannot think at level {task.thinking}; {takes}"
        if len(task.images) > family.most_images:
            return f"model {model} takes {family.most_images} input images, this task has {len(task.images)}"
        if task.tier is not Tier.STANDARD and task.tier not in family.tiers:
            return f"model {model} is not offered at tier {task.tier}; write tier: standard"
        return None

    def current_models(self, today: date | None = None, *, kind: Kind = Kind.COMETAPI) -> tuple[str, ...]:
        """Return the models that `kind` is known to offer; with `today`, those still offered on that day."""
        offers = ((name, m.offered.get(kind)) for name, m in self._models.items())
        return tuple(
            name
            for name, offer in offers
            if offer is not None and (offer.until is None or (today is not None and today < offer.until))
        )

    def introduce(self, today: date, *, kind: Kind = Kind.COMETAPI) -> tuple[str, ...]:
        """Return the models that `kind` offers on that day, each with the name people know: `x-1-image (Banana)`."""
        return tuple(f"{name} ({self._models[name].alias})" for name in self.current_models(today, kind=kind))

    def image_size(self, model: str, size: str | None) -> str | None:
        """Return what to send as `imageSize`; None: send none, for models that make one size and fail when asked."""
        family = self.family(model)
        return None if family is not None and family.sizes == (DEFAULT_SIZE,) else size

    def pixels(self, model: str, size: str | None, ratio: str | None) -> tuple[int, int] | None:
        """Return width and height of what a known model makes; None when it does not make that."""
        family = self.family(model)
        if family is None or size not in (None, *family.sizes) or ratio not in (None, *family.ratios):
            return None
        return family.pixels[size or DEFAULT_SIZE].get(ratio or "1:1")


BYTES_A_TOKEN: Final = 3  # of UTF-8: English has about 4, so that this estimates high
REMEMBERED: Final = 4096  # quotes, which a plan of a million tasks asks for again and again
Spot = tuple[str, str, str]  # model, size, tier that was asked for
_NOTHING: Final[Mapping[Spot, int]] = MappingProxyType({})


class PriceList:
    """What attempts cost. It learns: nothing is reserved below the dearest answer of its model, size and tier."""

    def __init__(self, catalogue: Catalogue, dearest: Mapping[Spot, int] = _NOTHING) -> None:
        """`dearest`: micro-USD of the dearest answers of earlier runs."""
        self._catalogue = catalogue
        self._dearest = dict(dearest)
        self._known: dict[tuple[object, ...], Quote | None] = {}  # by the catalogue, of tasks that are alike in price

    def quote(self, task: Task) -> Quote | None:
        """Return what one attempt costs by its pixels and at most; None when nobody knows the price."""
        size = _size(task)
        own = self._catalogue.own_price(task.model, size, _count(task))
        if own is not None:
            return Quote(own, own)
        counts = _level(task), _count(task), _prompt_tokens(task), len(task.images)
        alike = (task.model, size, task.tier, *counts)  # the tasks of a job differ in little else than their text
        if alike not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[alike] = self._by_catalogue(task, size)
        found = self._known[alike]
        dearest = self._dearest.get(_spot(task), 0) if self._dearest else 0
        return found if found is None or dearest <= found.most else Quote(found.least, dearest)

    def reserve(self, task: Task) -> int | None:
        """Return what to set aside for one attempt; None when nobody knows the price."""
        quote = self.quote(task)
        return None if quote is None else quote.most

    def settle(self, task: Task, usage: Usage | None) -> int | None:
        """Return what an answer cost by its tokens and the tier that was served, and learn from it.

        None: nobody knows, and what was reserved stands. Without tokens nobody said which tier was served either:
        then it is the standard one.
        """
        own = self._catalogue.own_price(task.model, _size(task), _count(task))
        if own is not None:
            return own
        family = self._catalogue.family(task.model)
        if family is None:
            return None
        if usage is None:
            return None if task.tier is Tier.STANDARD else self._most(task, Tier.STANDARD)
        cost = family.cost(usage.tier, image=usage.image_tokens, text=usage.text_tokens, prompt=usage.prompt_tokens)
        spot = _spot(task)
        self._dearest[spot] = max(cost, self._dearest.get(spot, 0))
        return cost

    def _by_catalogue(self, task: Task, size: str) -> Quote | None:
        least, most = self._catalogue.price(task.model, size), self._most(task, task.tier)
        family = self._catalogue.family(task.model)
        if family is None or least is None or most is None:
            return None
        pixels = family.part(least, task.tier) * _count(task)
        return Quote(pixels, max(pixels, most))

    def _most(self, task: Task, tier: Tier) -> int | None:
        """Return what an attempt can cost by the catalogue: image, prompt, input images, thoughts."""
        family = self._catalogue.family(task.model)
        image = None if family is None else family.tokens.get(_size(task))
        if family is None or image is None:
            return None
        return family.cost(
            tier,
            image=image * _count(task),
            text=family.thinking.allowance(_level(task)) * _count(task),
            prompt=_prompt_tokens(task) + len(task.images) * family.input_tokens,
        )


def _prompt_tokens(task: Task) -> int:
    text = len(task.prompt.encode("utf-8", "surrogatepass"))
    text += len((task.system or "").encode("utf-8", "surrogatepass"))
    return -(-text // BYTES_A_TOKEN)


def _spot(task: Task) -> Spot:
    return task.model, _size(task), task.tier.value


# What a person's own `params` change of the price; they win over the task's keys, in both spellings.


def _size(task: Task) -> str:
    written = _param(_param(task.params, "imageConfig", "image_config"), "imageSize", "image_size")
    return written if isinstance(written, str) else task.size or DEFAULT_SIZE


def _level(task: Task) -> str | None:
    written = _param(_param(task.params, "thinkingConfig", "thinking_config"), "thinkingLevel", "thinking_level")
    return written.lower() if isinstance(written, str) else task.thinking


def _count(task: Task) -> int:
    """Return how many images one answer brings."""
    written = _param(task.params, "candidateCount", "candidate_count")
    return written if isinstance(written, int) and written > 1 else 1


def _param(node: object, *names: str) -> object:
    if not node or not isinstance(node, Mapping):  # nearly always: a plan asks for each of a million tasks
        return None
    return next((node[name] for name in names if name in node), None)
