"""Bodies of 200: parts, thoughts, drafts and finish reasons, and what a fault does to them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import pybase64

from pipeline.simulator.billing import Tokens, metadata
from pipeline.simulator.chance import Dice
from pipeline.simulator.faults import SimulatedFault
from pipeline.simulator.models import Ask

Json = dict[str, object]
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
