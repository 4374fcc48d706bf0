"""One row and one combination to tasks: rendered, named, fingerprinted, one for each variant.

What cannot become a task raises BadValue with the origin of the key at fault and the other errors of the same
row.

The fingerprint is the SHA-256 of canonical JSON: keys sorted, no white space, absent keys left out, numbers as JSON
writes them, letters and their marks composed (Macs write `ü` in file names as two characters, which nobody sees). It
does not depend on the request's format: paths, dates, limits, output names, tags, `tier` (it changes the price, not the
picture) and the order of the manifest are not in it. A change here makes every image due again.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, TypeVarTuple

import msgspec

from pipeline.manifest.fields import check_aspect_ratio, check_size
from pipeline.manifest.inputs import InputFiles
from pipeline.manifest.jobs import Combination, JobPlan, Recipe
from pipeline.manifest.loader import Manifest
from pipeline.manifest.outputs import OutputNames, output_name
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sandbox import MAX_TEXT, Names, Sandbox
from pipeline.manifest.tables import SourceRow, printable
from pipeline.manifest.templates import ANY_NAMES, Template, compile_template
from pipeline.model import Digests, FormerReading, InputImage, Task
from pipeline.text import name_key

_encode = msgspec.json.Encoder(order="deterministic").encode


def digest(value: object) -> str:
    """Return 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(_encode(value)).hexdigest()[:16]


Context = dict[str, Any]
_BAD_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# What HFS+ decomposes in names of files (https://developer.apple.com/library/archive/qa/qa1173); other canonical forms,
# such as signs and compatibility ideographs, are other characters.
_DECOMPOSED = re.compile("[^\u2000-\u2fff\uf900-\ufaff\U0002f800-\U0002faff]+")
_HEAD = re.compile(r"(\{\{[^{}]*\}\})/")
_NO_INPUTS = digest([])
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Params:
    """The generation parameters of a task: as one mapping without what is not set, and as a digest with the variant."""

    values: dict[str, Any]
    digest: str
    variant: int
    text: str  # of the values, for looking through

    @classmethod
    def of(cls, recipe: Recipe, aspect_ratio: str | None, size: str | None, variant: int) -> "Params":
        """Collect what is set; what is not set stands in no fingerprint."""
        seed = None if recipe.seed is None else recipe.seed + variant - 1
        named: dict[str, Any] = {"aspect_ratio": aspect_ratio, "size": size, "seed": seed}
        named |= {"temperature": recipe.temperature, "thinking": recipe.thinking}
        named |= {"params": recipe.params or None, "safety": recipe.safety or None}
        values = {key: value for key, value in named.items() if value is not None}
        return cls(values, digest({"params": values, "variant": variant}), variant, str(values))


class RequestContent(msgspec.Struct, frozen=True):
    """Everything one request asks for; what is not in here changes no fingerprint."""

    prompt: str
    system: str | None
    model: str
    params: Params
    inputs: list[str]  # hex SHA-256 of each input image, in order

    def composed(self) -> "RequestContent":
        """Return what is compared: with every letter and its marks as one character where there is one."""
        prompt, system = _composed(self.prompt), self.system and _composed(self.system)
        if (prompt, system) == (self.prompt, self.system):
            return self
        return msgspec.structs.replace(self, prompt=prompt, system=system)

    def fingerprint(self) -> str:
        """Return the hex SHA-256 of the canonical request."""
        request: dict[str, Any] = {"model": self.model, "prompt": self.prompt, "variant": self.params.variant}
        if self.system is not None:
            request["system"] = self.system
        if self.params.values:
            request["params"] = self.params.values
        if self.inputs:
            request["inputs"] = self.inputs
        return hashlib.sha256(_encode(request)).hexdigest()

    def digests(self) -> Digests:
        """Return one digest an aspect."""
        text = self.prompt if self.system is None else f"{self.prompt}\0{self.system}"
        return Digests(
            prompt=hashlib.sha256(text.encode()).hexdigest()[:16],
            inputs=digest(self.inputs) if self.inputs else _NO_INPUTS,
            params=self.params.digest,
            model=self.model,
        )


