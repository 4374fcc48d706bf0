"""Layers of keys come in, one `Recipe` goes out: item > job > defaults > built-in, every template compiled.

It decides which key wins and which names a template may use. Problems go to a list with the path of keys they belong
to; nothing is rendered and no data file is opened.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, Problem
from pipeline.manifest.budget import nearest
from pipeline.manifest.job import Job, Keys
from pipeline.manifest.places import Origin, Places
from pipeline.manifest.reading import decode, read_bytes
from pipeline.manifest.sandbox import Sandbox
from pipeline.manifest.template import Template, TemplateTrouble, compile_template
from pipeline.model import Aspect, Tier

MAX_PROMPT_FILE_BYTES = 2**20
BUILT_IN_OUTPUT = "{{ job }}/{{ id }}"
KeyPath = tuple[str | int, ...]  # of keys
Layers = tuple[tuple[KeyPath, Keys], ...]  # innermost first, each with its path of keys


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one row becomes requests. Templates are compiled; None means the key is not set."""

    prompt: Template | None = None
    system: Template | None = None
    images: tuple[Template, ...] = ()
    model: Template | None = None
    aspect_ratio: Template | None = None
    size: Template | None = None
    output: Template | None = None
    id: Template | None = None
    tags: tuple[Template, ...] = ()
    variants: int = 1
    seed: int | None = None
    temperature: float | None = None
    thinking: str | None = None
    tier: Tier = Tier.STANDARD
    params: dict[str, Any] = field(default_factory=dict)
    safety: dict[str, str] = field(default_factory=dict)
    rerun_when: tuple[Aspect, ...] = tuple(Aspect)
    keep_metadata: bool = False
    embed: bool = False
    skip_broken: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """What the templates of one job may use: `names`, and of some of them the only keys there are."""

    names: frozenset[str]
    keys: Mapping[str, frozenset[str]]

    @property
    def for_id(self) -> "Scope":
        """The scope of an `id` template, which cannot use what it makes."""
        return Scope(self.names - {"id", "variant"}, self.keys)


class Recipes:
    """Makes the recipes of one manifest; what is wrong goes to `problems`."""

    def __init__(self, *, folder: Path, places: Places) -> None:
        self.problems: list[Problem] = []
        self.used_variables: set[str] = set()
        self.sandbox = Sandbox()
        self._folder = folder
        self._places = places

    def of_job(self, layers: Layers, scope: Scope) -> Recipe:
        """Build the recipe of a job's rows."""
        return self._fill(Recipe(), layers, set(Keys.model_fields), scope)

    def of_item(self, base: Recipe, layers: Layers, scope: Scope) -> Recipe:
        """Build the recipe of one item: what it does not write is `base`'s."""
        return self._fill(base, layers, set(layers[0][1].model_fields_set), scope)

    def _fill(self, base: Recipe, layers: Layers, keys: set[str], scope: Scope) -> Recipe:
        changes: dict[str, Any] = {}
        for key in keys - {"prompt", "prompt_file"}:
            path, value = _pick(layers, key)
            changes |= self._change(key, path, value, scope)
        if keys & {"prompt", "prompt_file"}:
            changes["prompt"] = self._prompt(layers, scope)
        return replace(base, **changes) if changes else base

    def _change(self, key: str, path: KeyPath, value: Any, scope: Scope) -> dict[str, Any]:
        match key:
            case "images" | "tags":
                made = (self._template(text, Origin((*path, index)), scope) for index, text in enumerate(value or ()))
                return {key: tuple(template for template in made if template is not None)}
            case "system" | "model" | "aspect_ratio" | "size":
                return {key: None if value is None else self._template(value, Origin(path), scope)}
            case "output":
                return {key: self._template(BUILT_IN_OUTPUT if value is None else value, Origin(path), scope)}
            case "id":
                return {key: None if value is None else self._template(value, Origin(path), scope.for_id)}
            case "rerun_when":
                return {key: tuple(Aspect) if value is None else tuple(Aspect(aspect) for aspect in value)}
            case "tier":
                return {key: Tier.STANDARD if value is None else Tier(value)}
            case "metadata":
                return {"embed": value == "embed"}
            case _:
                return {key: getattr(_BUILT_IN, key) if value is None else value}

    def _prompt(self, layers: Layers, scope: Scope) -> Template | None:
        for path, layer in layers:
            if layer.prompt_file is not None:
                return self._prompt_file((*path, "prompt_file"), layer.prompt_file, scope)
            if layer.prompt is not None:
                return self._template(layer.prompt, Origin((*path, "prompt")), scope)
            if layer.model_fields_set & {"prompt", "prompt_file"}:  # null unsets what is further out
                return None
        return None

    def _prompt_file(self, path: KeyPath, name: str, scope: Scope) -> Template | None:
        file = self._folder / name
        try:
            data = read_bytes(file, max_bytes=MAX_PROMPT_FILE_BYTES, too_big="a prompt is at most 100,000 characters")
            text = decode(data, file=str(file)).replace("\r\n", "\n").rstrip()
        except InputError as error:
            what = f"prompt_file {name!r}: {error.problems[0].what}"
            self.problems.append(self._places.problem(path, what, "the path is relative to this file"))
            return None
        return self._template(text, Origin(path, str(file), text), scope)

    def _template(self, text: str, origin: Origin, scope: Scope) -> Template | None:
        try:
            template = compile_template(self.sandbox, text, names=scope.names, origin=origin)
            for root, key in sorted(template.refs):
                if key not in scope.keys.get(root, (key,)):
                    raise _unknown_key(root, key, scope.keys[root])
        except TemplateTrouble as trouble:
            self.problems.append(self._places.trouble(origin, trouble))
            return None
        self.used_variables |= {key for root, key in template.refs if root == "vars"}
        return template


_BUILT_IN = Recipe()


def _unknown_key(root: str, key: str, known: Iterable[str]) -> TemplateTrouble:
    known = sorted(known)
    near = nearest(key, known)
    instead = f"did you mean {near!r}?" if near is not None else "known: " + (", ".join(known[:8]) or "none")
    return TemplateTrouble(f"{root} has no {key!r}", instead, needle=key)


def _pick(layers: Layers, key: str) -> tuple[KeyPath, Any]:
    """Return the innermost layer's value of `key`, with its path; null is a value here: it unsets."""
    for path, layer in layers:
        if key in layer.model_fields_set:
            return (*path, key), getattr(layer, key)
    return (), None


def job_layers(name: str, job: Job, defaults: Keys | None) -> Layers:
    """Return the layers of a job, innermost first."""
    own: Layers = ((("jobs", name), job),)
    return own if defaults is None else (*own, (("defaults",), defaults))
