"""The JSON Schema of lab.yaml, for editors: the shell, and the block of every engine, gateway and service by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from labctl.model.fields import one_as_many
from labctl.model.lab import Shell, Specs

Json = dict[str, Any]

_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def lab_schema(specs: Specs) -> Json:
    """Return the JSON Schema (draft 2020-12) of a lab with these engines, gateways and services.

    Rules that need more than one block, and rules between keys, are left to ``labctl validate``.
    """
    blocks = {axis: _blocks(specs, axis) for axis in ("engines", "gateways", "services")}
    models = {Shell, *(model for axis in blocks.values() for model in axis.values())}
    ordered = sorted(models, key=lambda model: model.__qualname__ + model.__module__)
    refs, definitions = models_json_schema([(m, "validation") for m in ordered], schema_generator=_Generator)
    by_model = {model: ref for (model, _), ref in refs.items()}
    defs: Json = _tidy(definitions["$defs"])
    shell: Json = defs.pop(by_model[Shell]["$ref"].rpartition("/")[2])
    keys = shell["properties"]
    for key, axis, discriminator in (("deployments", "engines", "engine"), ("gateway", "gateways", "engine")):
        block = _chosen(discriminator, {name: by_model[model] for name, model in blocks[axis].items()})
        keys[key] = {**keys[key], **_in_place(key, block)}
    services = {name: by_model[model] for name, model in blocks["services"].items()}
    defs["service-by-kind"] = _chosen("kind", services)
    keys["services"] = _services(keys["services"], services)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lab.yaml",
        **shell,
        "patternProperties": {"^x-": {"description": "ignored: a place for anchors"}},
        "$defs": dict(sorted(defs.items())),
    }


def _blocks(specs: Specs, axis: str) -> dict[str, type[BaseModel]]:
    find = {"engines": specs.engine, "gateways": specs.gateway, "services": specs.service}[axis]
    found = {name: find(name) for name in sorted(specs.names(axis))}
    return {name: model for name, model in found.items() if model is not None}


def _chosen(key: str, blocks: Mapping[str, Json]) -> Json:
    """Return a block whose key says which of several schemas it follows."""
    return {
        "type": "object",
        "required": [key],
        "properties": {key: {"enum": list(blocks)}},
        "allOf": [{"if": {"properties": {key: {"const": name}}}, "then": ref} for name, ref in blocks.items()],
    }


def _in_place(key: str, block: Json) -> Json:
    return {"additionalProperties": block} if key == "deployments" else {"anyOf": [block, {"type": "null"}]}


def _services(known: Json, services: Mapping[str, Json]) -> Json:
    """Return the schema of ``services``: what a service is follows from ``kind``, or else from its own name."""
    by_kind: Json = {"$ref": "#/$defs/service-by-kind"}
    named = {
        name: {"if": {"required": ["kind"]}, "then": by_kind, "else": {"anyOf": [ref, {"type": "null"}]}}
        for name, ref in services.items()
    }
    return {**known, "properties": named, "additionalProperties": by_kind}


class _Generator(GenerateJsonSchema):
    """Knows that one element may stand where a list is read."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        inner = super().function_before_schema(schema)
        if schema["function"]["function"] is one_as_many and "items" in inner:
            return {"anyOf": [inner["items"], inner]}
        return inner


def _tidy(value: Any) -> Any:
    """Drop pydantic's titles, and defaults that are spelt otherwise in the file (bytes for sizes)."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _tidy(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
    if "default" in kept and not _fits(kept["default"], kept):
        del kept["default"]
    return kept


def _fits(default: Any, schema: Json) -> bool:
    kinds: Iterable[Json] = schema.get("anyOf", [schema])
    return default is not None and any(isinstance(default, _TYPES.get(k.get("type", ""), ())) for k in kinds)
