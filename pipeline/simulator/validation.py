"""Validates a `generateContent` body, in the order in which gateway and model owner check it.

A valid body becomes an `Ask` of a served model; for any other `RequestRejected` carries the answer of the real API,
word for word. Names are read in both casings, as proto-JSON has them. Sizes, pixels, tokens, prices, most images and
thinking levels of the models are the catalogue's; here stands only what a client never decides by.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec
import pybase64

from pipeline.imaging.formats import sniff
from pipeline.provider.catalogue import Catalogue, Family
from pipeline.simulator.faults import INTERNAL, RequestRejected, bad_argument, comet, google, no_channel


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One served model, with its tables."""

    name: str
    family: Family
    mimes: tuple[str, ...]  # one of them is drawn for every answer, the first most often
    thought_tokens: Mapping[str, tuple[int, int]]  # level -> least and most; a level that is missing reports none

    @property
    def thinks(self) -> bool:
        """Whether answers carry thought signatures, drafts are sent on demand, and `imageSize` may be asked for."""
        return self.family.thinking.default is not None


_PNG = ("image/png",)
_MIXED = ("image/jpeg", "image/jpeg", "image/jpeg", "image/png")
_FLASH_THOUGHTS = {"high": (700, 800)}
_PRO_THOUGHTS = {"minimal": (50, 350), "medium": (50, 350), "high": (50, 350)}
_BANANA_THOUGHTS = {"minimal": (40, 120), "medium": (180, 420), "high": (600, 900)}


def _served(name: str, mimes: tuple[str, ...], thought_tokens: Mapping[str, tuple[int, int]]) -> ServedModel:
    family = Catalogue().family(name)
    assert family is not None, f"the catalogue has no {name}"
    return ServedModel(name=name, family=family, mimes=mimes, thought_tokens=thought_tokens)


