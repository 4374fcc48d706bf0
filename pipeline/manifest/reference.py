"""Writes the reference of the manifest, `jobs/README.md`, from the models: every key with default and example.

`python -m pipeline.manifest.reference` prints it; `make docs` checks it in beside the JSON Schema. A test holds both
true. What a description says is written once, in `keys` and `schema`, for editors and for this page.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.manifest.keys import (
    BudgetKeys,
    ConcurrencyKeys,
    LimitsKeys,
    NotifyKeys,
    ProviderKeys,
    RetryKeys,
    StopOnKeys,
    WaitKeys,
)
from pipeline.manifest.schema import (
    ChecksKeys,
    DeliverKeys,
    Each,
    Job,
    Keys,
    ManifestFile,
    Matrix,
    MinSideKeys,
    json_schema,
)
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
    ("provider", ProviderKeys, ""),
    ("limits", LimitsKeys, ""),
    ("limits.concurrency", ConcurrencyKeys, "A number alone is `max`."),
    ("limits.budget", BudgetKeys, "A number alone is `run`."),
    ("limits.stop_on", StopOnKeys, ""),
    ("retry", RetryKeys, ""),
    ("retry.wait", WaitKeys, ""),
    ("notify", NotifyKeys, ""),
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
    """Return the JSON Schema of a model's keys."""
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


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - its result
