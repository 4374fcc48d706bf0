"""The price of one attempt: the most it can cost before it is sent, and what it did cost afterwards.

Micro-dollars, rounded up. A manifest's `prices:` are exact and win over everything here. A gateway's discount is not
used: the list price never counts too little.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pipeline.model import Quote, Task, Tier, Usage
from pipeline.provider.catalogue import DEFAULT_SIZE, Catalogue

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
        own = self._catalogue.own_price(task.model, size)
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

        None: it cannot be told, and what was reserved stands. Without tokens nobody said which tier was served either:
        then it is the standard one.
        """
        own = self._catalogue.own_price(task.model, _size(task))
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
        family, image = self._catalogue.family(task.model), self._catalogue.tokens(task.model, _size(task))
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