SERVED: Mapping[str, ServedModel] = {
    name: _served(name, mimes, thoughts)
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
class Ask:
    """One request that passed every check. `ratio` and `size` are None where the request left them open."""

    model: ServedModel
    prompt: str
    system: str = ""
    images: tuple[bytes, ...] = ()
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
            hasher.update(sha256(image).digest())
        return hasher.hexdigest()


def camel(name: str) -> str:
    """Turn `inline_data` into `inlineData`; what is camelCase already stays."""
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


def snake(name: str) -> str:
    """Turn `inlineData` into `inline_data`, the way error messages name fields."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class Node:
    """One value of a request and its place, e.g. `generation_config.image_config`."""

    def __init__(self, value: object, path: str = "") -> None:
        self.value = value
        self.path = path

    def wrong(self, kind: str) -> RequestRejected:
        """Return the 400 for a value of the wrong type or outside its range."""
        shown = msgspec.json.encode(self.value).decode()
        return bad_argument(f"Invalid value at '{self.path}' ({kind}), {shown[:200]}")

    def fields(self, known: Collection[str]) -> Mapping[str, "Node"]:
        """Return the fields by camelCase name, without nulls; a name outside `known` is refused."""
        if not isinstance(self.value, dict):
            raise self.wrong("TYPE_MESSAGE")
        found: dict[str, Node] = {}
        for name, value in self.value.items():
            if camel(name) not in known:
                place = f" at '{self.path}'" if self.path else ""
                raise bad_argument(f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.')
            if value is not None:
                found[camel(name)] = Node(value, f"{self.path}.{snake(name)}" if self.path else snake(name))
        return found

    def items(self) -> list["Node"]:
        """Return the members of a list; a single value stands for a list of one, as proto-JSON reads it."""
        if isinstance(self.value, list):
            return [Node(value, f"{self.path}[{place}]") for place, value in enumerate(self.value)]
        return [self]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("TYPE_STRING")
        return self.value

    def number(self, kind: str = "TYPE_FLOAT") -> float:
        """Return a number; digits in quotes are one too."""
        value = self.value
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                raise self.wrong(kind) from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(kind)
        return float(value)

    def whole(self) -> int:
        value = self.number("TYPE_INT32")
        if not value.is_integer() or not -(2**31) <= value < 2**31:
            raise self.wrong("TYPE_INT32")
        return int(value)

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("TYPE_BOOL")
        return self.value

    def one_of(self, names: Collection[str], kind: str) -> str:
        """Return one of an enumeration's names."""
        if not isinstance(self.value, str) or self.value not in names:
            raise self.wrong(kind)
        return self.value


ROOT = (
    "contents", "systemInstruction", "generationConfig", "safetySettings", "tools", "toolConfig", "cachedContent",
    "model", "labels", "serviceTier",
)  # fmt: skip
CONFIG = (
    "responseModalities", "imageConfig", "thinkingConfig", "temperature", "topP", "topK", "seed", "candidateCount",
    "maxOutputTokens", "stopSequences", "presencePenalty", "frequencyPenalty", "responseMimeType", "responseSchema",
    "responseJsonSchema", "responseLogprobs", "logprobs", "speechConfig", "mediaResolution",
    "enableEnhancedCivicAnswers",
)  # fmt: skip
HARMS = tuple(
    f"HARM_CATEGORY_{name}"
    for name in ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT", "CIVIC_INTEGRITY")
)
TIERS = ("standard", "flex")
THRESHOLDS = ("BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF")
_PACKAGE = "type.googleapis.com/google.ai.generativelanguage.v1beta"
_HOTTEST = 2.0
Fields = Mapping[str, Node]


def check(name: str, body: bytes) -> Ask:
    """Read one `generateContent` body for a model; an unknown name gets the gateway's ambiguous 503."""
    if name not in SERVED:
        raise RequestRejected(no_channel(name))
    model = SERVED[name]
    fields = Node(_root(body)).fields(ROOT)
    said, system = _read(fields["contents"], fields.get("systemInstruction"))
    if len(said.images) > model.family.most_images:
        raise bad_argument(
            f"The request has {len(said.images)} images; {model.name} takes {model.family.most_images} at most."
        )
    for setting in fields["safetySettings"].items() if "safetySettings" in fields else ():
        _safety(setting.fields(("category", "threshold", "method")))
    config = fields["generationConfig"].fields(CONFIG) if "generationConfig" in fields else {}
    _sampling(config)
    ratio, size = _image_config(model, config)
    modalities = _modalities(config)
    thinking, show_thoughts = _thinking(model, config)
    return Ask(
        model=model,
        prompt="\n".join(said.texts),
        system=system,
        images=tuple(said.images),
        ratio=ratio,
        size=size,
        seed=config["seed"].whole() if "seed" in config else None,
        with_text="TEXT" in modalities,
        with_image="IMAGE" in modalities,
        thinking=thinking,
        show_thoughts=show_thoughts,
        tier=fields["serviceTier"].one_of(TIERS, f"{_PACKAGE}.ServiceTier") if "serviceTier" in fields else None,
    )


def _root(body: bytes) -> dict[str, object]:
    try:
        root = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRejected(comet(500, f"invalid JSON: {error}", code="invalid_request")) from None
    if not isinstance(root, dict) or not root.get("contents"):
        raise RequestRejected(comet(500, "contents is required", code="invalid_request"))
    return root


def _safety(fields: Fields) -> None:
    for name, allowed, kind in (("category", HARMS, "HarmCategory"), ("threshold", THRESHOLDS, "HarmBlockThreshold")):
        if name in fields:
            fields[name].one_of(allowed, f"{_PACKAGE}.{kind}")


def _sampling(config: Fields) -> None:
    if "temperature" in config and not 0 <= (temperature := config["temperature"].number()) <= _HOTTEST:
        raise bad_argument(
            f"Unable to submit request because it has a temperature value of {temperature:g} but the supported range "
            "is from 0 (inclusive) to 2.0001 (exclusive)."
        )
    if "topP" in config and not 0 <= config["topP"].number() <= 1:
        raise bad_argument("* GenerateContentRequest.generation_config.top_p: top_p must be in the range [0.0, 1.0].")
    for name in ("topK", "maxOutputTokens"):
        if name in config and config[name].whole() < 1:
            raise bad_argument(f"* GenerateContentRequest.{config[name].path}: must be positive.")
    if "candidateCount" in config and config["candidateCount"].whole() != 1:
        raise bad_argument("Multiple candidates is not enabled for this model")


def _image_config(model: ServedModel, config: Fields) -> tuple[str | None, str | None]:
    if "imageConfig" not in config:
        return None, None
    fields = config["imageConfig"].fields(("aspectRatio", "imageSize"))
    ratio, size = fields.get("aspectRatio"), fields.get("imageSize")
    if size is not None and not model.thinks:
        raise RequestRejected(google(500, "INTERNAL", INTERNAL))
    return (
        None if ratio is None else ratio.one_of(model.family.ratios, "TYPE_STRING"),
        None if size is None else size.one_of(model.family.sizes, "TYPE_STRING"),
    )


def _modalities(config: Fields) -> set[str]:
    if "responseModalities" not in config:
        return {"TEXT", "IMAGE"}
    kind = f"{_PACKAGE}.GenerationConfig.Modality"
    asked = {node.one_of(("TEXT", "IMAGE", "AUDIO"), kind) for node in config["responseModalities"].items()}
    if "AUDIO" in asked:
        raise bad_argument("The requested combination of response modalities (AUDIO) is not supported by the model.")
    return asked or {"TEXT", "IMAGE"}


def _thinking(model: ServedModel, config: Fields) -> tuple[str | None, bool]:
    if "thinkingConfig" not in config:
        return model.family.thinking.default, False
    fields = config["thinkingConfig"].fields(("thinkingLevel", "includeThoughts", "thinkingBudget"))
    show = fields["includeThoughts"].flag() if "includeThoughts" in fields else False
    if "thinkingLevel" not in fields:
        return model.family.thinking.default, show and model.thinks
    level = fields["thinkingLevel"].text().lower()
    if not model.thinks:
        raise bad_argument("Thinking level is not supported for this model.")
    if level not in model.family.thinking.levels:
        raise fields["thinkingLevel"].wrong(f"{_PACKAGE}.ThinkingConfig.ThinkingLevel")
    return level, show


TURN = ("role", "parts")
PART = ("text", "inlineData", "fileData", "thought", "thoughtSignature", "partMetadata", "mediaResolution")
DATA = ("text", "inlineData", "fileData")
MIMES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")
_HEIF = {"image/heic", "image/heif"}


@dataclass(slots=True)
class Said:
    """What the user's turns hold, in their order."""

    texts: list[str] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)


