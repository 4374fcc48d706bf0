"""Bodies of 200: parts, thoughts, drafts, finish reasons and token counts.

In: the request, the prints (pictures as Base64) and the fault that dresses them. Out: JSON bytes. It refuses to know
how pictures are made and how bytes travel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import pybase64

from pipeline.simulator.asks import Ask
from pipeline.simulator.dice import Dice
from pipeline.simulator.dressing import dress
from pipeline.simulator.faults import Fault

Json = dict[str, object]
_NOT_SHOWN = (
    "Unable to show the generated image. The model could not generate the image based on the prompt provided. You will "
    "not be charged for this request. Try rephrasing the prompt."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Print:
    """One picture, ready to be sent."""

    data: bytes
    base64: bytes
    sha256: str
    mime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """What is decided by chance in one answer, and its names."""

    dice: Dice
    response_id: str

    @classmethod
    def of(cls, dice: Dice, request: int) -> "Voice":
        """Make the voice of the n-th request."""
        digits = b"".join(dice.number("id", request, part).to_bytes(8) for part in (0, 1))
        return cls(dice=dice, response_id=pybase64.urlsafe_b64encode(digits).decode().rstrip("="))


def answer(ask: Ask, prints: Sequence[Print], drafts: Sequence[Print], voice: Voice, fault: Fault | None) -> bytes:
    """Wrap the final prints of one answer and its thought drafts; `fault` of the stages dress or break spoils it."""
    name = "" if fault is None else fault.name
    parts = [*_thoughts(ask, drafts), *_said(ask)]
    for place, picture in enumerate(prints):
        parts.append(_image(ask, picture, voice, name, place))
    usage = _usage(ask, voice, images=len(prints))
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return dress(msgspec.json.encode(_frame(ask, voice, [candidate], usage)), name)


def _thoughts(ask: Ask, drafts: Sequence[Print]) -> list[Json]:
    if not drafts and not ask.show_thoughts:
        return []
    words: Json = {"text": "Composing: what stands where, the light, then the details.", "thought": True}
    return [words, *(_inline(draft.mime, draft.base64) | {"thought": True} for draft in drafts)]


def _said(ask: Ask) -> list[Json]:
    return [{"text": f"Here is your image: {ask.prompt[:60]}"}] if ask.with_text else []


def _image(ask: Ask, picture: Print, voice: Voice, fault: str, place: int) -> Json:
    mime = picture.mime
    if fault == "wrong_mime":
        mime = "image/png" if mime != "image/png" else "image/jpeg"
    part = _inline(mime, picture.base64)
    if ask.model.thinks:
        part["thoughtSignature"] = _signature(voice, place)
    if fault == "only_thought":
        part = _inline(mime, picture.base64) | {"thought": True}
    return part


def _inline(mime: str, base64: bytes) -> Json:
    return {"inlineData": {"mimeType": mime, "data": msgspec.Raw(b'"' + base64 + b'"')}}


def _signature(voice: Voice, place: int) -> str:
    """Return an opaque text of 172 characters."""
    blob = b"".join(voice.dice.number("signature", voice.response_id, place, n).to_bytes(8) for n in range(16))
    return pybase64.b64encode(b"\x12" + blob).decode()


def without_image(ask: Ask, voice: Voice, fault: Fault) -> bytes:
    """Make the 200 of a fault of the stage content: blocked, failed, or words only."""
    candidate: Json = {"content": {}, "finishReason": fault.finish or "STOP", "index": 0}
    usage = _usage(ask, voice, images=0)
    match fault.name:
        case "prompt_blocked":
            body: Json = {"promptFeedback": {"blockReason": fault.finish}, "usageMetadata": _prompt_only(usage)}
            return msgspec.json.encode(body | _names(ask, voice))
        case "no_candidates":
            return msgspec.json.encode(_frame(ask, voice, None, usage))
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
    return msgspec.json.encode(_frame(ask, voice, [candidate], usage))


def words(ask: Ask, voice: Voice) -> bytes:
    """Make the answer to a request that wants no image: `responseModalities` is TEXT alone."""
    parts = [{"text": "I can draw this: ask with responseModalities that hold IMAGE."}]
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return msgspec.json.encode(_frame(ask, voice, [candidate], _usage(ask, voice, images=0)))


def _frame(ask: Ask, voice: Voice, candidates: list[Json] | None, usage: Json) -> Json:
    return {"candidates": candidates, "usageMetadata": usage} | _names(ask, voice)


def _names(ask: Ask, voice: Voice) -> Json:
    return {"modelVersion": ask.model.name, "responseId": voice.response_id}


def _usage(ask: Ask, voice: Voice, *, images: int) -> Json:
    """Count tokens: total = prompt + candidates + thoughts; without an image candidates are the thoughts, counted once.

    The arithmetic follows public measurements of the real API: the images' tokens are a table's, and candidates
    exceed them by 88 to 630 with models that think.
    """
    model, about = ask.model, (ask.digest, voice.response_id)
    text = max(1, (len(ask.prompt) + len(ask.system)) // 4)
    pictures = len(ask.images) * model.input_tokens
    details = [{"modality": "TEXT", "tokenCount": text}]
    if pictures:
        details.append({"modality": "IMAGE", "tokenCount": pictures})
    least, most = model.thought_tokens.get(ask.thinking or "", (0, 0))
    thoughts = voice.dice.whole(least, most, "thoughts", *about)
    prompt = text + pictures
    usage: Json = {"promptTokenCount": prompt}
    if images:
        made = images * model.image_tokens(ask.size)
        said = voice.dice.whole(88, 630, "said", *about) if model.thinks else voice.dice.whole(0, 14, "said", *about)
        usage |= {"candidatesTokenCount": made + said, "totalTokenCount": prompt + made + said + thoughts}
        usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": made}]
    else:
        usage |= {"candidatesTokenCount": thoughts, "totalTokenCount": prompt + thoughts}
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    usage["promptTokensDetails"] = details
    return usage


def _prompt_only(usage: Mapping[str, object]) -> Json:
    prompt = usage["promptTokenCount"]
    return {"promptTokenCount": prompt, "totalTokenCount": prompt}
