"""One row and one combination to tasks: rendered, named, fingerprinted, one for each variant.

What cannot become a task raises BadValue with the origin of the key at fault and the other errors of the same
row.

The fingerprint is the SHA-256 of canonical JSON: keys sorted, no white space, absent keys left out, numbers as JSON
writes them. It does not depend on the request's format: paths, dates, limits, output names, tags, `tier` (it changes
the price, not the picture) and the order of the manifest are not in it. A change here buys every image anew.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from pipeline.manifest.fields import check_aspect_ratio, check_size
from pipeline.manifest.jobs import Combination, JobPlan, Recipe
from pipeline.manifest.loader import Manifest
from pipeline.manifest.outputs import OutputNames, output_name
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sandbox import MAX_TEXT, Names, Sandbox
from pipeline.manifest.sources import InputFiles
from pipeline.manifest.tables import SourceRow, printable
from pipeline.manifest.templates import Template, compile_template
from pipeline.model import Digests, InputImage, Task
from pipeline.text import name_key

_encode = msgspec.json.Encoder(order="deterministic").encode


def digest(value: object) -> str:
    """Return 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(_encode(value)).hexdigest()[:16]


Context = dict[str, Any]
_BAD_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_HEAD = re.compile(r"(\{\{[^{}]*\}\})/")
_NO_INPUTS = digest([])
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Params:
    """The generation parameters of a task: as its own fields, as one mapping, and as a digest with the variant."""

    aspect_ratio: str | None
    size: str | None
    seed: int | None
    values: dict[str, Any]
    digest: str
    variant: int
    text: str  # of the values, for looking through

    @classmethod
    def of(cls, recipe: Recipe, aspect_ratio: str | None, size: str | None, variant: int) -> "Params":
        """Collect what is set; what is not set stands in no fingerprint."""
        seed = None if recipe.seed is None else recipe.seed + variant - 1
        named = {"aspect_ratio": aspect_ratio, "size": size, "seed": seed, "temperature": recipe.temperature}
        named |= {"thinking": recipe.thinking}
        values: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        values |= {"params": recipe.params} if recipe.params else {}
        values |= {"safety": recipe.safety} if recipe.safety else {}
        return cls(
            aspect_ratio, size, seed, values, digest({"params": values, "variant": variant}), variant, str(values)
        )


