"""Parses one whole HTTP answer: an image, or the reason why there is none.

A tolerant walk over the tree collects plain facts (`AnswerFacts`): both casings are read; null, missing and strange
things are passed over and marked `is_odd`. From the facts follows an `Answer` or a `Failure`, never an exception. Pure
computation, made to run in a thread.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from pipeline.imaging.formats import UNKNOWN, BrokenImageError, inspect, sniff
from pipeline.model import Answer, Billed, Failure, Fault, Reply, Task, Tier, Usage
from pipeline.provider import decoding, errors
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.decoding import Document, NotJsonError, decode_answer
from pipeline.provider.redact import Redactor

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


def links_in(tree: object) -> Iterator[str]:
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


def usage_of(facts: AnswerFacts) -> Usage | None:
    """Return the tokens the answer accounts for; None when it does not, or not for the image it brought.

    `candidatesTokenCount` includes the image's tokens; of a refusal it repeats the thoughts.
    """
    has_image = bool(facts.images)
    prompt = _count(facts.usage, "promptTokenCount", "prompt_token_count")
    out = _count(facts.usage, "candidatesTokenCount", "candidates_token_count")
    thoughts = _count(facts.usage, "thoughtsTokenCount", "thoughts_token_count")
    details = _get(facts.usage, "candidatesTokensDetails", "candidates_tokens_details")
    if isinstance(details, list):
        rows = [row for row in details if isinstance(row, Mapping) and row.get("modality") == "IMAGE"]
        images = sum(_count(row, "tokenCount", "token_count") for row in rows)
    else:
        images = out if has_image else 0  # unaccounted: all of it at the image's price
    if not facts.usage or (has_image and images < LEAST_IMAGE_TOKENS):
        return None
    text = max(out - images, 0) + thoughts if has_image else max(out - images, thoughts)
    return Usage(prompt_tokens=prompt, image_tokens=images, text_tokens=text)


def service_tier(facts: AnswerFacts) -> str:
    """Return the tier that was served, as the answer says it; empty when it does not."""
    return _text(facts.usage, "serviceTier", "service_tier")


def _read_root(facts: AnswerFacts, root: Mapping[str, object]) -> None:
    facts.error = facts.error or root.get("error")
    feedback = _get(root, "promptFeedback", "prompt_feedback")
    facts.block = facts.block or _text(feedback, "blockReason", "block_reason")
    facts.finish_message = facts.finish_message or _text(feedback, "blockReasonMessage", "block_reason_message")
    counted = _get(root, "usageMetadata", "usage_metadata")
    facts.usage = counted if isinstance(counted, Mapping) and counted else facts.usage
    facts.model_version = _text(root, "modelVersion", "model_version") or facts.model_version
    facts.response_id = _text(root, "responseId", "response_id") or facts.response_id
    for candidate in _items(facts, root.get("candidates")):
        facts.finish = _text(candidate, "finishReason", "finish_reason") or facts.finish
        facts.finish_message = _text(candidate, "finishMessage", "finish_message") or facts.finish_message
        for content in _items(facts, candidate.get("content")):
            for part in _items(facts, content.get("parts")):
                _read_part(facts, part)


def _read_part(facts: AnswerFacts, part: Mapping[str, object]) -> None:
    for inline in _items(facts, _get(part, "inlineData", "inline_data")):
        data = inline.get("data")
        if isinstance(data, str) and data.strip():
            mime = _text(inline, "mimeType", "mime_type")
            facts.images.append(Inline(mime, data, part.get("thought") is True))
        facts.is_odd |= data is not None and not isinstance(data, str)
    text = part.get("text")
    if isinstance(text, str) and text.strip() and part.get("thought") is not True:
        facts.texts.append(text)
    uri = _text(_get(part, "fileData", "file_data"), "fileUri", "file_uri")
    if uri:
        facts.uris.append(uri)


def _items(facts: AnswerFacts, node: object) -> Iterable[Mapping[str, object]]:
    """Yield what should be a list of objects, or one object; note anything else."""
    found = node if isinstance(node, list) else [] if node is None else [node]
    facts.is_odd |= not all(item is None or isinstance(item, Mapping) for item in found)
    return [item for item in found if isinstance(item, Mapping)]


def _get(node: Mapping[str, object], *names: str) -> object:
    return next((node[name] for name in names if node.get(name) is not None), None)


def _text(node: object, *names: str) -> str:
    value = _get(node, *names) if isinstance(node, Mapping) else None
    return value if isinstance(value, str) else ""


def _count(node: Mapping[str, object], *names: str) -> int:
    value = _get(node, *names)
    return int(value) if isinstance(value, int | float) and 0 <= value <= _TOKENS_LIMIT else 0


_STRUCTURED = re.compile(rb"[\xef\xbb\xbf\s]*(?:[<{[]|(?:data|event|id|retry)?:\s*[{[])")  # a page, JSON or events
_TINY = 12  # bytes; nothing this short is an image, so it counts as none
_KEPT_TEXT = 600  # characters of the model's words


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class AnswerReader:
    """Judges answers. `clock` is asked only when a server names a date and not its own time."""

    redactor: Redactor
    catalogue: Catalogue
    clock: Callable[[], datetime] = _utc_now

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        """Judge one answer; whatever is strange in it ends as a `Failure` that keeps its body."""
        try:
            judged = self._judge(reply, task)
            return judged if isinstance(judged, Answer) else _shed(judged, task)
        except Exception as error:  # seen by whoever opens `rejected/`: what was paid for must not be lost
            return self._broken(reply, f"the answer could not be read: {type(error).__name__}: {error}")

    def _judge(self, reply: Reply, task: Task) -> Answer | Failure:
        if not 200 <= reply.status < 300:
            return self._refusal(reply, reply.status, errors.parse_error(bytes(reply.body)))
        try:
            document = decode_answer(reply.body)
        except NotJsonError as error:
            return self._not_json(reply, task, str(error))
        facts = read_answer(document.tree)
        picked = _pick(facts)
        if picked is None:
            return self._in_text(reply, task, document, facts) or self._without_image(reply, document, facts)
        result = self._image(reply, task, document, facts, picked)
        if isinstance(result, Failure) and result.fault is not Fault.REFUSED:
            return self._in_text(reply, task, document, facts) or result
        return result

    def _refusal(self, reply: Reply, status: int, error: errors.ServerError) -> Failure:
        failure = errors.failure_of_answer(
            status, reply.headers, error, redactor=self.redactor, now=self.clock(), is_first=reply.is_first
        )
        if failure.fault is not Fault.OTHER:
            return failure
        return replace(failure, body=self.redactor.body(bytes(reply.body)))

    def _not_json(self, reply: Reply, task: Task, problem: str) -> Answer | Failure:
        data = _bare_image(bytes(reply.body))
        if data is not None:
            return self._answer(reply, task, AnswerFacts(), Inline("", "", False), data)
        if not reply.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            cut = f"HTTP {reply.status} with {len(reply.body)} bytes that are not JSON: {problem}"
            return self._broken(reply, cut)
        page = errors.page_title(bytes(reply.body))
        if reply.is_first:
            reason = f"HTTP {reply.status} with {page} instead of an answer; is base_url right?"
            return self._failure(reply, Fault.ADDRESS, Billed.NO, reason, code="page")
        return self._broken(reply, f"HTTP {reply.status} with {page} instead of an answer", ".html")

    def _image(
        self, reply: Reply, task: Task, document: Document, facts: AnswerFacts, picked: Inline
    ) -> Answer | Failure:
        try:
            data = decoding.decoded_again(document.blob(picked.data))
        except ValueError as error:
            if links := decoding.links_in(picked.data):
                return self._link(reply, facts, links)
            return self._broken(reply, f"an image that is not Base64: {error}", facts=facts)
        if len(data) < _TINY:
            return self._without_image(reply, document, facts)
        return self._answer(reply, task, facts, picked, data)

    def _in_text(self, reply: Reply, task: Task, document: Document, facts: AnswerFacts) -> Answer | None:
        """Return the last whole image that stands in a text of the answer; a refused answer has none."""
        if facts.block or facts.finish in errors.REFUSALS:
            return None
        alone = [data for text in facts.texts for data in decoding.images_in(text)]
        texts = ["".join(facts.texts), *_texts(document)]  # one image may be split over several parts
        found = next((images for images in (alone, *map(decoding.images_in, texts)) if images), None)
        data = None if found is None else found[-1]
        if data is None:
            return None
        picked = Inline("", "", False)
        facts.images.append(picked)
        result = self._answer(reply, task, facts, picked, data)
        return result if isinstance(result, Answer) else None

    def _answer(self, reply: Reply, task: Task, facts: AnswerFacts, picked: Inline, data: bytes) -> Answer | Failure:
        try:
            image = inspect(data)
        except BrokenImageError as flaw:
            suffix = sniff(data)[1]
            return self._broken(reply, f"{flaw}", suffix, facts=facts, kept=data)
        doubts = tuple(self.redactor.text(doubt, 200) for doubt in self._doubts(facts, picked, reply.status))
        doubts += self._size_notes(task, image.width, image.height)
        return Answer(
            image=image,
            usage=_usage(reply, facts),
            model_version=self.redactor.text(facts.model_version, 80) or None,
            response_id=self.redactor.text(facts.response_id, 80) or None,
            request_id=errors.request_id(reply.headers, self.redactor),
            notes=tuple(self.redactor.text(habit, 200) for habit in self._habits(facts, picked, image.mime)) + doubts,
            doubts=doubts,
        )

    def _habits(self, facts: AnswerFacts, picked: Inline, mime: str) -> list[str]:
        """Say what some models do as a rule."""
        habits = []
        if len(facts.images) > 1:
            habits.append(f"{len(facts.images)} images came; the last one that is not a draft is kept")
        if picked.mime and picked.mime.lower().replace("image/jpg", "image/jpeg") != mime:
            habits.append(f"labelled {picked.mime}, its bytes are {mime}")
        return habits

    def _doubts(self, facts: AnswerFacts, picked: Inline, status: int) -> list[str]:
        doubts = []
        if status != 200:
            doubts.append(f"it came with HTTP {status}")
        if picked.is_thought:
            doubts.append("only a draft came; it is kept")
        if facts.finish not in ("", "STOP", "FINISH_REASON_UNSPECIFIED"):
            doubts.append(f"it came with finishReason {facts.finish}")
        return doubts

    def _size_notes(self, task: Task, width: int, height: int) -> tuple[str, ...]:
        wanted = self.catalogue.pixels(task.model, task.size, task.aspect_ratio)
        if wanted is None or (task.aspect_ratio is None and task.images):  # then it follows the input image
            return ()
        is_same_shape = task.aspect_ratio is None or abs(width * wanted[1] / (height * wanted[0]) - 1) < 0.05
        is_same_area = task.size is None or 0.6 < width * height / (wanted[0] * wanted[1]) < 1.7
        if is_same_shape and is_same_area:
            return ()
        return (f"asked for {wanted[0]}x{wanted[1]} pixels, got {width}x{height}",)

    def _without_image(self, reply: Reply, document: Document, facts: AnswerFacts) -> Failure:
        if facts.error is not None and facts.error != {}:
            error = errors.from_tree(document.tree)
            return self._refusal(reply, errors.status_inside(error) or reply.status, error)
        words = " ".join(part for part in (facts.finish_message, *facts.texts) if part)[:_KEPT_TEXT]
        said = f": {words}" if words else ""
        if limited := next((name for name in (facts.finish, facts.block) if errors.is_closed_account(name)), None):
            billed = Billed.YES if facts.usage else Billed.NO
            reason = f"the account is limited or disabled ({limited}){said}"
            return self._failure(reply, Fault.ACCOUNT, billed, reason, code=limited, facts=facts)
        if facts.block:
            return self._content(
                reply, Fault.REFUSED, facts, facts.block, f"the prompt was blocked ({facts.block}){said}"
            )
        if facts.finish in errors.REFUSALS:
            return self._content(reply, Fault.REFUSED, facts, facts.finish, f"refused ({facts.finish}){said}")
        if reply.status != 200:
            return self._failure(reply, Fault.OTHER, Billed.MAYBE, f"HTTP {reply.status} without an image{said}")
        named = (link for text in facts.texts for link in decoding.links_in(text))
        if links := [*facts.uris, *named, *links_in(document.tree)]:
            return self._link(reply, facts, links)
        if facts.is_odd:
            return self._broken(reply, "an answer that is not in the API's format", facts=facts)
        finish = facts.finish or "empty"
        return self._kept(reply, self._content(reply, Fault.NO_IMAGE, facts, finish, f"no image came ({finish}){said}"))

    def _link(self, reply: Reply, facts: AnswerFacts, links: list[str]) -> Failure:
        reason = f"the image came as an address, which is not fetched: {links[-1]}"
        return self._kept(reply, self._content(reply, Fault.LINK, facts, "link", reason))

    def _kept(self, reply: Reply, failure: Failure) -> Failure:
        return replace(failure, body=self.redactor.body(bytes(reply.body)))

    def _content(self, reply: Reply, fault: Fault, facts: AnswerFacts, code: str, reason: str) -> Failure:
        return self._failure(reply, fault, Billed.YES, reason, code=code, facts=facts)

    def _broken(
        self,
        reply: Reply,
        reason: str,
        suffix: str = ".json",
        *,
        facts: AnswerFacts | None = None,
        kept: bytes | None = None,
    ) -> Failure:
        is_success = reply.status == 200
        fault, billed = (Fault.BROKEN, Billed.YES) if is_success else (Fault.OTHER, Billed.MAYBE)
        failure = self._failure(reply, fault, billed, reason, facts=facts)
        return replace(failure, body=self.redactor.body(bytes(reply.body) if kept is None else kept), suffix=suffix)

    def _failure(
        self,
        reply: Reply,
        fault: Fault,
        billed: Billed,
        reason: str,
        *,
        code: str | None = None,
        facts: AnswerFacts | None = None,
    ) -> Failure:
        return Failure(
            fault=fault,
            billed=billed,
            reason=self.redactor.text(reason),
            status=reply.status,
            code=None if code is None else self.redactor.text(code, 80),
            request_id=errors.request_id(reply.headers, self.redactor),
            usage=None if facts is None else _usage(reply, facts),
        )


def _usage(reply: Reply, facts: AnswerFacts) -> Usage | None:
    """Return the tokens of an answer, with the tier that was served; where nobody says which, it was the standard one.

    https://ai.google.dev/gemini-api/docs/flex-inference names the header.
    """
    usage = usage_of(facts)
    served = service_tier(facts) or dict(reply.headers).get("x-gemini-service-tier", "")
    return usage if usage is None or served.lower() != Tier.FLEX else replace(usage, tier=Tier.FLEX)


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
    for text in strings(document.tree):
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
