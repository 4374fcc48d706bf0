"""Models of a job, of `defaults`, of an `items` entry and of the whole manifest, which check its tree.

Descriptions are what an editor shows. Which keys were written stays known (`model_fields_set`), because only those win
over an outer layer; the layers are merged in `jobs`. Nothing is rendered and nothing is read from disk.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, ErrorDetails

from pipeline.errors import Problem
from pipeline.manifest import fields as f
from pipeline.manifest.fields import NAME_PATTERN, shown
from pipeline.manifest.problems import BadValue, KeyPath, Problems
from pipeline.manifest.settings import LimitsKeys, Model, NotifyKeys, ProviderKeys, RetryKeys, optional, or_null
from pipeline.manifest.yaml import Tree, is_null
from pipeline.text import nearest


class MinSideKeys(Model):
    """The shorter side of an image."""

    short_schema: ClassVar[dict[str, Any]] = {"type": "integer", "minimum": 1}
    short_key = "pixels"
    pixels: f.PositiveInt = Field(description="Fewest pixels.", examples=[1000])
    action: f.Check = optional("flag | redo | off", default="flag")


class ChecksKeys(Model):
    """What is looked at when an image arrives: flag, redo (ask again) or off. A flagged image is done all the same."""

    blank: f.Check = optional("Nearly one colour.", default="flag")
    aspect: f.Check = optional("Off the requested aspect ratio by more than 3 %.", default="flag")
    same_as_input: f.Check = optional("Image to image that changed nothing.", default="flag")
    twin: f.Check = optional("Nearly the same picture as another of its job, of this run or earlier.", default="off")
    min_side: MinSideKeys | None = optional("The shorter side has fewer pixels: a number, or pixels and action.", 1000)
    redo: f.Repeats = optional("How often an image is asked again in its run, within the budget.", default=1)


class Keys(Model):
    """Keys of a job, of `defaults` and of an `items` entry; the innermost wins, null unsets."""

    keeps_nulls = True
    prompt: f.Text | None = optional(
        "What to draw. A template: vars, matrix, row, file, job, id, variant.",
        "A poster of {{ vars.city }}",
        "Studio photo of {{ row.title }}",
        "A {{ matrix.colour }} mug",
    )
    prompt_file: f.PathText | None = optional("File with the prompt.", "prompts/relight.md")
    images: f.TextList | None = optional(
        "Input images in order: paths relative to this file, objects (s3://, gs://, az://), or templates.",
        ["{{ file.path }}", "refs/palette.png"],
    )
    model: f.Text | None = optional("Model of this job.", "gemini-3-pro-image")
    aspect_ratio: f.AspectRatio | None = optional("Width:height.", "16:9", "1:1", "2:3")
    size: f.Size | None = optional("512 | 1K | 2K | 4K", "1K")
    variants: f.Variants | None = optional("Images of each row. Default 1.", 4)
    seed: f.Seed | None = optional("Variant n uses seed + n - 1.", 42)
    temperature: f.Temperature | None = optional("0 to 2.", 1.0)
    system: f.Text | None = optional("System instruction; a template.", "You are a product photographer.")
    thinking: f.Thinking | None = optional(
        "minimal | medium | high: how long the model thinks, which is paid for.", "minimal"
    )
    tier: f.Tier | None = optional(
        "standard | flex. flex (kind google): half price, slower. No change of it buys an image again.", "flex"
    )
    params: dict[str, f.Free] | None = optional("Merged into generationConfig as it is.", {"topP": 0.9})
    safety: dict[str, f.Text] | None = optional("Category: threshold.", {"HARM_CATEGORY_HARASSMENT": "BLOCK_ONLY_HIGH"})
    output: f.Text | None = optional(
        "Name of the image under output_dir, without extension. Default {{ job }}/{{ id }}.",
        "{{ job }}/{{ id }}",
        "catalogue/{{ row.sku }}",
        "relit/{{ file.dir }}/{{ file.stem }}",
    )
    tags: f.WrittenList | None = optional("For --select tag:NAME.", ["spring", "hero"])
    id: f.Text | None = optional("Template of the row's name.", "{{ row.sku }}")
    rerun_when: f.Aspects | None = optional("Which change makes a done task due again. Default all four.", ["prompt"])
    metadata: f.Embedding | None = optional(
        "embed: write provenance into the image file; beside it where the file is signed (C2PA)."
    )
    keep_metadata: f.Flag | None = optional("Send EXIF data (places!) of input images along. Default false.")
    checks: ChecksKeys | None = optional(
        "Local checks of each image that arrives: blank, aspect and same_as_input flag unless they are off.",
        {"blank": "redo", "min_side": 1000},
    )
    skip_broken: f.Flag | None = optional(
        "Leave rows out whose input image is missing or no image. Default false: they are an error."
    )

    exclusive: ClassVar[tuple[tuple[str, str, str], ...]] = (("prompt", "prompt_file", "keep one of them"),)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = super().__get_pydantic_json_schema__(core, handler)
        mapping, is_set = schema["anyOf"][1] if "anyOf" in schema else schema, {"not": {"type": "null"}}
        mapping["allOf"] = [
            {"not": {"required": [one, other], "properties": {one: is_set, other: is_set}}}
            for one, other, _ in cls.exclusive
        ]
        return schema

    @model_validator(mode="after")
    def _check_exclusive(self) -> Self:
        for one, other, instead in self.exclusive:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise BadValue(f"{one} and {other} exclude each other", instead)
        return self


class Item(Keys):
    """One row written in place; a text is its prompt."""

    short_schema: ClassVar[dict[str, Any]] = {"type": ["string", "null"], "description": "The prompt."}

    @classmethod
    def expand(cls, value: object) -> object:
        if is_null(value):
            return {}
        return {"prompt": value} if isinstance(value, str) else value


class Matrix(Model):
    """Every combination of the axes; include and exclude as in GitHub Actions."""

    axes: dict[str, f.Axis] = Field(default_factory=dict)
    include: list[dict[str, f.Written]] = Field(
        default_factory=list,
        description="Combinations to add, or keys for those they fit.",
        examples=[[{"thing": "mug", "colour": "gold"}]],
    )
    exclude: list[dict[str, f.Written]] = Field(
        default_factory=list,
        description="Combinations to leave out.",
        examples=[[{"thing": "bottle", "colour": "navy"}]],
    )

    @classmethod
    def expand(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        fixed = {key: item for key, item in value.items() if key in ("include", "exclude")}
        return {"axes": {key: item for key, item in value.items() if key not in fixed}} | fixed

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        axis = schema["properties"].pop("axes")["additionalProperties"]
        or_null(schema)
        schema["minProperties"] = 1
        schema["additionalProperties"] = axis | {"description": "An axis: a list of values, or name: text pairs."}
        return schema


class Each(Model):
    """One row for each line of a table, each file of a folder, or each image of another job."""

    csv: f.PathText | None = optional("Table with a header row; cells are text.", "data/products.csv")
    tsv: f.PathText | None = optional("As csv, separated by tabs.", "data/products.tsv")
    jsonl: f.PathText | None = optional("One JSON object a line.", "data/rows.jsonl")
    parquet: f.PathText | None = optional("Parquet file (pip install 'imgpipe[parquet]').", "data/rows.parquet")
    xlsx: f.PathText | None = optional("Workbook: xlsx, xls, ods (pip install 'imgpipe[excel]').", "data/products.xlsx")
    sheet: f.Text | None = optional("Sheet of the workbook. Default: the first visible one.", "Spring")
    delimiter: f.Delimiter | None = optional("What separates cells. Default: found from the file.", ";")
    encoding: f.Encoding | None = optional("Encoding of the file. Default: found from the file.", "cp1252")
    files: f.TextList | None = optional(
        "Pattern of input files, in a folder or a bucket.",
        "photos/**/*.{jpg,jpeg,png,webp}",
        "s3://bucket/photos/**/*.jpg",
    )
    job: f.Text | None = optional("Name of a job whose images are the rows.", "posters")
    key: f.Text | None = optional("Column that names the row. Default `id`.", "sku")
    where: dict[str, f.WrittenList] | None = optional("Only rows whose cells equal these.", {"active": "yes"})
    root: f.PlaceText | None = optional("Folder ids and file.dir are relative to.", "photos")
    ignore: f.TextList | None = optional("Patterns to leave out.", ["**/_*"])
    hidden: f.Flag = optional(
        "Take files and folders whose name starts with a dot, and folders of systems such as @eaDir.", default=False
    )
    allow_empty: f.Flag = optional("No match is not an error.", default=False)
    min_age: f.Duration | None = optional("Leave files younger than this for a later run.", "10s")
    state: f.Done = optional("Which images of `job`: done.", default="done")

    SOURCES: ClassVar[tuple[str, ...]] = ("csv", "tsv", "xlsx", "jsonl", "parquet", "files", "job")
    _ONLY: ClassVar[dict[str, tuple[str, ...]]] = {
        "key": ("csv", "tsv", "xlsx", "jsonl", "parquet"),
        "where": ("csv", "tsv", "xlsx", "jsonl", "parquet", "job"),
        "delimiter": ("csv",),
        "encoding": ("csv", "tsv"),
        "sheet": ("xlsx",),
        "root": ("files",),
        "ignore": ("files",),
        "hidden": ("files",),
        "min_age": ("files",),
        "state": ("job",),
    }

    @property
    def kind(self) -> str:
        """Which of SOURCES this is."""
        return next(name for name in self.SOURCES if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_source(self) -> "Each":
        named = [name for name in self.SOURCES if getattr(self, name) is not None]
        if len(named) != 1:
            what = f"needs one source, this names {len(named)}: {', '.join(named) or 'none'}"
            raise BadValue(what, f"write one of {', '.join(self.SOURCES)}")
        for key in sorted(self.model_fields_set & self._ONLY.keys()):
            if named[0] not in self._ONLY[key]:
                raise BadValue(
                    f"{key} does not go with {named[0]}", f"remove it; it belongs to {', '.join(self._ONLY[key])}"
                )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = super().__get_pydantic_json_schema__(core, handler)
        named = {name: {"required": [name], "not": {"properties": {name: {"type": "null"}}}} for name in cls.SOURCES}
        together = [
            {
                "if": {"not": {"properties": {key: {"type": "null"}}}},
                "then": {"anyOf": [named[each] for each in sources]},
            }
            for key, sources in cls._ONLY.items()
        ]
        return schema | {"oneOf": [*named.values()], "allOf": together}


class Job(Keys):
    """A prompt and what multiplies it."""

    exclusive = (*Keys.exclusive, ("items", "each", "keep one of them, or make two jobs"))

    items: dict[str, Item] | None = Field(
        None,
        min_length=1,
        description="Rows written in place: `id: prompt`, or id: {prompt, ...}.",
        examples=[{"oslo": "A poster of Oslo"}],
    )
    each: Each | None = optional(
        "Rows of a table, files of a folder, images of another job.",
        {"csv": "data/products.csv", "key": "sku"},
        {"files": "photos/**/*.{jpg,png}", "root": "photos"},
    )
    matrix: Matrix | None = optional(
        "Every combination of these values; include and exclude as in GitHub Actions.",
        {"colour": ["red", "navy"], "mood": {"dawn": "in the first light"}},
    )


class DeliverKeys(Model):
    """Where picked images go, under which names, as what."""

    to: f.PlaceText = Field(
        description="The folder, relative to this file, or a bucket.", examples=["../shop", "s3://bucket/shop"]
    )
    source: f.Chosen = Field("picked", alias="from", description="picked | done: which images.")
    select: f.WrittenList | None = optional("Patterns as of --select.", ["job:studio"])
    name: f.Text | None = optional(
        "Name of the file without suffix. Default: as below output_dir.", "{{ row.sku }}_{{ matrix.shot.key }}"
    )
    format: f.ImageKind | None = optional("jpeg | png | webp. Default: as it is.")
    quality: f.Quality = optional("Of jpeg and webp, 1 to 100.", default=90)
    max_side: f.PositiveInt | None = optional("Longer side in pixels at most.", 1200)
    profile: f.Profile | None = optional("srgb: colours are converted. Default: as they are.")
    metadata: f.Metadata = optional("keep | strip: EXIF, XMP, the mark that a model made it.", default="keep")


class ManifestFile(Model):
    """What images should exist. Running it makes them exist."""

    version: f.Version = optional("Always 1.", default=1)
    name: f.Name | None = optional("Part of every task's identity. Default: the file's name.", "catalogue")
    provider: ProviderKeys | None = optional("The API, its model and the name of its key.")
    vars: dict[str, f.Written] | None = optional(
        "For templates: {{ vars.brand }}. Values may hold ${ENV}, ${ENV:-default}, ${ENV:?why}.",
        {"brand": "Acme", "season": "${SEASON:-autumn}"},
    )
    defaults: Keys | None = optional("Every job inherits these; a job's own key wins; null unsets.")
    limits: LimitsKeys | None = optional("Ceilings of one run.")
    retry: RetryKeys | None = optional("How often one task may be asked.")
    prices: dict[str, f.Price] | None = optional(
        "USD per image, or per size; overrides the built-in catalogue.", {"my-model": 0.04}
    )
    output_dir: f.PlaceText | None = optional(
        "Where images are written: a folder, relative to this file, or a bucket (s3://, gs://, az://)."
        " Default: outputs/NAME, beside jobs/.",
        "../outputs/catalogue",
        "s3://bucket/catalogue",
    )
    state_dir: f.PathText | None = optional(
        "Where ledger and state are. Default: .pipeline below output_dir; with a bucket, .pipeline/NAME beside"
        " this file.",
        "../outputs/catalogue/.pipeline",
    )
    notify: NotifyKeys | None = optional("Where runs are reported: webhook, ping, metrics file.")
    deliver: dict[f.Name, DeliverKeys] | None = optional(
        "Recipes of `imgpipe export`: mirrors of picked images.",
        {"shop": {"to": "../shop", "format": "jpeg", "max_side": 1200}},
    )
    jobs: dict[f.Name, Job] = Field(
        description="Named entries: a prompt and what multiplies it.",
        min_length=1,
        examples=[{"posters": {"prompt": "A travel poster of {{ id }}", "items": {"oslo": {}, "lisbon": {}}}}],
        json_schema_extra={"propertyNames": {"pattern": NAME_PATTERN}},
    )

    def tiers(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield every `tier` that is written, with its path of keys."""
        layers: dict[tuple[str, ...], Keys | None] = {("defaults",): self.defaults}
        for name, job in self.jobs.items():
            layers[("jobs", name)] = job
            layers |= {("jobs", name, "items", key): item for key, item in (job.items or {}).items()}
        for path, keys in layers.items():
            if keys is not None and keys.tier is not None:
                yield (*path, "tier"), keys.tier


