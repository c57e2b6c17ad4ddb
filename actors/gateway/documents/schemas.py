"""Pydantic models as JSON Schema (2020-12) of both documents.

What is published is what consumers may rely on: answers and frames may grow fields, so nothing is closed with
`additionalProperties: false` but maps whose keys have a pattern. A free JSON value is spelt out as what we take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from actors.protocol.codes import ERRORS
from actors.protocol.defaults import MAX_JSON_DEPTH, MAX_SAFE_INTEGER

Schema = dict[str, Any]
REF: Final = "#/components/schemas/{model}"
FREE: Final[Schema] = {
    "description": f"any JSON: UTF-8, numbers within ±2^53, nested up to {MAX_JSON_DEPTH}",
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "number", "minimum": -MAX_SAFE_INTEGER, "maximum": MAX_SAFE_INTEGER},
        {"type": "array", "items": {"$ref": REF.format(model="JsonValue")}},
        {"type": "object", "additionalProperties": {"$ref": REF.format(model="JsonValue")}},
    ],
}

# A field that we do not know is ignored, but it has to be JSON that we read.
IGNORED: Final[Schema] = {"additionalProperties": {"$ref": REF.format(model="JsonValue")}}


def components(bodies: Sequence[type[BaseModel]], answers: Sequence[type[BaseModel]]) -> dict[str, Schema]:
    """By name. Raises ValueError if two models have one name, or a model would be published in two shapes."""
    asked = [(model, "validation") for model in bodies] + [(model, "serialization") for model in answers]
    _, made = models_json_schema(asked, ref_template=REF)  # type: ignore[arg-type]
    schemas: dict[str, Schema] = made["$defs"]
    names = {model.__name__ for model, _ in asked}
    if not names <= schemas.keys():
        raise ValueError(f"published in two shapes, or twice: {sorted(names - schemas.keys())}")
    schemas["JsonValue"] = {}
    taken = set(models_json_schema([(m, "validation") for m in bodies], ref_template=REF)[1].get("$defs", {}))
    return {name: _tidy(s) | (IGNORED if name in taken else {}) for name, s in sorted(schemas.items())} | {
        "JsonValue": FREE
    }


def ref(model: type[BaseModel]) -> Schema:
    return {"$ref": REF.format(model=model.__name__)}


def problem(codes: Iterable[str]) -> Schema:
    """A problem body that has one of these codes, and its status."""
    listed = sorted(codes)
    (status,) = {ERRORS[code].status for code in listed}
    narrowed = {"properties": {"code": {"enum": listed}, "status": {"const": status}}}
    return {"allOf": [{"$ref": REF.format(model="Problem")}, narrowed]}


def _tidy(schema: Any) -> Any:
    """Without pydantic's titles, which only repeat the names; open where it may grow, closed where it may not."""
    if isinstance(schema, list):
        return [_tidy(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: _tidy(one) for name, one in value.items()}
        elif key == "title" or (key == "additionalProperties" and value is False):
            continue
        elif key in ("default", "enum", "const", "examples"):
            made[key] = value
        else:
            made[key] = _tidy(value)
    if "patternProperties" in made:
        made["additionalProperties"] = False
    if isinstance(text := made.get("description"), str):
        made["description"] = " ".join(text.split())
    return made
