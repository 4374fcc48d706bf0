"""The tokens of one answer, their price, and the bill: a JSON line for every answer, written before its body is sent.

Lines are appended to a file, each in one write. A key is never in it, only its fingerprint.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

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


PROMPT_SHOWN = 80


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Fields of the request are None when it was rejected before it was understood."""

    time: str
    request: int  # counted from 1 over all requests of this server
    request_id: str
    key: str | None  # fingerprint
    status: int
    outcome: str  # image | refused | no_image | error | cut
    billed: bool
    price_microusd: int  # of its tokens, by the list; 0: nothing was executed
    model: str | None = None
    size: str | None = None
    ratio: str | None = None
    prompt_sha256: str | None = None
    prompt: str | None = None  # its first 80 characters
    input_images: int = 0
    images: int = 0  # images that were made and sent, drafts that are billed included
    image_sha256: tuple[str, ...] = ()
    seed: int | None = None  # the one asked for, else the one that was chosen
    fault: str | None = None


def now() -> str:
    """Return the time of an entry, RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def digest(prompt: str) -> str:
    """Return the hex SHA-256 of a prompt."""
    return sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


class Bill:
    """The open log; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._fd = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, entry: Entry) -> None:
        """Append one line; it is in the system's hands when this returns."""
        if self._fd is None:
            return
        line = memoryview(msgspec.json.encode(entry) + b"\n")
        while line:
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
