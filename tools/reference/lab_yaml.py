"""The page of lab.yaml, from its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tools.reference.text import document, first_sentence, table

_HEAD: Final = """\
Every key, from the [JSON Schema](lab.schema.json) that editors read (`labctl schema` prints it; put
`# yaml-language-server: $schema=…` in the first line). Sizes are written `24 GiB` or `24 GB`, durations `60 s` or
`5 min`, powers `90 W`, rates `45 rpm`. Keys at the top that start with `x-` hold anything, for anchors. An
[engine's own keys](engines.md) and [services](services.md) have pages of their own.
"""
_BLOCKS: Final = (
    ("Host", "`hosts`: machines"),
    ("Gpu", "`hosts.*.gpus`: cards"),
    ("Cpu", "`hosts.*.cpu`"),
    ("Ssh", "`hosts.*.ssh`"),
    ("Model", "`models`"),
    ("Tiny", "`models.*.tiny`"),
    ("Placement", "`deployments.*.on`: placement"),
    ("Limits", "`deployments.*.limits`"),
    ("Build", "`deployments.*.build`: images built on the host"),
    ("LiteLLMBlock", "`gateway` with `engine: litellm`"),
    ("Keys", "`gateway.keys`"),
    ("Cooldown", "`gateway.cooldown`"),
    ("HealthChecks", "`gateway.health`"),
    ("CloudRoute", "`gateway.cloud`"),
    ("PassThrough", "`gateway.pass_through`"),
    ("Swap", "`gateway.swap` with `engine: litellm`"),
    ("BuiltinBlock", "`gateway` with `engine: builtin`"),
    ("BuiltinKeys", "`gateway.keys` with `engine: builtin`"),
    ("Queue", "`gateway.queue`"),
    ("User", "`gateway.keys.users`"),
    ("LlamaSwapBlock", "`gateway` with `engine: llama-swap`"),
    ("LlamaSwapKeys", "`gateway.keys` with `engine: llama-swap`"),
    ("LlamaRouterBlock", "`gateway` with `engine: llama-router`"),
    ("LlamaRouterKeys", "`gateway.keys` with `engine: llama-router`"),
    ("Group", "`groups`: deployments that take turns"),
    ("Images", "`images`"),
    ("Secrets", "`secrets`"),
)
_TOP: Final = {
    "deployments": ["name → deployment", "", "what serves which model where; `engine` chooses [the rest](engines.md)"],
    "gateway": ["gateway", "", "the one endpoint in front of everything"],
    "services": [
        "name → service",
        "",
        "databases, monitoring, pages…; `kind`, default: its name, chooses [the rest](services.md)",
    ],
}

_QUANTITIES: Final = {f"a {word}": word for word in ("size", "duration", "power", "rate")}
"""Descriptions of the types in ``labctl.model.base`` → how this page calls them."""

Schema = Mapping[str, Any]


def page(schema: Schema) -> str:
    """Return docs/reference/lab-yaml.md."""
    definitions = schema["$defs"]
    top = [[f"`{k}`", *(_TOP.get(k) or _cells(v))] for k, v in schema["properties"].items()]
    parts = [f"## At the top\n\n{table(_HEADING, top)}"]
    for name, title in _BLOCKS:
        parts.append(
            f"## {title}\n\n{first_sentence(definitions[name].get('description'))}\n\n{keys(definitions[name])}"
        )
    return document("lab.yaml", _HEAD, *parts)


_HEADING: Final = ("key", "value", "default", "")


def keys(block: Schema, without: frozenset[str] = frozenset()) -> str:
    """Return the table of a block's keys."""
    required = block.get("required", ())
    return table(
        _HEADING,
        [
            [f"`{name}`" + (" (required)" if name in required else ""), *_cells(value)]
            for name, value in block.get("properties", {}).items()
            if name not in without
        ],
    )


def _cells(value: Schema) -> list[str]:
    default = value.get("default")
    shown = "" if default in (None, [], {}, "") or isinstance(default, dict) else f"`{_plain(default)}`"
    examples = value.get("examples")
    text = " ".join(str(value.get("description", "")).split())
    return [kind(value), shown, text + (f"; e.g. `{_plain(examples[0])}`" if examples else "")]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def kind(value: Schema) -> str:
    """Return what a value may be, in a few words."""
    if "$ref" in value:
        return _word(str(value["$ref"]).rpartition("/")[2])
    if "enum" in value or "const" in value:
        found = value.get("enum") or [value["const"]]
        return ", ".join(f"`{_plain(v)}`" for v in found)
    if "anyOf" in value:
        words = [kind(v) for v in value["anyOf"] if v.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    return _typed(value)


def _typed(value: Schema) -> str:
    match value.get("type"):
        case "array":
            items = value.get("items") or {}
            return f"list of {kind(items)}" if items else "list"
        case "object":
            patterns = value.get("patternProperties") or {}
            inner = value.get("additionalProperties") or next(iter(patterns.values()), None)
            return f"name → {kind(inner)}" if isinstance(inner, dict) and inner else "mapping"
        case "string":
            return _QUANTITIES.get(str(value.get("description")), "text")
        case "integer" | "number":
            return "number"
        case "boolean":
            return "`true`, `false`"
        case _:
            return "anything"


def _word(name: str) -> str:
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    return spaced.removesuffix(" block")