class RequestContent(msgspec.Struct, frozen=True):
    """Everything one request asks for; what is not in here changes no fingerprint."""

    prompt: str
    system: str | None
    model: str
    params: Params
    inputs: list[str]  # hex SHA-256 of each input image, in order

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
        self._known_params: dict[tuple[Any, ...], Params] = {}
        self._heads: dict[str, Template] = {}

    def tasks(self, plan: JobPlan, row: SourceRow, combination: Combination | None) -> Iterator[tuple[Task, str]]:
        """Yield each variant's task with the key of its name. Raises BadValue."""
        recipe = plan.recipe if plan.items is None else plan.items[row.key]
        context: Context = {"vars": self._variables, "job": plan.name}
        if row.data is not None:
            context["row"] = row.data
        if row.file is not None:
            context["file"] = row.file
        if combination is not None or row.matrix is not None:
            own = {} if combination is None else combination.texts
            context["matrix"] = Names("matrix", {**row.texts, **own})
        context["id"] = self._row_id(recipe, row, combination, context)
        for variant in range(1, recipe.variants + 1):
            context["variant"] = variant
            try:
                task = self._task(row, recipe, combination, context)
            except BadValue as first:
                first.others = tuple(self._troubles(recipe, context))[1:]
                raise
            yield task

    def _row_id(self, recipe: Recipe, row: SourceRow, combination: Combination | None, context: Context) -> str:
        key, label = row.key, combination.label if combination is not None else ""
        if recipe.id is not None:
            key = recipe.id.render(context)
            if "matrix" in recipe.id.roots:
                label = ""
        row_id = f"{key}-{label}" if key and label else key or label
        if not row_id.strip():
            raise _located(recipe.id, "the id of the row is empty", "give every row its own id")
        return row_id if row_id.isprintable() else printable(row_id)

    def _task(
        self, row: SourceRow, recipe: Recipe, combination: Combination | None, context: Context
    ) -> tuple[Task, str]:
        job, row_id, variant = context["job"], context["id"], context["variant"]
        task_id = _task_id(recipe, context)
        asked, images = self._request(recipe, context)
        params = asked.params
        name, key = self._name(recipe, context, task_id)
        if self._secrets:
            self._check_secrets(recipe, asked, f"{task_id}\n{name}")
        task = Task(
            id=task_id,
            job=job,
            row=row_id,
            variant=variant,
            prompt=asked.prompt,
            model=asked.model,
            name=name,
            fingerprint=asked.fingerprint(),
            digests=asked.digests(),
            system=asked.system,
            aspect_ratio=params.aspect_ratio,
            size=params.size,
            seed=params.seed,
            temperature=recipe.temperature,
            thinking=recipe.thinking,
            tier=recipe.tier,
            is_default_model=recipe.model is None and self._provider.is_default_model,
            params=recipe.params,
            safety=recipe.safety,
            images=images,
            tags=_tags(recipe, context) if recipe.tags else (),
            rerun_when=recipe.rerun_when,
            keep_metadata=recipe.keep_metadata,
            embed=recipe.embed,
            checks=recipe.checks,
            matrix=_matrix(row, combination),
            fields=row.fields,
        )
        return task, key

    def _request(self, recipe: Recipe, context: Context) -> tuple[RequestContent, tuple[InputImage, ...]]:
        prompt = _prompt(recipe.prompt, context)
        system = None if recipe.system is None else _system(recipe.system, context)
        model = self._provider.model if recipe.model is None else _filled(recipe.model, context)
        params = self._params(recipe, context)
        images = tuple([self._image(template, context, recipe.skip_broken) for template in recipe.images])
        return RequestContent(prompt, system, model, params, [image.sha256 for image in images]), images

    def _troubles(self, recipe: Recipe, context: Context) -> Iterator[BadValue]:
        """Yield everything that is wrong in a row that cannot become a task, in the order of `_request`."""
        ratio, size = recipe.aspect_ratio, recipe.size
        steps: list[Callable[[], object]] = [lambda: _prompt(recipe.prompt, context)]
        steps += [partial(_system, recipe.system, context)] if recipe.system is not None else []
        steps += [partial(_filled, recipe.model, context)] if recipe.model is not None else []
        steps += [partial(_checked, ratio, context, check_aspect_ratio)] if ratio is not None else []
        steps += [partial(_checked, size, context, check_size)] if size is not None else []
        steps += [partial(self._image, template, context, recipe.skip_broken) for template in recipe.images]
        steps += [lambda: self._name(recipe, context, _task_id(recipe, context)), lambda: _tags(recipe, context)]
        for step in steps:
            try:
                step()
            except BadValue as bad:
                yield bad

    def _check_secrets(self, recipe: Recipe, asked: RequestContent, names: str) -> None:
        """Refuse a key in what is asked or named: it would stand in the ledger, the report and the images' records."""
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

    def _name(self, recipe: Recipe, context: Context, task_id: str) -> tuple[str, str]:
        template = recipe.output
        assert template is not None
        rendered = template.render(context)
        if rendered.startswith("/") and self._starts_empty(template, context):
            rendered = rendered.lstrip("/")
        ending = f"-{context['variant']}" if recipe.variants > 1 and "variant" not in template.roots else ""
        try:
            name = output_name(rendered, task_id=task_id, ending=ending)
            key = name_key(name)
            self._outputs.check(name, key)
        except BadValue as bad:
            bad.origin = template.origin
            raise
        return name, key

    def _starts_empty(self, template: Template, context: Context) -> bool:
        """True for `{{ file.dir }}/x` where the first part is empty: that is not an absolute name."""
        head = _HEAD.match(template.source)
        if head is None:
            return False
        if head[1] not in self._heads:
            self._heads[head[1]] = compile_template(Sandbox(), head[1], names=context)
        return self._heads[head[1]].render(context) == ""

    def _params(self, recipe: Recipe, context: Context) -> Params:
        """Return the generation parameters of one task; most tasks of a job share them."""
        ratio, size, variant = recipe.aspect_ratio, recipe.size, context["variant"]
        known_by = (
            id(recipe),  # recipes live as long as the manifest, so an id is never used again
            ratio if ratio is None or ratio.literal is not None else _checked(ratio, context, check_aspect_ratio),
            size if size is None or size.literal is not None else _checked(size, context, check_size),
            variant,
        )
        known = self._known_params.get(known_by)
        if known is None:
            if len(self._known_params) >= _REMEMBERED:
                self._known_params.clear()
            texts = [part.literal if isinstance(part, Template) else part for part in known_by[1:3]]
            known = self._known_params[known_by] = Params.of(recipe, texts[0], texts[1], variant)
        return known


def _task_id(recipe: Recipe, context: Context) -> str:
    name = f"{context['job']}/{context['id']}"
    return name if recipe.variants == 1 else f"{name}@{context['variant']}"


def _matrix(row: SourceRow, combination: Combination | None) -> dict[str, str]:
    own = combination.names if combination is not None else {}
    return own if row.matrix is None else {**row.matrix, **own}


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


def _system(template: Template, context: Context) -> str | None:
    """Return the system instruction; empty is as if it were not set."""
    text = _text(template, context, "system instruction")
    return text if text and not text.isspace() else None


def _text(template: Template, context: Context, kind: str) -> str:
    text = template.render(context)
    if len(text) > MAX_TEXT:
        raise _located(template, f"the {kind} has {len(text):,} characters, at most {MAX_TEXT:,}", "make it shorter")
    bad = _BAD_TEXT.search(text)
    if bad is not None:
        raise _located(template, f"the {kind} holds the control character U+{ord(bad.group()):04X}", "delete it")
    return text


def _filled(template: Template, context: Context) -> str:
    text = template.render(context).strip()
    if not text:
        raise _located(template, "the model is empty", "write the name of a model")
    return text


def _checked(template: Template, context: Context, check: Callable[[str], str]) -> str | None:
    """Return a rendered value once it is checked; empty is as if it were not set."""
    text = template.render(context).strip()
    try:
        return check(text) if text else None
    except BadValue as bad:
        bad.origin = template.origin
        raise


def _tags(recipe: Recipe, context: Context) -> tuple[str, ...]:
    rendered = (template.render(context).strip() for template in recipe.tags)
    return tuple(dict.fromkeys(tag for tag in rendered if tag))
