"""The recipes of `deliver:` -> where picked images go, under which names, as what.

In: checked keys. Out: recipes with compiled templates. Nothing is opened.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, Problem
from pipeline.manifest.names import BadName, output_name
from pipeline.manifest.problems import Origin, Places
from pipeline.manifest.sandbox import Sandbox
from pipeline.manifest.schema import DeliverKeys
from pipeline.manifest.templates import Context, Template, TemplateTrouble, compile_template

NAMES = frozenset(("vars", "matrix", "row", "file", "job", "id", "variant"))
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One delivery."""

    name: str
    folder: Path  # absolute
    is_picked: bool  # else every done image
    select: tuple[str, ...]
    template: Template | None  # of the file's name, without suffix; None: as below the output directory
    kind: str | None  # jpeg, png, webp; None: as it is
    quality: int
    max_side: int | None
    is_srgb: bool
    is_stripped: bool

    @property
    def suffix(self) -> str | None:
        """Of every file; None: that of its image."""
        return None if self.kind is None else SUFFIXES[self.kind]

    @property
    def digest(self) -> str:
        """What tells apart recipes that make other bytes."""
        asked = (self.kind, self.quality, self.max_side, self.is_srgb, self.is_stripped)
        return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]

    def folder_of(self, *, is_simulated: bool) -> Path:
        """Return where files go; those of a rehearsal go to a folder of their own."""
        return self.folder.with_name(f"{self.folder.name}-simulated") if is_simulated else self.folder

    def file_name(self, context: Context, *, task_id: str, image_name: str) -> str:
        """Return the name of one file without suffix. Raises InputError."""
        if self.template is None:
            return image_name
        try:
            return output_name(self.template.render(context), task_id=task_id)
        except (TemplateTrouble, BadName) as trouble:
            what = f"{task_id}: deliver.{self.name}.name: {trouble.what}"
            raise InputError(Problem(what=what, instead=trouble.instead)) from trouble


def recipes_of(
    keys: Mapping[str, DeliverKeys], *, folder: Path, sandbox: Sandbox, places: Places
) -> tuple[dict[str, Recipe], list[Problem]]:
    """Return the recipes, and what is wrong with their templates."""
    recipes: dict[str, Recipe] = {}
    problems: list[Problem] = []
    for name, each in keys.items():
        origin, template = Origin(("deliver", name, "name")), None
        try:
            template = None if each.name is None else compile_template(sandbox, each.name, names=NAMES, origin=origin)
        except TemplateTrouble as trouble:
            problems.append(places.trouble(origin, trouble))
        recipes[name] = Recipe(
            name=name,
            folder=Path(os.path.normpath(folder / each.to)),
            is_picked=each.source == "picked",
            select=() if each.select is None else tuple(each.select),
            template=template,
            kind=each.format,
            quality=each.quality,
            max_side=each.max_side,
            is_srgb=each.profile == "srgb",
            is_stripped=each.metadata == "strip",
        )
    return recipes, problems
