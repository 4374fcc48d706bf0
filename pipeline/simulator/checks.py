"""The checks of a whole request, in the order in which gateway and model owner make them.

In: the model's name and the body's bytes. Out: an `Ask`, or `TurnedAway` with the very answer that the real API gives.
It refuses to know keys, limits and faults.
"""

from collections.abc import Mapping

import msgspec

from pipeline.simulator import contents
from pipeline.simulator.asks import Ask
from pipeline.simulator.envelopes import TurnedAway, bad_argument, comet, google
from pipeline.simulator.models import SERVED, Model
from pipeline.simulator.tree import Node

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
THRESHOLDS = ("BLOCK_LOW_AND_ABOVE", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_ONLY_HIGH", "BLOCK_NONE", "OFF")
_PACKAGE = "type.googleapis.com/google.ai.generativelanguage.v1beta"
_HOTTEST = 2.0
INTERNAL = (
    "An internal error has occurred. Please retry or report in "
    "https://developers.generativeai.google/guide/troubleshooting"
)

Fields = Mapping[str, Node]


def find_model(name: str, request_id: str) -> Model:
    """Return a served model; an unknown name gets the gateway's ambiguous 503."""
    model = SERVED.get(name)
    if model is None:
        message = f"no available channel for group default and model {name} (distributor)"
        raise TurnedAway(comet(503, message, request_id, code="model_not_found"))
    return model


def check(model: Model, body: bytes, request_id: str) -> Ask:
    """Read one `generateContent` body for `model`."""
    root = _root(body, request_id)
    fields = Node(root).fields(ROOT)
    said, system = contents.read(fields["contents"], fields.get("systemInstruction"))
    if len(said.images) > model.max_images:
        raise bad_argument(f"The request has {len(said.images)} images; {model.name} takes {model.max_images} at most.")
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
    )


def _root(body: bytes, request_id: str) -> dict[str, object]:
    try:
        root = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TurnedAway(comet(500, f"invalid JSON: {error}", request_id, code="invalid_request")) from None
    if not isinstance(root, dict) or not root.get("contents"):
        raise TurnedAway(comet(500, "contents is required", request_id, code="invalid_request"))
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


def _image_config(model: Model, config: Fields) -> tuple[str | None, str | None]:
    if "imageConfig" not in config:
        return None, None
    fields = config["imageConfig"].fields(("aspectRatio", "imageSize"))
    ratio, size = fields.get("aspectRatio"), fields.get("imageSize")
    if size is not None and not model.takes_image_size:
        raise TurnedAway(google(500, "INTERNAL", INTERNAL))
    return (
        None if ratio is None else ratio.one_of(model.ratios, "TYPE_STRING"),
        None if size is None else size.one_of(model.sizes, "TYPE_STRING"),
    )


def _modalities(config: Fields) -> set[str]:
    if "responseModalities" not in config:
        return {"TEXT", "IMAGE"}
    kind = f"{_PACKAGE}.GenerationConfig.Modality"
    asked = {node.one_of(("TEXT", "IMAGE", "AUDIO"), kind) for node in config["responseModalities"].items()}
    if "AUDIO" in asked:
        raise bad_argument("The requested combination of response modalities (AUDIO) is not supported by the model.")
    return asked or {"TEXT", "IMAGE"}


def _thinking(model: Model, config: Fields) -> tuple[str | None, bool]:
    if "thinkingConfig" not in config:
        return model.default_thinking, False
    fields = config["thinkingConfig"].fields(("thinkingLevel", "includeThoughts", "thinkingBudget"))
    show = fields["includeThoughts"].flag() if "includeThoughts" in fields else False
    if "thinkingLevel" not in fields:
        return model.default_thinking, show and model.thinks
    level = fields["thinkingLevel"].text().lower()
    if not model.thinks:
        raise bad_argument("Thinking level is not supported for this model.")
    if level not in model.thinking:
        raise fields["thinkingLevel"].wrong(f"{_PACKAGE}.ThinkingConfig.ThinkingLevel")
    return level, show
