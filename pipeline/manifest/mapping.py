"""What every mapping of a manifest has in common: known keys only, `x-` keys ignored, a short form where there is one.

In: a tree. Out: a checked model, or errors that `problems` gives a place. It knows no key by name.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from pipeline.manifest.resolution import is_null
from pipeline.manifest.scalars import fault, shown


class Model(BaseModel):
    """A mapping of known keys. Keys that start with `x-` are ignored; null is as if the key were not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    keeps_nulls: ClassVar[bool] = False
    short_schema: ClassVar[dict[str, Any] | None] = None  # of the one value that may stand for the mapping

    @classmethod
    def expand(cls, value: object) -> object:
        """Turn the short form into the mapping it stands for."""
        return value

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, value: object) -> object:
        mapping = cls.expand(value)
        if not isinstance(mapping, dict):
            raise fault(f"must be a mapping, this is {shown(value)}", "write `key: value` lines below it")
        known = {key: None if is_null(item) else item for key, item in mapping.items() if not key.startswith("x-")}
        if cls.keeps_nulls:
            return known
        return {key: item for key, item in known.items() if item is not None or key not in cls.model_fields}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        schema["patternProperties"] = {"^x-": {}}
        or_null(schema)
        if cls.short_schema is None:
            return schema
        description = schema.pop("description", None)
        return {"anyOf": [cls.short_schema, schema]} | ({"description": description} if description else {})


def or_null(schema: dict[str, Any]) -> None:
    """Let every key that may be left out be null as well: `_tidy` reads it so."""
    for key, value in schema["properties"].items():
        if key not in schema.get("required", ()) and {"type": "null"} not in value.get("anyOf", ()):
            about = {name: value.pop(name) for name in ("description", "default", "examples") if name in value}
            schema["properties"][key] = {"anyOf": [value, {"type": "null"}]} | about


def scalar_as(key: str) -> Callable[[object], object]:
    """Return an `expand` that reads one value as `{key: value}`."""
    return lambda value: {key: value} if isinstance(value, str) else value