class TaskMaker:
    """Makes the tasks of one manifest."""

    def __init__(self, manifest: Manifest, *, inputs: InputFiles, outputs: OutputNames) -> None:
        self._provider = manifest.provider
        self._variables = Names("vars", manifest.variables)
        self._inputs = inputs
        self._outputs = outputs
        self._secrets = manifest.secrets
        self._params = lru_cache(_REMEMBERED)(Params.of)  # most tasks of a job share them

    def tasks(self, plan: JobPlan, row: SourceRow, combination: Combination) -> Iterator[tuple[Task, str]]:
        """Yield each variant's task with the key of its name. Raises BadValue."""
        recipe = plan.recipe if plan.items is None else plan.items[row.key]
        context = self._context(plan, recipe, row, combination)
        for variant in range(1, recipe.variants + 1):
            context["variant"] = variant
            task, key = self._task(row, recipe, combination, context)
            if row.former is not None:
                task = self._with_former(task, plan, recipe, row.former, combination)
            yield task, key

    def _context(self, plan: JobPlan, recipe: Recipe, row: SourceRow, combination: Combination) -> Context:
        context: Context = {"vars": self._variables, "job": plan.name}
        if row.data is not None:
            context["row"] = row.data
        if row.file is not None:
            context["file"] = row.file
        if combination.names or row.matrix is not None:
            context["matrix"] = Names("matrix", {**row.texts, **combination.texts})
        context["id"] = self._row_id(recipe, row, combination, context)
        return context

    def _with_former(self, task: Task, plan: JobPlan, recipe: Recipe, row: SourceRow, combination: Combination) -> Task:
        """Add what a task was by a row as version 0.1.0 read it, if that made one of it."""
        steps = _Steps()
        try:
            context = self._context(plan, recipe, row, combination) | {"variant": task.variant}
            asked, _ = self._request(steps, recipe, context)
            steps.end()
        except BadValue:
            return task
        return msgspec.structs.replace(task, former=_reading(asked, context["id"], row))

    def _row_id(self, recipe: Recipe, row: SourceRow, combination: Combination, context: Context) -> str:
        key, label = row.key, combination.label
        if recipe.id is not None:
            key = recipe.id.render(context)
            if "matrix" in recipe.id.roots:
                label = ""
        row_id = f"{key}-{label}" if key and label else key or label
        if not row_id.strip():
            raise _located(recipe.id, "the id of the row is empty", "give every row its own id")
        return row_id if row_id.isprintable() else printable(row_id)

    def _task(self, row: SourceRow, recipe: Recipe, combination: Combination, context: Context) -> tuple[Task, str]:
        task_id = f"{context['job']}/{context['id']}" + (f"@{context['variant']}" if recipe.variants > 1 else "")
        steps = _Steps()
        asked, images = self._request(steps, recipe, context)
        name, key = steps.take(("", ""), self._name, recipe, context, task_id)
        tags: tuple[str, ...] = steps.take((), _tags, recipe, context) if recipe.tags else ()
        steps.end()
        self._check_secrets(recipe, asked, f"{task_id}\n{name}")
        values, compared = asked.params.values, asked.composed()
        task = Task(
            id=task_id,
            job=context["job"],
            row=context["id"],
            variant=context["variant"],
            prompt=asked.prompt,
            model=asked.model,
            name=name,
            fingerprint=compared.fingerprint(),
            digests=compared.digests(),
            former=None if compared is asked else _reading(asked, context["id"], row),
            system=asked.system,
            aspect_ratio=values.get("aspect_ratio"),
            size=values.get("size"),
            seed=values.get("seed"),
            temperature=recipe.temperature,
            thinking=recipe.thinking,
            tier=recipe.tier,
            is_default_model=recipe.model is None and self._provider.is_default_model,
            params=recipe.params,
            safety=recipe.safety,
            images=images,
            tags=tags,
            rerun_when=recipe.rerun_when,
            keep_metadata=recipe.keep_metadata,
            embed=recipe.embed,
            checks=recipe.checks,
            matrix={**(row.matrix or {}), **combination.names},
            fields=row.fields,
        )
        return task, key

    def _request(
        self, steps: "_Steps", recipe: Recipe, context: Context
    ) -> tuple[RequestContent, tuple[InputImage, ...]]:
        prompt = steps.take("", _prompt, recipe.prompt, context)
        system = steps.take(None, _system, recipe.system, context)
        model = steps.take("", self._model, recipe.model, context)
        ratio = steps.take(None, _checked, recipe.aspect_ratio, context, check_aspect_ratio)
        size = steps.take(None, _checked, recipe.size, context, check_size)
        found = [steps.take(None, self._image, template, context, recipe.skip_broken) for template in recipe.images]
        images = tuple([image for image in found if image is not None])
        params = self._params(recipe, ratio, size, context["variant"])
        return RequestContent(prompt, system, model, params, [image.sha256 for image in images]), images

    def _check_secrets(self, recipe: Recipe, asked: RequestContent, names: str) -> None:
        """Refuse a key in what is asked or named: it would stand in the ledger, the report and the images' records."""
        if not self._secrets:
            return
        texts = (("prompt", recipe.prompt, asked.prompt), ("system instruction", recipe.system, asked.system or ""))
        for secret in self._secrets:
            for kind, template, text in (*texts, ("model", recipe.model, asked.model), ("name", recipe.output, names)):
                if secret in text:
                    raise _located(template, f"the {kind} holds an API key of this machine", "remove the key")
            if secret in asked.params.text:
                raise _located(None, "a parameter holds an API key of this machine", "remove the key")

    def _image(self, template: Template, context: Context, is_opened: bool) -> InputImage:
        """Return an input image. is_opened: its first bytes are looked at, too."""
        rendered = template.render(context)
        try:
            image = self._inputs.image(rendered)
            if is_opened:
                self._inputs.check_header(rendered, image)
        except BadValue as bad:
            bad.origin, bad.is_input = template.origin, True
            raise
        return image

    def _model(self, template: Template | None, context: Context) -> str:
        if template is None:
            return self._provider.model
        text = template.render(context).strip()
        if not text:
            raise _located(template, "the model is empty", "write the name of a model")
        return text

    def _name(self, recipe: Recipe, context: Context, task_id: str) -> tuple[str, str]:
        template = recipe.output
        assert template is not None
        rendered = template.render(context)
        head = _HEAD.match(template.source) if rendered.startswith("/") else None
        if head is not None and _template(head[1]).render(context) == "":
            rendered = rendered.lstrip("/")  # `{{ file.dir }}/x` is not an absolute name
        ending = f"-{context['variant']}" if recipe.variants > 1 and "variant" not in template.roots else ""
        try:
            name = output_name(rendered, task_id=task_id, ending=ending)
            key = name_key(name)
            self._outputs.check(name, key)
        except BadValue as bad:
            bad.origin = template.origin
            raise
        return name, key


