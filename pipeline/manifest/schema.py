"""The whole manifest: its top-level keys, and the JSON Schema of everything for editors.

In: a tree. Out: a checked `ManifestFile`; or, from `json_schema`, what a YAML language server completes from.
"""

from typing import Any

from pydantic import Field

from pipeline.manifest.job import Job, Keys
from pipeline.manifest.kinds import NAME_PATTERN, Name, Price, Version
from pipeline.manifest.limits import Limits, Notify, Provider, Retry
from pipeline.manifest.mapping import Model
from pipeline.manifest.scalars import Path, Written


class ManifestFile(Model):
    """What images should exist. Running it makes them exist."""

    version: Version = Field(1, description="Always 1.")
    name: Name | None = Field(
        None, description="Part of every task's identity. Default: the file's name.", examples=["catalogue"]
    )
    provider: Provider | None = Field(None, description="Whose API is asked, and which key opens the door.")
    vars: dict[str, Written] | None = Field(
        None,
        description="For templates: {{ vars.brand }}. Values may hold ${ENV}, ${ENV:-default}, ${ENV:?why}.",
        examples=[{"brand": "Acme", "season": "${SEASON:-autumn}"}],
    )
    defaults: Keys | None = Field(None, description="Every job inherits these; a job's own key wins; null unsets.")
    limits: Limits | None = Field(None, description="Ceilings of one run.")
    retry: Retry | None = Field(None, description="How often one task may be asked.")
    prices: dict[str, Price] | None = Field(
        None, description="USD per image, or per size; overrides the built-in catalogue.", examples=[{"my-model": 0.04}]
    )
    output_dir: Path | None = Field(
        None, description="Where images land, relative to this file.", examples=["../outputs/catalogue"]
    )
    state_dir: Path | None = Field(
        None, description="Default: <output_dir>/.pipeline", examples=["../outputs/catalogue/.pipeline"]
    )
    notify: Notify | None = Field(None, description="Who is told when a run ends.")
    jobs: dict[Name, Job] = Field(
        description="Named entries: a prompt and what multiplies it.",
        min_length=1,
        examples=[{"posters": {"prompt": "A travel poster of {{ id }}", "items": {"oslo": {}, "lisbon": {}}}}],
        json_schema_extra={"propertyNames": {"pattern": NAME_PATTERN}},
    )


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
