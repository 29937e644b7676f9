"""The JSON Schema of lab.yaml, for editors: the shell's schema with the open axes' own blocks put in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from pydantic import BaseModel

from labctl.model.base import NAME_PATTERN
from labctl.model.lab import Shell, Specs

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Block = type[BaseModel] | None


def lab_schema(specs: Specs) -> dict[str, Any]:
    """Return the schema of a whole lab: engines, gateways and services chosen by their discriminating key."""
    schema = Shell.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    properties = schema["properties"]
    properties["deployments"] = _named(_choice(definitions, specs.names("engines"), specs.engine, "engine"))
    properties["gateway"] = _choice(definitions, specs.names("gateways"), specs.gateway, "engine")
    properties["services"] = _services(definitions, specs)
    schema["patternProperties"] = {"^x-": {"description": "anything, for anchors"}}
    hosts = definitions["Host"]["properties"]
    hosts["target"] = {**hosts["target"], "enum": sorted(specs.names("targets"))}
    return {"$schema": DIALECT, "title": "lab.yaml", **{k: v for k, v in schema.items() if k != "title"}}


def _named(block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "propertyNames": {"pattern": NAME_PATTERN}, "additionalProperties": block}


def _choice(
    definitions: dict[str, Any], names: Iterable[str], find: Callable[[str], Block], key: str
) -> dict[str, Any]:
    """Return a block whose other keys depend on the value of ``key``."""
    known = sorted(names)
    branches = [
        {"if": {"properties": {key: {"const": name}}}, "then": {"$ref": _define(definitions, find(name))}}
        for name in known
    ]
    return {"type": "object", "required": [key], "properties": {key: {"enum": known}}, "allOf": branches}


def _services(definitions: dict[str, Any], specs: Specs) -> dict[str, Any]:
    """Return the services: the block of each known key, and any other key with a ``kind``."""
    names = sorted(specs.names("services"))
    by_key = {
        name: {"anyOf": [{"$ref": _define(definitions, specs.service(name))}, {"type": "null"}]} for name in names
    }
    other = _choice(definitions, names, specs.service, "kind")
    return {"type": "object", "properties": by_key, "additionalProperties": other}


def _define(definitions: dict[str, Any], block: Block) -> str:
    """Put a block's schema among the definitions, once, and return a reference to it."""
    if block is None:
        return "#/$defs/Anything"
    if block.__name__ not in definitions:
        schema = block.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
        for name, own in {**schema.pop("$defs", {}), block.__name__: schema}.items():
            if definitions.setdefault(name, own) != own:
                message = f"two different blocks are called {name}: editors would know one of them alone"
                raise ValueError(message)
    return f"#/$defs/{block.__name__}"
