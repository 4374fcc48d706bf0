"""The tokens of one answer: counted, written as `usageMetadata`, and priced.

Apart from the bodies (`responses`) and the bill, because both say the same numbers: what a client reads it owes.
"""

from dataclasses import dataclass

from pipeline.simulator.chance import Dice
from pipeline.simulator.models import Ask, ServedModel

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What one answer counts. `tier` None: the request named none, and the answer names none."""

    text: int  # of the prompt and system instruction
    inputs: int  # of input images
    made: int = 0  # of the images, drafts that are ordinary parts included
    said: int = 0  # beside them
    thoughts: int = 0
    tier: str | None = None

    @property
    def prompt(self) -> int:
        return self.text + self.inputs


def count(ask: Ask, dice: Dice, response_id: str, *, images: int) -> Tokens:
    """Count the tokens of an answer with so many images.

    The arithmetic follows public measurements of the real API: the images' tokens are a table's, and what is said
    beside them takes 88 to 630 with models that think, up to 14 with the others.
    """
    model, about = ask.model, (ask.digest, response_id)
    least, most = model.thought_tokens.get(ask.thinking or "", (0, 0))
    little, much = (88, 630) if model.thinks else (0, 14)
    return Tokens(
        text=max(1, (len(ask.prompt) + len(ask.system)) // 4),
        inputs=len(ask.images) * model.family.input_tokens,
        made=images * model.image_tokens(ask.size),
        said=dice.whole(little, much, "said", *about) if images else 0,
        thoughts=dice.whole(least, most, "thoughts", *about),
        tier=ask.tier,
    )


def prompt_only(tokens: Tokens) -> Tokens:
    """Return the tokens of a request that was blocked before anything was made."""
    return Tokens(text=tokens.text, inputs=tokens.inputs, tier=tokens.tier)


def metadata(tokens: Tokens) -> Json:
    """Return `usageMetadata`: total = prompt + candidates + thoughts.

    Without an image candidates are the thoughts, counted once; of a blocked prompt there are none.
    """
    usage: Json = {"promptTokenCount": tokens.prompt}
    if tokens.made:
        out = tokens.made + tokens.said
        usage |= {"candidatesTokenCount": out, "totalTokenCount": tokens.prompt + out + tokens.thoughts}
        usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": tokens.made}]
    elif tokens.thoughts:
        usage |= {"candidatesTokenCount": tokens.thoughts}
    usage.setdefault("totalTokenCount", tokens.prompt + tokens.thoughts)
    if tokens.thoughts:
        usage["thoughtsTokenCount"] = tokens.thoughts
    details = (("TEXT", tokens.text), ("IMAGE", tokens.inputs))
    usage["promptTokensDetails"] = [{"modality": name, "tokenCount": number} for name, number in details if number]
    if tokens.tier is not None:
        usage["serviceTier"] = tokens.tier
    return usage


def price_microusd(model: ServedModel, tokens: Tokens) -> int:
    """Return what these tokens cost by the list, rounded up."""
    text = tokens.said + tokens.thoughts
    return model.family.cost(tokens.tier or "standard", image=tokens.made, text=text, prompt=tokens.prompt)