def decode(node: Node) -> bytes:
    """Decode Base64 of either alphabet; a `data:` prefix, white space or a cut is refused, as the real API does."""
    text = node.text()
    try:
        raw = text.encode("ascii")
        return pybase64.b64decode(raw, altchars=b"-_" if b"-" in raw or b"_" in raw else None, validate=True)
    except ValueError:  # UnicodeEncodeError and binascii.Error are both of this kind
        raise bad_argument(
            f"Invalid value at '{node.path}' (TYPE_BYTES), Base64 decoding failed for \"{text[:60]}\""
        ) from None


def _inline(node: Node) -> bytes:
    fields = node.fields(("mimeType", "data", "displayName"))
    if "mimeType" not in fields or "data" not in fields:
        raise bad_argument(f"{node.path}: both mime_type and data must be set.")
    mime, data = fields["mimeType"].text(), decode(fields["data"])
    if mime not in MIMES:
        raise bad_argument(f"Unsupported MIME type: {mime}")
    found = sniff(data)[0]
    if found not in (*MIMES, "image/gif"):
        raise bad_argument("Provided image is not valid")
    if found != mime and {found, mime} != _HEIF:
        raise bad_argument(f"Unhandled generated data mime type: {found}")
    return data


def _part(node: Node, said: Said, *, is_users: bool) -> None:
    fields = node.fields(PART)
    data = [name for name in DATA if name in fields]
    if len(data) > 1:
        raise bad_argument(
            f"Invalid value at '{node.path}' (oneof), oneof field 'data' is already set. Cannot set '{data[1]}'"
        )
    if not data or (data == ["text"] and not fields["text"].text()):
        raise bad_argument(f"{node.path}.data: required oneof field 'data' must have one initialized field")
    if data == ["fileData"]:
        raise bad_argument("Cannot fetch content from the provided URL.")
    if data == ["text"] and is_users:
        said.texts.append(fields["text"].text())
    elif data == ["inlineData"]:
        said.images.append(_inline(fields["inlineData"]))


def _read(contents: Node, system: Node | None) -> tuple[Said, str]:
    """Return what the turns say and the system instruction; pictures of earlier model turns count as inputs too."""
    said, system_said = Said(), Said()
    for turn in contents.items():
        fields = turn.fields(TURN)
        role = fields["role"].text() if "role" in fields else "user"
        if role not in ("user", "model"):
            raise bad_argument("Please use a valid role: user, model.")
        if "parts" not in fields or not fields["parts"].items():
            raise bad_argument(f"* GenerateContentRequest.{turn.path}.parts: {turn.path}.parts must not be empty.")
        for part in fields["parts"].items():
            _part(part, said, is_users=role == "user")
    if system is not None:
        fields = system.fields(TURN)
        for part in fields["parts"].items() if "parts" in fields else ():
            _part(part, system_said, is_users=True)
    return said, "\n".join(system_said.texts)
