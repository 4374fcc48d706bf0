"""What a 200 says, whatever its shape: a tolerant walk over the tree of an answer.

In: parsed JSON of any shape. Out: `Told`, plain facts. Both casings are read; null, missing and strange things are
passed over and remembered as `is_odd`. It refuses to judge.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.model import Usage

_TOKENS_LIMIT = 10**9  # no answer has more; a larger number is a mistake
LEAST_IMAGE_TOKENS = 500  # the smallest image there is takes 747; a smaller count is not that of an image
_ECHOES = frozenset({"contents", "request", "systemInstruction", "groundingMetadata", "citationMetadata", "error"})
_LINKS = frozenset({"url", "uri", "image_url", "imageUrl", "imageUri", "fileUri", "file_uri"})


class Inline(NamedTuple):
    """One inline image, still as text."""

    mime: str
    data: str
    is_thought: bool


@dataclass(slots=True)
class Told:
    """The facts of one answer."""

    images: list[Inline] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    finish: str = ""
    finish_message: str = ""
    block: str = ""
    usage: Mapping[str, object] = field(default_factory=dict)
    model_version: str = ""
    response_id: str = ""
    error: object = None
    is_odd: bool = False  # something had another type than the API gives it


def read(tree: object) -> Told:
    """Collect the facts. A list at the top (what streaming endpoints send) counts as one answer in pieces."""
    told = Told()
    roots = tree if isinstance(tree, list) else [tree]
    told.is_odd = not roots or not all(isinstance(root, Mapping) for root in roots)
    for root in roots:
        if isinstance(root, Mapping):
            _read_root(told, root)
    return told


def strings(tree: object) -> Iterator[str]:
    """Yield every text of an answer of any shape; not its thoughts, and nothing of the request."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, list):
            pending += reversed(node)
        elif isinstance(node, Mapping) and node.get("thought") is not True:
            pending += [value for name, value in reversed(list(node.items())) if name not in _ECHOES]


def links(tree: object) -> Iterator[str]:
    """Yield every text of an answer of any shape whose name says that it is an address."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += reversed(node)
        elif isinstance(node, Mapping):
            pending += [value for name, value in reversed(list(node.items())) if name not in _ECHOES]
            named = (value for name, value in node.items() if name in _LINKS)
            yield from (value for value in named if isinstance(value, str) and value.startswith("http"))


def usage(told: Told) -> Usage | None:
    """Return the tokens the answer accounts for; None when it does not, or not for the image it brought.

    `candidatesTokenCount` includes the image's tokens; of a refusal it repeats the thoughts.
    """
    has_image = bool(told.images)
    prompt = _count(told.usage, "promptTokenCount", "prompt_token_count")
    out = _count(told.usage, "candidatesTokenCount", "candidates_token_count")
    thoughts = _count(told.usage, "thoughtsTokenCount", "thoughts_token_count")
    details = _get(told.usage, "candidatesTokensDetails", "candidates_tokens_details")
    if isinstance(details, list):
        rows = [row for row in details if isinstance(row, Mapping) and row.get("modality") == "IMAGE"]
        images = sum(_count(row, "tokenCount", "token_count") for row in rows)
    else:
        images = out if has_image else 0  # unaccounted: all of it at the image's price
    if not told.usage or (has_image and images < LEAST_IMAGE_TOKENS):
        return None
    text = max(out - images, 0) + thoughts if has_image else max(out - images, thoughts)
    return Usage(prompt_tokens=prompt, image_tokens=images, text_tokens=text)


def service_tier(told: Told) -> str:
    """Return the tier that was served, as the answer says it; empty when it does not."""
    return _text(told.usage, "serviceTier", "service_tier")


def _read_root(told: Told, root: Mapping[str, object]) -> None:
    told.error = told.error or root.get("error")
    feedback = _get(root, "promptFeedback", "prompt_feedback")
    told.block = told.block or _text(feedback, "blockReason", "block_reason")
    told.finish_message = told.finish_message or _text(feedback, "blockReasonMessage", "block_reason_message")
    counted = _get(root, "usageMetadata", "usage_metadata")
    told.usage = counted if isinstance(counted, Mapping) and counted else told.usage
    told.model_version = _text(root, "modelVersion", "model_version") or told.model_version
    told.response_id = _text(root, "responseId", "response_id") or told.response_id
    for candidate in _items(told, root.get("candidates")):
        told.finish = _text(candidate, "finishReason", "finish_reason") or told.finish
        told.finish_message = _text(candidate, "finishMessage", "finish_message") or told.finish_message
        for content in _items(told, candidate.get("content")):
            for part in _items(told, content.get("parts")):
                _read_part(told, part)


def _read_part(told: Told, part: Mapping[str, object]) -> None:
    for inline in _items(told, _get(part, "inlineData", "inline_data")):
        data = inline.get("data")
        if isinstance(data, str) and data.strip():
            mime = _text(inline, "mimeType", "mime_type")
            told.images.append(Inline(mime, data, part.get("thought") is True))
        told.is_odd |= data is not None and not isinstance(data, str)
    text = part.get("text")
    if isinstance(text, str) and text.strip() and part.get("thought") is not True:
        told.texts.append(text)
    uri = _text(_get(part, "fileData", "file_data"), "fileUri", "file_uri")
    if uri:
        told.uris.append(uri)


def _items(told: Told, node: object) -> Iterable[Mapping[str, object]]:
    """Yield what should be a list of objects, or one object; note anything else."""
    found = node if isinstance(node, list) else [] if node is None else [node]
    told.is_odd |= not all(item is None or isinstance(item, Mapping) for item in found)
    return [item for item in found if isinstance(item, Mapping)]


def _get(node: Mapping[str, object], *names: str) -> object:
    return next((node[name] for name in names if node.get(name) is not None), None)


def _text(node: object, *names: str) -> str:
    value = _get(node, *names) if isinstance(node, Mapping) else None
    return value if isinstance(value, str) else ""


def _count(node: Mapping[str, object], *names: str) -> int:
    value = _get(node, *names)
    return int(value) if isinstance(value, int | float) and 0 <= value <= _TOKENS_LIMIT else 0
