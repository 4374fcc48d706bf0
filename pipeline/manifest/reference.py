"""Writes what a manifest starts from: its reference `jobs/README.md`, its JSON Schema, and the examples of `init`.

`python -m pipeline.manifest.reference` prints the reference; `make docs` checks it in beside the schema. A test holds
both true. What a description says is written once, in `settings` and `schema`, for editors and for this page.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.errors import InputError, Problem
from pipeline.manifest import settings
from pipeline.manifest.location import is_name
from pipeline.manifest.schema import ChecksKeys, DeliverKeys, Each, Job, Keys, ManifestFile, Matrix, MinSideKeys
from pipeline.manifest.yaml import PlainText, resolve
from pipeline.text import DURATION_PATTERN, MAX_USD

INTRODUCTION = """\
# The manifest, key by key

<!-- Written by `make docs` from the models in pipeline/manifest/. Edit the descriptions there. -->

A manifest is a YAML file that says what images should exist. `imgpipe init FILE` writes one to start from,
`imgpipe validate FILE` lists every problem with its line and column. The manifests in this folder run as they stand
with `--simulate`: [demo.yaml](demo.yaml), [catalogue.yaml](catalogue.yaml) (a table), [relight.yaml](relight.yaml)
(a folder of photographs), [nightly.yaml](nightly.yaml) (budgets and limits for cron),
[bucket.yaml](bucket.yaml) (images in object storage).

Editors with a YAML language server complete and check a file that begins with
`# yaml-language-server: $schema=./manifest.schema.json`.

- Unknown and duplicate keys are errors; keys that start with `x-` are ignored; `null` is as if the key were not there,
  and in a job it unsets what `defaults` say.
- Scalars are YAML 1.2: `16:9`, `no` and dates are text. Keys, ids, `vars` and values of a `matrix` stay as written.
- Durations carry their unit: `250ms`, `90s`, `50m`, `1h30m`, `2d`, `1w`. Money is USD, up to six decimals. Sizes of
  images are `512`, `1K`, `2K` or `4K`.
- Relative paths are relative to the manifest.
- Templates are Jinja2, sandboxed: `{{ vars.x }}`, `{{ row.x }}`, `{{ matrix.x }}` (`.key`: its name), `{{ file.path }}`
  (`dir`, `stem`, `name`, `suffix`), `{{ job }}`, `{{ id }}`, `{{ variant }}`. An undefined name is an error.
- Precedence: command line, then item, job, `defaults`, built-in.
"""

# The sections in the order of the page: where the mapping is written, its model, what to say of it.
SECTIONS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("Top level", ManifestFile, ""),
    ("provider", settings.ProviderKeys, ""),
    ("limits", settings.LimitsKeys, ""),
    ("limits.concurrency", settings.ConcurrencyKeys, "A number alone is `max`."),
    ("limits.budget", settings.BudgetKeys, "A number alone is `run`."),
    ("limits.stop_on", settings.StopOnKeys, ""),
    ("retry", settings.RetryKeys, ""),
    ("retry.wait", settings.WaitKeys, ""),
    ("notify", settings.NotifyKeys, ""),
    ("A job, defaults, an item", Keys, "These may stand in a job, in `defaults` and in an entry of `items`."),
    ("A job only", Job, "`items` and `each` exclude each other; `matrix` multiplies whichever rows there are."),
    (
        "jobs.NAME.each",
        Each,
        "One of `csv`, `tsv`, `xlsx`, `jsonl`, `parquet`, `files` and `job`; the others say how it is read.",
    ),
    ("jobs.NAME.checks", ChecksKeys, "May stand in `defaults` too."),
    ("jobs.NAME.checks.min_side", MinSideKeys, "A number alone is `pixels`."),
    ("deliver.NAME", DeliverKeys, "Each entry is a recipe of `imgpipe export FILE NAME`."),
    ("jobs.NAME.matrix", Matrix, "Every other key is an axis: a list of values, or `name: text` pairs."),
)


def reference() -> str:
    """Return the page as Markdown."""
    schema = json_schema()
    return "\n".join([INTRODUCTION, *(line for section in SECTIONS for line in _section(schema, *section))])


def _section(whole: dict[str, Any], title: str, model: type[BaseModel], remark: str) -> Iterator[str]:
    heading = f"`{title}`" if title.partition(".")[0] in ManifestFile.model_fields else title
    yield f"## {heading}\n"
    yield f"{model.__doc__ or ''} {remark}".strip() + "\n"
    yield "| key | meaning | value | default | example |"
    yield "|---|---|---|---|---|"
    properties = _properties(whole, model.__name__)
    for name, field in model.model_fields.items():
        if field.description and not (model is Job and name in Keys.model_fields):
            meaning, _, stated = field.description.partition("Default")
            written = field.alias or name
            value = _value(properties[written])
            default = _default(field, value) or _cell(stated.lstrip(": ").removesuffix("."))
            example = "<br>".join(_code(_flow(each)) for each in field.examples or ())
            yield f"| `{written}` | {_cell(meaning.strip())} | {_cell(value)} | {default} | {example} |"
    yield ""


def _properties(whole: dict[str, Any], model: str) -> dict[str, Any]:
    schema: dict[str, Any] = whole["definitions"].get(model, whole)
    mapping: dict[str, Any] = next(each for each in (schema, *schema.get("anyOf", ())) if "properties" in each)
    properties: dict[str, Any] = mapping["properties"]
    return properties


def _value(schema: dict[str, Any]) -> str:
    """Say what a key takes, with unit and range."""
    if inner := schema.get("anyOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(_value(each) for each in inner if each.get("type") != "null"))
    if "enum" in schema:
        return ", ".join(dict.fromkeys(str(each) for each in schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "mapping" if "$ref" in schema else "any")
    if not isinstance(kind, str):
        return "text or number"
    if DURATION_PATTERN in schema.get("pattern", ""):
        return "duration"
    if kind == "number" and schema.get("maximum") == MAX_USD:
        return "USD"
    if "%" in schema.get("pattern", ""):
        return "percentage"
    span = f" {schema['minimum']:,} to {schema['maximum']:,}" if "minimum" in schema and "maximum" in schema else ""
    return {"string": "text", "boolean": "true or false", "array": "list", "object": "mapping"}.get(kind, kind + span)


def _default(field: FieldInfo, kind: str) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == []:
        return ""
    return _code(f"{value:g}s" if kind == "duration" else _flow(value))


def _flow(value: object) -> str:
    """Write a value in YAML's flow style, with quotes only where the manifest needs them."""
    match value:
        case list():
            return f"[{', '.join(map(_flow, value))}]"
        case dict():
            return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
        case str() if re.fullmatch(r"[\w./][\w./:%+ -]*", value) and isinstance(resolve(PlainText(value)), str):
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    """Escape what would end a cell of a table, or be taken for a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def json_schema() -> dict[str, Any]:
    """Return the manifest's JSON Schema, readable by draft-07 tools."""
    schema = ManifestFile.model_json_schema(ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "imgpipe manifest"}
    body: dict[str, Any] = _draft_07(schema)
    return head | body | {"definitions": {name: _draft_07(model) for name, model in definitions.items()}}