_ROUNDS = 6  # of validation: a model's own rules are judged only when its keys are sound
_ELSEWHERE: Mapping[str, type[BaseModel]] = {
    "jobs.NAME": Job,
    "jobs.NAME.each": Each,
    "provider": ProviderKeys,
    "limits": LimitsKeys,
    "retry": RetryKeys,
    "the top level": ManifestFile,
}


def validate(tree: dict[str, Tree], problems: Problems) -> tuple[ManifestFile, set[str]]:
    """Return what of `tree` is sound, and the names of jobs that something was cut out of.

    Cutting out what is invalid lets the loader go on, so that a wrong number at the top hides no wrong template below.
    """
    structural = {(problem.line, problem.column) for problem in problems.found}
    damaged: set[str] = set()
    cut: set[KeyPath] = set()
    for _ in range(_ROUNDS):
        try:
            return ManifestFile.model_validate(tree), damaged
        except ValidationError as error:
            details = error.errors(include_url=False)
            for detail in [detail for detail in details if detail["loc"] not in cut]:
                path = detail["loc"]
                damaged |= _damaged_by(path, tree)
                cut.update(path[:length] for length in range(1, len(path) + 1))  # what lacks it now is not reported
                problem = _problem(detail, problems)
                if (problem.line, problem.column) not in structural:
                    problems.found.append(problem)
            for detail in details:
                _cut_out(tree, detail["loc"])
    return ManifestFile.model_construct(jobs={}), damaged