def _reading(asked: RequestContent, row_id: str, row: SourceRow) -> FormerReading:
    return FormerReading(row=row_id, fields=row.fields, fingerprint=asked.fingerprint(), digests=asked.digests())


def _composed(text: str) -> str:
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    return _DECOMPOSED.sub(lambda found: unicodedata.normalize("NFC", found[0]), text)


T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class _Steps:
    """The steps that make one task; what each of them finds wrong is collected, for one report of the row."""

    def __init__(self) -> None:
        self._found: list[BadValue] = []

    def take(self, otherwise: T, step: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Return what `step` makes of the arguments, `otherwise` when it cannot."""
        try:
            return step(*arguments)
        except BadValue as bad:
            self._found.append(bad)
            return otherwise

    def end(self) -> None:
        """Raise the first BadValue, with the others."""
        if self._found:
            first, *others = self._found
            first.others = tuple(others)
            raise first


@lru_cache(maxsize=64)
def _template(source: str) -> Template:
    return compile_template(Sandbox(), source, ANY_NAMES)


def _located(template: Template | None, what: str, instead: str) -> BadValue:
    trouble = BadValue(what, instead)
    trouble.origin = template.origin if template is not None else None
    return trouble


def _prompt(template: Template | None, context: Context) -> str:
    assert template is not None
    prompt = _text(template, context, "prompt")
    if not prompt or prompt.isspace():
        raise _located(template, "the prompt is empty", "write what to draw")
    return prompt


def _system(template: Template | None, context: Context) -> str | None:
    """Return the system instruction; empty is as if it were not set."""
    text = "" if template is None else _text(template, context, "system instruction")
    return text if text and not text.isspace() else None


def _text(template: Template, context: Context, kind: str) -> str:
    text = template.render(context)
    if len(text) > MAX_TEXT:
        raise _located(template, f"the {kind} has {len(text):,} characters, at most {MAX_TEXT:,}", "make it shorter")
    bad = _BAD_TEXT.search(text)
    if bad is not None:
        raise _located(template, f"the {kind} holds the control character U+{ord(bad.group()):04X}", "delete it")
    return text


def _checked(template: Template | None, context: Context, check: Callable[[str], str]) -> str | None:
    """Return a rendered value once it is checked; empty is as if it were not set."""
    if template is None:
        return None
    text = template.render(context).strip()
    try:
        return check(text) if text else None
    except BadValue as bad:
        bad.origin = template.origin
        raise


def _tags(recipe: Recipe, context: Context) -> tuple[str, ...]:
    rendered = (template.render(context).strip() for template in recipe.tags)
    return tuple(dict.fromkeys(tag for tag in rendered if tag))
