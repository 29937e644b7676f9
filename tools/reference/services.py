"""The page of services."""

from __future__ import annotations

import importlib
from typing import Any

from labctl import services
from labctl.compat import builds
from labctl.model.service import ServiceBlock
from labctl.services.common import Environment, Stored
from tools.reference.lab_yaml import keys
from tools.reference.text import document, first_sentence, table

_INTRODUCTION = """\
A service runs beside the models: `services: {phoenix: {host: prod}}`. Its key says which one it is, or `kind:` does.
Nobody writes addresses: what a service asks, and who asks it, follows from what the lab has. In a private network
services find each other by name; a port is published only for pages that people open, and where another host needs it.

Services that ask the gateway have keys of their own: virtual keys where the gateway has a database
(`gateway.keys.database`), else keys that LiteLLM checks by itself. Each is good for models or for figures, and for
nothing else.
"""
_STORED = """\
## Services with data

Their volume outlives everything but `labctl destroy --data`.
"""
_MORE = {
    "open-webui": "It is told of the gateway, of SearXNG, and of an embedding model to search documents with.",
    "phoenix": "LiteLLM sends it a trace of every request. It asks nobody for a password: keep it inside.",
    "prometheus": """\
It collects the figures of the gateway, llama.cpp, vLLM, cards and services. Alerts follow from the lab: a program that
does not answer, cards that are hot, full or hold more than planned, a gateway that fails or is slow, requests that
wait.""",
    "postgres": "A service with `database: postgres` gets a database of its own there, made by a task.",
    "neo4j": "With `schema:` a task makes constraints and indexes, and runs again when they change.",
    "monitoring": """\
It stands for `prometheus`, `grafana`, `alertmanager` and a `gpu-exporter` on every host with cards; each that is
declared by itself is left out here.""",
}
_INSIDE = {
    "neo4j": (
        ("Schema", "schema"),
        ("Keyed", "an entry of `unique`, `indexes`, `full_text`"),
        ("VectorIndex", "of `vectors`"),
    )
}
"""Service → blocks inside its own: definition, and what it is."""


def services_page(schema: dict[str, Any]) -> str:
    """Return docs/reference/services.md."""
    definitions = schema["$defs"]
    common = frozenset(ServiceBlock.model_fields)
    parts = [f"## Every service\n\n{keys(ServiceBlock.model_json_schema())}"]
    parts.append(f"{_STORED}\n{keys(Stored.model_json_schema(), without=common)}")
    for name, place in services.SERVICES.items():
        options = services.load(name).options
        known = frozenset(Stored.model_fields) if issubclass(options, Stored) else common
        known |= frozenset(Environment.model_fields) if issubclass(options, Environment) else frozenset()
        first = first_sentence(importlib.import_module(place.partition(":")[0]).__doc__)
        own = keys(definitions[options.__name__], without=known)
        inside = [f"{title[0].upper() + title[1:]}:\n\n{keys(definitions[d])}" for d, title in _INSIDE.get(name, ())]
        blocks = [f"## `{name}`", first, _MORE.get(name, ""), _facts(name), own, *inside]
        parts.append("\n\n".join(block for block in blocks if block))
    rows = [[f"`{name}`", text] for name, text in services.COMING.items()]
    later = "## Still to come\n\nlab.yaml knows these; this version says so in a note and renders the rest."
    return document("Services", _INTRODUCTION, *parts, later, table(["name", "is"], rows))


def _facts(name: str) -> str:
    service = services.load(name)
    if not service.ports:
        return ""
    ports = ", ".join(
        f"`{port}` {number}{' (a page)' if port == service.page else ''}" for port, number in service.ports.items()
    )
    images = ", ".join(f"`{b.image}`" for b in builds.of(name) if b.image)
    asks = ", ".join(f"`{kind}`" for kind in service.calls) or "-"
    return table(["image", "ports inside", "asks"], [[images, ports, asks]])
