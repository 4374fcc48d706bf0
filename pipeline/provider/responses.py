"""Parses one whole HTTP answer: an image, or the reason why there is none.

A tolerant walk over the tree collects plain facts (`AnswerFacts`): both casings are read; null, missing and strange
things are passed over and marked `is_odd`. From the facts follows an `Answer` or a `Failure`, never an exception. Pure
computation, made to run in a thread.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

from pipeline.imaging.formats import UNKNOWN, BrokenImageError, inspect, sniff
from pipeline.model import Answer, Billed, Failure, Fault, Image, Reply, Task, Tier, Usage
from pipeline.provider import decoding, errors
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.decoding import Document, NotJsonError, decode_answer
from pipeline.provider.redact import Redactor
from pipeline.settings import Limits

_TOKENS_LIMIT = 10**9  # no answer has more; a larger number is a mistake
LEAST_IMAGE_TOKENS = 500  # the smallest image there is takes 747; a smaller count is not that of an image
_ECHOES = frozenset({"contents", "request", "systemInstruction", "groundingMetadata", "citationMetadata", "error"})
_LINKS = frozenset({"url", "uri", "image_url", "imageUrl", "imageUri", "fileUri", "file_uri"})


class Inline(NamedTuple):
    """One inline image, still as text."""

    mime: str
    data: str
    is_thought: bool


_UNLABELLED = Inline("", "", False)


@dataclass(slots=True)
class AnswerFacts:
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


def read_answer(tree: object) -> AnswerFacts:
    """Collect the facts. A list at the top (what streaming endpoints send) counts as one answer in pieces."""
    facts = AnswerFacts()
    roots = tree if isinstance(tree, list) else [tree]
    facts.is_odd = not roots or not all(isinstance(root, Mapping) for root in roots)
    for root in roots:
        if isinstance(root, Mapping):
            _read_root(facts, root)
    return facts


def _usage(reply: Reply, facts: AnswerFacts) -> Usage | None:
    """Return the tokens the answer accounts for; None when it does not, or not for the image it brought.

    `candidatesTokenCount` includes the image's tokens; of a refusal it repeats the thoughts. Some count thoughts in
    the total alone (https://github.com/simonw/llm-gemini/issues/75). Where no field says which tier was served, it was
    the standard one; https://ai.google.dev/gemini-api/docs/flex-inference names the header.
    """
    has_image = bool(facts.images)
    prompt = _count(facts.usage, "promptTokenCount")
    out = _count(facts.usage, "candidatesTokenCount")
    thoughts = _count(facts.usage, "thoughtsTokenCount")
    details = _get(facts.usage, "candidatesTokensDetails")
    if isinstance(details, list):
        rows = [row for row in details if isinstance(row, Mapping) and row.get("modality") == "IMAGE"]
        images = sum(_count(row, "tokenCount") for row in rows)
    else:
        images = out if has_image else 0  # unaccounted: all of it at the image's price
    if not facts.usage or (has_image and images < LEAST_IMAGE_TOKENS):
        return None
    text = max(out - images, 0) + thoughts if has_image else max(out - images, thoughts)
    text = max(text, _count(facts.usage, "totalTokenCount") - prompt - images)
    served = _text(facts.usage, "serviceTier") or dict(reply.headers).get("x-gemini-service-tier", "")
    tier = Tier.FLEX if served.lower() == Tier.FLEX else Tier.STANDARD
    return Usage(prompt_tokens=prompt, image_tokens=images, text_tokens=text, tier=tier)


def _read_root(facts: AnswerFacts, root: Mapping[str, object]) -> None:
    facts.error = facts.error or root.get("error")
    feedback = _get(root, "promptFeedback")
    facts.block = facts.block or _text(feedback, "blockReason")
    facts.finish_message = facts.finish_message or _text(feedback, "blockReasonMessage")
    counted = _get(root, "usageMetadata")
    facts.usage = counted if isinstance(counted, Mapping) and counted else facts.usage
    facts.model_version = _text(root, "modelVersion") or facts.model_version
    facts.response_id = _text(root, "responseId") or facts.response_id
    for candidate in _items(facts, root.get("candidates")):
        facts.finish = _text(candidate, "finishReason") or facts.finish
        facts.finish_message = _text(candidate, "finishMessage") or facts.finish_message
        for content in _items(facts, candidate.get("content")):
            for part in _items(facts, content.get("parts")):
                _read_part(facts, part)


def _read_part(facts: AnswerFacts, part: Mapping[str, object]) -> None:
    is_thought = part.get("thought") is True
    for inline in _items(facts, _get(part, "inlineData")):
        data = inline.get("data")
        if isinstance(data, str) and data.strip():
            facts.images.append(Inline(_text(inline, "mimeType"), data, is_thought))
        facts.is_odd |= data is not None and not isinstance(data, str)
    text = part.get("text")
    if isinstance(text, str) and text.strip() and not is_thought:
        facts.texts.append(text)
    if uri := _text(_get(part, "fileData"), "fileUri"):
        facts.uris.append(uri)


def _items(facts: AnswerFacts, node: object) -> Iterable[Mapping[str, object]]:
    """Yield what should be a list of objects, or one object; note anything else."""
    found = node if isinstance(node, list) else [] if node is None else [node]
    facts.is_odd |= not all(item is None or isinstance(item, Mapping) for item in found)
    return [item for item in found if isinstance(item, Mapping)]


def _get(node: object, name: str) -> object:
    """Return a field by its name in camelCase or snake_case; None where there is neither."""
    if not isinstance(node, Mapping):
        return None
    value = node.get(name)
    return node.get(_snake_case(name)) if value is None else value


@cache
def _snake_case(name: str) -> str:
    return re.sub("[A-Z]", r"_\g<0>", name).lower()


def _text(node: object, name: str) -> str:
    value = _get(node, name)
    return value if isinstance(value, str) else ""


def _count(node: object, name: str) -> int:
    value = _get(node, name)
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:  # as protobuf writes 64 bits
        value = int(value)
    return int(value) if isinstance(value, int | float) and 0 <= value <= _TOKENS_LIMIT else 0


def _strings(tree: object, *, with_thoughts: bool = False) -> Iterator[tuple[str, str]]:
    """Yield every text of an answer of any shape, with the name it stands under; nothing of the request."""
    pending: list[tuple[str, object]] = [("", tree)]
    while pending:
        name, node = pending.pop()
        if isinstance(node, str):
            yield name, node
        elif isinstance(node, list):
            pending += [(name, item) for item in reversed(node)]
        elif isinstance(node, Mapping) and (with_thoughts or node.get("thought") is not True):
            pending += [item for item in reversed(list(node.items())) if item[0] not in _ECHOES]


_STRUCTURED = re.compile(rb"[\xef\xbb\xbf\s]*(?:[<{[]|(?:data|event|id|retry)?:\s*[{[])")  # a page, JSON or events
_TINY = 12  # bytes; nothing this short is an image, so it counts as none
_KEPT_TEXT = 600  # characters of the model's words


@dataclass(frozen=True, slots=True)
class AnswerReader:
    """Judges answers. `clock` is asked only when a server names a date and not its own time."""

    redactor: Redactor
    catalogue: Catalogue
    most_bytes: int = Limits().max_body_bytes
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        """Judge one answer; whatever is strange in it ends as a `Failure` that keeps its body."""
        judged = self._read(reply, task)
        return judged if reply.cut is None or isinstance(judged, Answer) else reply.cut

    def _read(self, reply: Reply, task: Task) -> Answer | Failure:
        try:
            body = decoding.unpacked(reply.body, self.most_bytes + 1)
            if 200 <= reply.status < 300 and len(body) > self.most_bytes:
                return _Reading(self, reply, task).broken(f"an answer of more than {self.most_bytes} bytes, unpacked")
            reply = replace(reply, body=body)
            judged = _Reading(self, reply, task).judged()
            return judged if isinstance(judged, Answer) else _shed(judged, task)
        except Exception as error:  # seen by whoever opens `rejected/`: what was paid for must not be lost
            reason = f"the answer could not be read: {type(error).__name__}: {error}"
            return _Reading(self, reply, task).broken(reason)


@dataclass(slots=True)
class _Reading:
    """One answer while it is judged."""

    reader: AnswerReader
    reply: Reply
    task: Task
    document: Document = field(default_factory=lambda: Document(None, []))
    facts: AnswerFacts = field(default_factory=AnswerFacts)

    def judged(self) -> Answer | Failure:
        """Return the image, or the reason why there is none."""
        if not 200 <= self.reply.status < 300:
            return self._error_answer(self.reply.status, errors.parse_error(bytes(self.reply.body)))
        try:
            self.document = decode_answer(self.reply.body)
        except NotJsonError as error:
            return self._not_json(str(error))
        self.facts = read_answer(self.document.tree)
        picked = _pick(self.facts)
        if picked is None:
            return self._in_text() or self._without_image()
        result = self._image(picked)
        if isinstance(result, Failure) and result.fault is not Fault.REFUSED:
            return self._in_text() or result
        return result

    def _error_answer(self, status: int, error: errors.ServerError) -> Failure:
        redactor, reply = self.reader.redactor, self.reply
        failure = errors.failure_of_answer(
            status,
            reply.headers,
            error,
            redactor=redactor,
            now=self.reader.clock(),
            is_first=reply.is_first,
            seconds=reply.seconds,
        )
        failure = replace(failure, usage=_usage(reply, self.facts))  # which an error inside a 200 may account for
        if failure.fault is not Fault.OTHER:
            return failure
        return replace(failure, body=redactor.body(bytes(reply.body)))

    def _not_json(self, problem: str) -> Answer | Failure:
        body, status = bytes(self.reply.body), self.reply.status
        data = _bare_image(body)
        if data is not None:
            return self._answer(_UNLABELLED, data)
        if not body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            return self.broken(f"HTTP {status} with {len(body)} bytes that are not JSON: {problem}")
        page = errors.page_title(body)
        if self.reply.is_first:
            reason = f"HTTP {status} with {page} instead of an answer; is base_url right?"
            return self._failure(Fault.ADDRESS, Billed.NO, reason, code="page")
        return self.broken(f"HTTP {status} with {page} instead of an answer", ".html")

    def _image(self, picked: Inline) -> Answer | Failure:
        try:
            data = decoding.decoded_again(self.document.blob(picked.data))
        except ValueError as error:
            if links := decoding.links_in(picked.data):
                return self._link(links)
            return self.broken(f"an image that is not Base64: {error}")
        if len(data) < _TINY:
            return self._without_image()
        return self._answer(picked, data)

    def _in_text(self) -> Answer | None:
        """Return the last whole image that stands in a text of the answer; a refused answer has none."""
        facts = self.facts
        if facts.block or facts.finish in errors.REFUSALS:
            return None
        alone = [data for text in facts.texts for data in decoding.images_in(text)]
        texts = ["".join(facts.texts), *_texts(self.document)]  # one image may be split over several parts
        found = next((images for images in (alone, *map(decoding.images_in, texts)) if images), None)
        if found is None:
            return None
        facts.images.append(_UNLABELLED)
        result = self._answer(_UNLABELLED, found[-1])
        return result if isinstance(result, Answer) else None

    def _answer(self, picked: Inline, data: bytes) -> Answer | Failure:
        try:
            image = inspect(data)
        except BrokenImageError as flaw:
            return self.broken(f"{flaw}", sniff(data)[1], kept=data)
        text = self.reader.redactor.text
        doubts = tuple(text(doubt, 200) for doubt in self._doubts(picked, image))
        return Answer(
            image=image,
            usage=_usage(self.reply, self.facts),
            model_version=text(self.facts.model_version, 80) or None,
            response_id=text(self.facts.response_id, 80) or None,
            request_id=errors.request_id(self.reply.headers, self.reader.redactor),
            notes=tuple(text(habit, 200) for habit in self._habits(picked, image.mime)) + doubts,
            doubts=doubts,
        )

    def _habits(self, picked: Inline, mime: str) -> Iterator[str]:
        """Say what some models do as a rule."""
        if len(self.facts.images) > 1:
            yield f"{len(self.facts.images)} images came; the last one that is not a draft is kept"
        if picked.mime and picked.mime.lower().replace("image/jpg", "image/jpeg") != mime:
            yield f"labelled {picked.mime}, its bytes are {mime}"

    def _doubts(self, picked: Inline, image: Image) -> Iterator[str]:
        """Say what is not as it was asked for."""
        if self.reply.status != 200:
            yield f"it came with HTTP {self.reply.status}"
        if self.reply.cut is not None:
            yield "the end of its answer did not come"
        if picked.is_thought:
            yield "only a draft came; it is kept"
        if self.facts.finish not in ("", "STOP", "FINISH_REASON_UNSPECIFIED"):
            yield f"it came with finishReason {self.facts.finish}"
        task = self.task
        wanted = self.reader.catalogue.pixels(task.model, task.size, task.aspect_ratio)
        if wanted is None or (task.aspect_ratio is None and task.images):  # then it follows the input image
            return
        shape, area = image.width * wanted[1] / (image.height * wanted[0]), image.width * image.height
        is_same_shape = task.aspect_ratio is None or abs(shape - 1) < 0.05
        is_same_area = task.size is None or 0.6 < area / (wanted[0] * wanted[1]) < 1.7
        if not (is_same_shape and is_same_area):
            yield f"asked for {wanted[0]}x{wanted[1]} pixels, got {image.width}x{image.height}"

    def _without_image(self) -> Failure:
        reply, facts = self.reply, self.facts
        error = errors.from_tree(self.document.tree)
        if facts.error:
            return self._error_answer(errors.status_inside(error) or reply.status, error)
        words = " ".join(part for part in (facts.finish_message, *facts.texts) if part)[:_KEPT_TEXT]
        said = f": {words}" if words else ""
        if limited := next((name for name in (facts.finish, facts.block) if errors.is_closed_account(name)), None):
            billed = Billed.YES if facts.usage else Billed.NO
            return self._failure(
                Fault.ACCOUNT, billed, f"the account is limited or disabled ({limited}){said}", code=limited
            )
        if facts.block:
            reason = f"the prompt was blocked ({facts.block}){said}"
            return self._failure(Fault.REFUSED, Billed.YES, reason, code=facts.block)
        if facts.finish in errors.REFUSALS:
            return self._failure(Fault.REFUSED, Billed.YES, f"refused ({facts.finish}){said}", code=facts.finish)
        if reply.status != 200:
            return self._failure(Fault.OTHER, Billed.MAYBE, f"HTTP {reply.status} without an image{said}")
        links = [*facts.uris, *(link for text in facts.texts for link in decoding.links_in(text))]
        named = ((name, text) for name, text in _strings(self.document.tree, with_thoughts=True) if name in _LINKS)
        if links := [*links, *(text for _, text in named if text.startswith("http"))]:
            return self._link(links)
        if facts.is_odd:
            return self.broken("an answer that is not in the API's format")
        if error.message and not facts.finish and not facts.usage:  # {"code": 429, "message": "slow down"}
            return self._error_answer(errors.status_inside(error) or reply.status, error)
        finish = facts.finish or "empty"
        return self._failure(
            Fault.NO_IMAGE, Billed.YES, f"no image came ({finish}){said}", code=finish, body=reply.body
        )

    def _link(self, links: list[str]) -> Failure:
        reason = f"the image came as an address, which is not fetched: {links[-1]}"
        return self._failure(Fault.LINK, Billed.YES, reason, code="link", body=self.reply.body)

    def broken(self, reason: str, suffix: str = ".json", *, kept: bytes | None = None) -> Failure:
        """Return the failure of an answer that is kept: its body, or `kept` alone."""
        fault, billed = (Fault.BROKEN, Billed.YES) if self.reply.status == 200 else (Fault.OTHER, Billed.MAYBE)
        failure = self._failure(fault, billed, reason, body=self.reply.body if kept is None else kept)
        return replace(failure, suffix=suffix)

    def _failure(
        self,
        fault: Fault,
        billed: Billed,
        reason: str,
        *,
        code: str | None = None,
        body: bytes | bytearray | None = None,  # what is kept
    ) -> Failure:
        redactor = self.reader.redactor
        return Failure(
            fault=fault,
            billed=billed,
            reason=redactor.text(reason),
            status=self.reply.status,
            code=None if code is None else redactor.text(code, 80),
            request_id=errors.request_id(self.reply.headers, redactor),
            usage=_usage(self.reply, self.facts),
            body=None if body is None else redactor.body(bytes(body)),
        )


def _shed(failure: Failure, task: Task) -> Failure:
    """Return a flex request's 503 as what it is: there was no room, and nothing is out of order."""
    is_shed = task.tier is Tier.FLEX and failure.status == 503 and failure.fault is Fault.OUTAGE
    return replace(failure, fault=Fault.THROTTLED, billed=Billed.NO) if is_shed else failure


def _pick(facts: AnswerFacts) -> Inline | None:
    """Return the last image that is not a draft, else the last draft; a refused answer's drafts are not images."""
    finals = [image for image in facts.images if not image.is_thought]
    if finals:
        return finals[-1]
    is_refused = bool(facts.block) or facts.finish in errors.REFUSALS
    return facts.images[-1] if facts.images and not is_refused else None


def _texts(document: Document) -> Iterator[str]:
    for _, text in _strings(document.tree):
        try:
            yield document.text(text)
        except ValueError:  # escapes that are not JSON's
            continue


def _bare_image(body: bytes) -> bytes | None:
    """Return the image that a body is, holds in a text, or is the Base64 of; not that of cut JSON, nor of a page."""
    data = decoding.decoded_again(body)
    if sniff(data) != UNKNOWN:
        return data
    if _STRUCTURED.match(body):
        return None
    found = decoding.images_in(body.decode("utf-8", "replace"))
    return found[-1] if found else None