def _damaged_by(path: KeyPath, tree: dict[str, Tree]) -> set[str]:
    """Return the jobs that lack something once `path` is cut out."""
    jobs = tree.get("jobs")
    if path[:1] == ("jobs",) and len(path) > 1:
        return {str(path[1])}
    return set(jobs) if path[:1] == ("defaults",) and isinstance(jobs, dict) else set()


def _cut_out(tree: dict[str, Tree], path: KeyPath) -> None:
    """Remove the innermost key of `path`; an item of a list takes its whole list along."""
    holder: Any = tree
    owner: dict[str, Any] | None = None
    last = ""
    for part in path:
        if isinstance(holder, dict) and part in holder:
            owner, last, holder = holder, str(part), holder[part]
        elif isinstance(holder, list) and isinstance(part, int) and part < len(holder):
            holder = holder[part]
    if owner is not None:
        owner.pop(last, None)


def _problem(detail: ErrorDetails, problems: Problems) -> Problem:
    path = detail["loc"]
    last = path[-1] if path else ""
    what, instead = _words(detail)
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, BadValue) and error.within:
        path = (*path, *error.within)
        last = next((part for part in reversed(path) if isinstance(part, str)), "")
    if last == "[key]" or (isinstance(error, BadValue) and error.is_key):
        return problems.at(path[:-1] if last == "[key]" else path, what, instead, is_key=True)
    match detail["type"]:
        case "extra_forbidden":
            return problems.at(path, f"unknown key {str(last)!r}", _nearest(path), is_key=True)
        case "missing":
            return problems.at(path[:-1], f"{last!r} is missing", f"write `{last}:`", is_key=True)
    is_named = last and isinstance(last, str) and what.startswith(("must", "is ", "needs"))
    return problems.at(path, f"{last} {what}" if is_named else what, instead)


