"""Answers of 200: the tokens they count and their price, their bodies and what a fault does to them, and the bill.

The bill is a JSON line for every answer, written before its body is sent, each in one write. A key is never in it, only
its fingerprint.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pybase64

from pipeline.simulator.faults import SimulatedFault
from pipeline.simulator.models import Ask, ServedModel
from pipeline.simulator.rules import Dice

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

    time: str  # RFC 3339, UTC
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


_NOT_SHOWN = (
    "Unable to show the generated image. The model could not generate the image based on the prompt provided. You will "
    "not be charged for this request. Try rephrasing the prompt."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """One picture, ready to be sent."""

    data: bytes
    base64: bytes
    sha256: str
    mime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What one answer shows: final images, the last one meant, and drafts for its thoughts."""

    images: tuple[EncodedImage, ...]
    drafts: tuple[EncodedImage, ...]
    ratio: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """What is decided by chance in one answer, and its names."""

    dice: Dice
    response_id: str

    @classmethod
    def of(cls, dice: Dice, request: int) -> "Variation":
        """Make the variation of the n-th request."""
        digits = b"".join(dice.number("id", request, part).to_bytes(8) for part in (0, 1))
        return cls(dice=dice, response_id=pybase64.urlsafe_b64encode(digits).decode().rstrip("="))


def answer(ask: Ask, rendered: Rendered, variation: Variation, tokens: Tokens, fault: SimulatedFault | None) -> bytes:
    """Wrap the final images of one answer and its thought drafts; a `fault` of encoding or damage spoils it."""
    name = "" if fault is None else fault.name
    parts = _thoughts(ask, rendered.drafts)
    parts += [{"text": f"Here is your image: {ask.prompt[:60]}"}] if ask.with_text else []
    parts += [_image(ask, picture, variation, name, place) for place, picture in enumerate(rendered.images)]
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return dress(msgspec.json.encode(_frame(ask, variation, [candidate], tokens)), name)


def _thoughts(ask: Ask, drafts: Sequence[EncodedImage]) -> list[Json]:
    if not drafts and not ask.show_thoughts:
        return []
    words: Json = {"text": "Composing: what stands where, the light, then the details.", "thought": True}
    return [words, *(_inline(draft.mime, draft.base64) | {"thought": True} for draft in drafts)]


def _image(ask: Ask, picture: EncodedImage, variation: Variation, fault: str, place: int) -> Json:
    mime = picture.mime
    if fault == "wrong_mime":
        mime = "image/png" if mime != "image/png" else "image/jpeg"
    part = _inline(mime, picture.base64)
    if ask.model.thinks:
        part["thoughtSignature"] = _signature(variation, place)
    if fault == "only_thought":
        part = _inline(mime, picture.base64) | {"thought": True}
    return part


def _inline(mime: str, base64: bytes) -> Json:
    return {"inlineData": {"mimeType": mime, "data": msgspec.Raw(b'"' + base64 + b'"')}}


def _signature(variation: Variation, place: int) -> str:
    """Return an opaque text of 172 characters."""
    blob = b"".join(variation.dice.number("signature", variation.response_id, place, n).to_bytes(8) for n in range(16))
    return pybase64.b64encode(b"\x12" + blob).decode()


def without_image(ask: Ask, variation: Variation, tokens: Tokens, fault: SimulatedFault) -> bytes:
    """Make the 200 of a fault of the stage content: blocked, failed, or words only."""
    candidate: Json = {"content": {}, "finishReason": fault.finish or "STOP", "index": 0}
    match fault.name:
        case "prompt_blocked":
            body: Json = {"promptFeedback": {"blockReason": fault.finish}, "usageMetadata": metadata(tokens)}
            return msgspec.json.encode(body | _names(ask, variation))
        case "no_candidates":
            return msgspec.json.encode(_frame(ask, variation, None, tokens))
        case "text_only" | "max_tokens":
            text = "Here is an image of what you asked for:" if fault.name == "text_only" else "I would like to"
            candidate["content"] = {"parts": [{"text": text}], "role": "model"}
        case "empty":
            candidate["content"] = {"parts": [], "role": "model"}
        case "null_parts" | "no_image":
            candidate["content"] = {"parts": None}
        case "empty_data":
            candidate["content"] = {"parts": [_inline("image/png", b"")], "role": "model"}
        case "file_uri":
            uri = {"fileData": {"mimeType": "image/png", "fileUri": "https://example.invalid/image.png"}}
            candidate["content"] = {"parts": [uri], "role": "model"}
        case "malformed" | "other":
            candidate["content"] = {"role": "model"}
        case _:
            candidate["finishMessage"] = _NOT_SHOWN
    return msgspec.json.encode(_frame(ask, variation, [candidate], tokens))


def words(ask: Ask, variation: Variation, tokens: Tokens) -> bytes:
    """Make the answer to a request that wants no image: `responseModalities` is TEXT alone."""
    parts = [{"text": "I can draw this: ask with responseModalities that hold IMAGE."}]
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return msgspec.json.encode(_frame(ask, variation, [candidate], tokens))


def _frame(ask: Ask, variation: Variation, candidates: list[Json] | None, tokens: Tokens) -> Json:
    return {"candidates": candidates, "usageMetadata": metadata(tokens)} | _names(ask, variation)


def _names(ask: Ask, variation: Variation) -> Json:
    return {"modelVersion": ask.model.name, "responseId": variation.response_id}


_DATA = re.compile(rb'("data":")([A-Za-z0-9+/=]*)(")')


def dress(body: bytes, fault: str) -> bytes:
    """Return the body as the fault leaves it; other faults leave it as it is."""
    if (change := _SPOILT_DATA.get(fault)) is not None:
        return _DATA.sub(lambda found: found[1] + change(found[2]) + found[3], body)
    match fault:
        case "snake_case":
            return body.replace(b'"inlineData"', b'"inline_data"').replace(b'"mimeType"', b'"mime_type"')
        case "broken_json":
            return body[: len(body) * 7 // 10]
    return body


def _not_base64(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + b"*!" + data[middle + 2 :]


_SPOILT_DATA: Mapping[str, Callable[[bytes], bytes]] = {
    "data_prefix": lambda data: b"data:image/png;base64," + data,
    "url_safe_base64": lambda data: data.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"="),
    "base64_lines": lambda data: rb"\n".join(data[at : at + 76] for at in range(0, len(data), 76)),
    "escaped_json": lambda data: data.replace(b"/", rb"\/").replace(b"=", rb"\u003d"),
    "bad_base64": _not_base64,
    "cut_image": lambda data: data[: max(64, len(data) * 3 // 5) // 4 * 4],
}
