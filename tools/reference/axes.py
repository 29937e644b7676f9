"""The pages of engines and of targets."""

from __future__ import annotations

import importlib
from typing import Any

from labctl import engines, services, targets
from labctl.compat import builds
from labctl.model.deployment import Deployment
from labctl.workload import Capability
from tools.reference.lab_yaml import keys
from tools.reference.text import document, first_sentence, table

_ENGINES = """\
An engine is chosen per deployment with `engine:`. All of them know the first table's keys; each has its own besides.
Which cards and processors a build runs on, and which labctl takes when none is named, stands under
[compatibility](../compatibility.md).
"""
_TARGETS = """\
A target is chosen per host with `target:`. What a deployment needs and its host's target cannot express is an error
(LAB080) before anything is rendered.
"""


def engines_page(schema: dict[str, Any]) -> str:
    """Return docs/reference/engines.md."""
    definitions = schema["$defs"]
    common = frozenset(Deployment.model_fields)
    block = Deployment.model_json_schema()
    parts = [f"## Every engine\n\n{keys(block)}"]
    for name, place in engines.ENGINES.items():
        module = importlib.import_module(place.partition(":")[0])
        own = keys(definitions[engines.load(name).spec.__name__], without=common)
        parts.append("\n\n".join([f"## `{name}`", first_sentence(module.__doc__), own, _builds(name)]))
    return document("Engines", _ENGINES, *parts)


def _builds(engine: str) -> str:
    rows = [
        [f"`{b.flavour}`", b.version, f"`{b.image}`" if b.image else "a program of the host"] for b in builds.of(engine)
    ]
    return table(["flavour", "version", "image"], rows) if rows else ""


def targets_page() -> str:
    """Return docs/reference/targets.md."""
    loaded = {name: targets.load(name) for name in targets.TARGETS}
    rows = [
        [capability.value, *("yes" if capability in target.accepts else "" for target in loaded.values())]
        for capability in Capability
    ]
    parts = [table(["can express", *(f"`{n}`" for n in loaded)], rows)]
    for name, place in targets.TARGETS.items():
        parts.append(f"## `{name}`\n\n{first_sentence(importlib.import_module(place.partition(':')[0]).__doc__)}")
    coming = [["service", f"`{n}`", text] for n, text in services.COMING.items()]
    later = "## Still to come\n\nlab.yaml knows these; this version says so in a note and renders the rest."
    return document("Targets", _TARGETS, *parts, later, table(["axis", "name", "is"], coming))