def _draft_07(node: Any) -> Any:
    """Drop generated titles and null defaults; put a `$ref` with neighbours, which draft-07 ignores, into `allOf`."""
    if isinstance(node, list):
        return [_draft_07(item) for item in node]
    if not isinstance(node, dict):
        return node
    dropped = {key for key in ("title",) if isinstance(node.get(key), str)} | (
        {"default"} if node.get("default", 0) is None else set()
    )
    tidy = {key: _draft_07(value) for key, value in node.items() if key not in dropped}
    if "$ref" in tidy and len(tidy) > 1:
        return {"allOf": [{"$ref": tidy.pop("$ref")}]} | tidy
    return tidy


Kind = Literal["text", "folder", "csv", "matrix"]
SCHEMA_NAME = "manifest.schema.json"
_TABLE = """\
sku,title,material,active
A-001,stacking mug,ceramic,yes
A-002,water bottle,steel,yes
A-003,"bowl, wide",ceramic,yes
A-004,old teapot,iron,no
"""
# name, sky, ground: enough to tell the pictures apart on a contact sheet
_PHOTOGRAPHS = (
    ("meadow.jpg", (120, 170, 220), (80, 130, 60)),
    ("desert.jpg", (200, 190, 170), (190, 140, 80)),
    ("sea/harbour.png", (150, 180, 200), (30, 70, 110)),
)


def write_example(kind: Kind, path: Path) -> list[Path]:
    """Write an example manifest to `path` and its data beside it; return every file written, the manifest first.

    Raises InputError when a file of that name exists, or the name cannot be a manifest's.
    """
    if not is_name(path.stem):
        raise InputError(Problem(file=str(path), what="is not a usable name", instead="use letters, digits, - and _"))
    data = _DATA[kind](path) if kind in _DATA else {}
    for file in (path, *data):
        if file.exists() or file.is_symlink():
            raise InputError(Problem(file=str(file), what="exists already", instead="name another file, or remove it"))
    text = resources.files("pipeline.manifest").joinpath("examples", f"{kind}.yaml").read_text(encoding="utf-8")
    files = {path: text.replace("@STEM@", path.stem).encode()} | data
    schema = path.with_name(SCHEMA_NAME)
    if not schema.exists():
        files[schema] = (json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n").encode()
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            stream.write(content)
    return [*files]


def _photographs(path: Path) -> dict[Path, bytes]:
    folder = path.with_name(f"{path.stem}-photos")
    return {folder / name: _photograph(name, sky, ground) for name, sky, ground in _PHOTOGRAPHS}


def _photograph(name: str, sky: tuple[int, int, int], ground: tuple[int, int, int]) -> bytes:
    from PIL import Image, ImageDraw  # 60 ms that no other use of this module needs

    picture = Image.new("RGB", (640, 480), sky)
    draw = ImageDraw.Draw(picture)
    for row in range(300):
        fade = row / 600
        draw.line((0, row, 640, row), fill=tuple(int(part + (255 - part) * fade) for part in sky))
    draw.ellipse((430, 90, 510, 170), fill=(255, 236, 190))
    draw.rectangle((0, 300, 640, 480), fill=ground)
    draw.polygon([(0, 300), (180, 190), (330, 300)], fill=tuple(part * 2 // 3 for part in ground))
    stream = io.BytesIO()
    picture.save(stream, format="PNG" if name.endswith(".png") else "JPEG")
    return stream.getvalue()


_DATA: dict[str, Callable[[Path], dict[Path, bytes]]] = {
    "csv": lambda path: {path.with_name(f"{path.stem}.csv"): _TABLE.encode()},
    "folder": _photographs,
}


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - its result
