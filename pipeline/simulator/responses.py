"""Answers of 200: the tokens they count and their price, their bodies and what a fault does to them, and the bill.

The bill is a JSON line for every answer, written before its body is sent, each in one write. A key is never in it, only
its fingerprint.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec
import pybase64

from pipeline.errors import StorageError
from pipeline.provider.catalogue import DEFAULT_SIZE
from pipeline.simulator.faults import Outcome, SimulatedFault
from pipeline.simulator.rules import Dice
from pipeline.simulator.validation import Ask, ServedModel

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

    def price_microusd(self, model: ServedModel) -> int:
        """Return what these tokens cost by the list, rounded up."""
        text = self.said + self.thoughts
        return model.family.cost(self.tier or "standard", image=self.made, text=text, prompt=self.prompt)

    def metadata(self) -> Json:
        """Return `usageMetadata`: total = prompt + candidates + thoughts.

        Without an image candidates are the thoughts, counted once; of a blocked prompt there are none.
        """
        usage: Json = {"promptTokenCount": self.prompt}
        if self.made:
            out = self.made + self.said
            usage |= {"candidatesTokenCount": out, "totalTokenCount": self.prompt + out + self.thoughts}
            usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": self.made}]
        elif self.thoughts:
            usage |= {"candidatesTokenCount": self.thoughts}
        usage.setdefault("totalTokenCount", self.prompt + self.thoughts)
        if self.thoughts:
            usage["thoughtsTokenCount"] = self.thoughts
        details = (("TEXT", self.text), ("IMAGE", self.inputs))
        usage["promptTokensDetails"] = [{"modality": name, "tokenCount": number} for name, number in details if number]
        if self.tier is not None:
            usage["serviceTier"] = self.tier
        return usage


class Entry(msgspec.Struct, kw_only=True):
    """One request on the bill; its fields are filled as it is understood, and those of the request may stay None."""

    time: str = ""  # RFC 3339, UTC
    request: int  # counted from 1 over all requests of this server
    request_id: str
    key: str | None = None  # fingerprint
    status: int = 0
    outcome: Outcome = Outcome.ERROR
    billed: bool = False
    price_microusd: int = 0  # of its tokens, by the list; 0: nothing was executed
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

    def understood(self, ask: Ask) -> None:
        self.size, self.ratio = ask.size, ask.ratio
        self.prompt = ask.prompt[:_PROMPT_SHOWN]
        self.prompt_sha256 = sha256(ask.prompt.encode("utf-8", "surrogatepass")).hexdigest()
        self.input_images = len(ask.images)

    def charge(self, tokens: Tokens, model: ServedModel) -> None:
        """Note that it was executed, and for how much."""
        self.billed, self.price_microusd = True, tokens.price_microusd(model)


_PROMPT_SHOWN = 80


class Bill:
    """The open log; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        """Open it. Raises StorageError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._fd = None if path is None else os.open(path, flags, 0o644)
        except OSError as error:
            raise StorageError(f"{path}: the bill cannot be written: {error.strerror}") from error

    def write(self, entry: Entry) -> None:
        """Append one line, with the time of now; it is in the system's hands when this returns."""
        if self._fd is None:
            return
        entry.time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = memoryview(msgspec.json.encode(entry) + b"\n")
        while line:
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
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
class AnswerWriter:
    """Writes the answer to one request."""

    ask: Ask
    dice: Dice
    response_id: str

    @classmethod
    def of(cls, ask: Ask, dice: Dice, request: int) -> "AnswerWriter":
        """Make the writer of the n-th request."""
        digits = b"".join(dice.number("id", request, part).to_bytes(8) for part in (0, 1))
        return cls(ask=ask, dice=dice, response_id=pybase64.urlsafe_b64encode(digits).decode().rstrip("="))

    def count(self, images: int, *, is_blocked: bool = False) -> Tokens:
        """Count the tokens of an answer with so many images; of a blocked prompt nothing is made.

        The arithmetic follows public measurements of the real API: the images' tokens are a table's, and what is said
        beside them takes 88 to 630 with models that think, up to 14 with the others.
        """
        ask, model, about = self.ask, self.ask.model, (self.ask.digest, self.response_id)
        least, most = (0, 0) if is_blocked else model.thought_tokens.get(ask.thinking or "", (0, 0))
        little, much = (88, 630) if model.thinks else (0, 14)
        return Tokens(
            text=max(1, (len(ask.prompt) + len(ask.system)) // 4),
            inputs=len(ask.images) * model.family.input_tokens,
            made=images * model.family.tokens.get(ask.size or DEFAULT_SIZE, 0),
            said=self.dice.whole(little, much, "said", *about) if images else 0,
            thoughts=self.dice.whole(least, most, "thoughts", *about),
            tier=ask.tier,
        )

    def with_images(self, rendered: Rendered, tokens: Tokens, fault: str) -> bytes:
        """Wrap the final images and the thought drafts; a `fault` of encoding or damage spoils it."""
        parts = self._thoughts(rendered.drafts)
        parts += [{"text": f"Here is your image: {self.ask.prompt[:60]}"}] if self.ask.with_text else []
        parts += [self._image(picture, fault, place) for place, picture in enumerate(rendered.images)]
        return dress(self._body(tokens, _candidate(parts)), fault)

    def without_image(self, tokens: Tokens, fault: SimulatedFault) -> bytes:
        """Make the 200 of a fault of the stage content: blocked, failed, or words only."""
        candidate: Json = {"content": {}, "finishReason": fault.finish or "STOP", "index": 0}
        match fault.name:
            case "prompt_blocked":
                return self._encoded({"promptFeedback": {"blockReason": fault.finish}}, tokens)
            case "no_candidates":
                return self._body(tokens, None)
            case "text_only" | "max_tokens":
                text = "Here is an image of what you asked for:" if fault.name == "text_only" else "I would like to"
                candidate = _candidate([{"text": text}], candidate["finishReason"])
            case "empty":
                candidate = _candidate([])
            case "null_parts" | "no_image":
                candidate["content"] = {"parts": None}
            case "empty_data":
                candidate = _candidate([_inline("image/png", b"")])
            case "file_uri":
                uri = {"mimeType": "image/png", "fileUri": "https://example.invalid/image.png"}
                candidate = _candidate([{"fileData": uri}])
            case "malformed" | "other":
                candidate["content"] = {"role": "model"}
            case _:
                candidate["finishMessage"] = _NOT_SHOWN
        return self._body(tokens, candidate)

    def words(self, tokens: Tokens) -> bytes:
        """Make the answer to a request that wants no image: `responseModalities` is TEXT alone."""
        return self._body(
            tokens, _candidate([{"text": "I can draw this: ask with responseModalities that hold IMAGE."}])
        )

    def _thoughts(self, drafts: Sequence[EncodedImage]) -> list[Json]:
        if not drafts and not self.ask.show_thoughts:
            return []
        words: Json = {"text": "Composing: what stands where, the light, then the details.", "thought": True}
        return [words, *(_inline(draft.mime, draft.base64) | {"thought": True} for draft in drafts)]

    def _image(self, picture: EncodedImage, fault: str, place: int) -> Json:
        mime = picture.mime
        if fault == "wrong_mime":
            mime = "image/png" if mime != "image/png" else "image/jpeg"
        part = _inline(mime, picture.base64)
        if fault == "only_thought":
            return part | {"thought": True}
        return part | {"thoughtSignature": self._signature(place)} if self.ask.model.thinks else part

    def _signature(self, place: int) -> str:
        """Return an opaque text of 172 characters."""
        blob = b"".join(self.dice.number("signature", self.response_id, place, n).to_bytes(8) for n in range(16))
        return pybase64.b64encode(b"\x12" + blob).decode()

    def _body(self, tokens: Tokens, candidate: Json | None) -> bytes:
        return self._encoded({"candidates": None if candidate is None else [candidate]}, tokens)

    def _encoded(self, body: Json, tokens: Tokens) -> bytes:
        names = {"modelVersion": self.ask.model.name, "responseId": self.response_id}
        return msgspec.json.encode(body | {"usageMetadata": tokens.metadata()} | names)


def _candidate(parts: list[Json], finish: object = "STOP") -> Json:
    return {"content": {"parts": parts, "role": "model"}, "finishReason": finish, "index": 0}


def _inline(mime: str, base64: bytes) -> Json:
    return {"inlineData": {"mimeType": mime, "data": msgspec.Raw(b'"' + base64 + b'"')}}


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