def _words(detail: ErrorDetails) -> tuple[str, str]:
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, BadValue):
        return error.what, error.instead
    is_list = detail["type"] in ("list_type", "tuple_type")
    if is_list or detail["type"] in ("dict_type", "model_type"):
        shape, example = ("a list", "write [a, b]") if is_list else ("a mapping", "write `key: value` lines below it")
        return f"must be {shape}, this is {shown(detail['input'])}", example
    if detail["type"] in ("too_short", "dict_too_short"):
        return "is empty", "write at least one entry"
    return detail["msg"], "see `imgpipe schema`"


_MEANT = {"imagesize": "size", "resolution": "size", "ratio": "aspect_ratio"}  # how image APIs name what is meant
_MEANT |= dict.fromkeys(("n", "count", "numimages", "numberofimages"), "variants")


def _nearest(path: KeyPath) -> str:
    unknown = str(path[-1])
    model = _model_at(path[:-1])
    known = sorted(model.model_fields.keys() - {"axes"}) if model is not None else []
    near = _MEANT.get(unknown.lower().replace("_", ""))
    if near not in known:
        near = nearest(unknown.lower(), known)
    if near:
        return f"did you mean {near!r}?"
    for place, other in _ELSEWHERE.items():
        near = nearest(unknown.lower(), other.model_fields, cutoff=0.75)
        if near and other is not model:
            return f"it belongs in {place}" if near == unknown else f"did you mean {near!r}? it belongs in {place}"
    return "known here: " + ", ".join(known)


def _model_at(path: KeyPath) -> type[BaseModel] | None:
    kind: Any = ManifestFile
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = _plain(field.annotation) if field is not None else None
        elif get_origin(kind) in (dict, list):
            kind = _plain(get_args(kind)[-1])
        else:
            return None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _plain(annotation: Any) -> Any:
    """Drop `| None`."""
    if get_origin(annotation) is types.UnionType:
        return next(arg for arg in get_args(annotation) if arg is not types.NoneType)
    return annotation
