"""The API's own strict schemas, from ``kubernetes-validate``, with validators that are made once.

A kind without a schema is a failure, not a warning. k3s' own resources are held against the custom resources that the
test rig installs.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

VERSION = "1.36.0"
RIG = Path(__file__).parents[1] / "rig" / "kube" / "seed.yaml"


@functools.cache
def _folder() -> Path:
    package = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    folder = Path(package.__file__).parent / "kubernetes-json-schema" / f"v{VERSION}-local-strict"
    assert folder.is_dir(), f"kubernetes-validate has no schemas for {VERSION}"
    return folder


@functools.cache
def _registry() -> Any:
    referencing: Any = importlib.import_module("referencing")  # comes with kubernetes-validate
    draft: Any = importlib.import_module("referencing.jsonschema").DRAFT202012
    definitions = json.loads((_folder() / "_definitions.json").read_text())
    # Crawled once: else every lookup would do it.
    resource = referencing.Resource.from_contents(definitions, default_specification=draft)
    return referencing.Registry().with_resource("_definitions.json", resource).crawl()


@functools.cache
def _custom() -> Mapping[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for document in yaml.safe_load_all(RIG.read_text()):
        if document and document["kind"] == "CustomResourceDefinition":
            spec = document["spec"]
            for version in spec["versions"]:
                schema = _closed(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}, "status": {}}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _closed(schema: Any) -> Any:
    """Return a schema that refuses what it does not name, as the API server does for its own kinds."""
    if isinstance(schema, dict):
        inner = {k: _closed(v) for k, v in schema.items()}
        return inner | ({"additionalProperties": False} if "properties" in inner else {})
    return schema


@functools.cache
def _validator(api: str, kind: str) -> Any:
    draft: Any = importlib.import_module("jsonschema").Draft202012Validator  # comes with kubernetes-validate
    if (api, kind) in _custom():
        return draft(_custom()[api, kind])
    group, _, version = api.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)
    file = _folder() / f"{name}.json"
    if not file.exists():
        return None
    return draft(json.loads(file.read_text()), registry=_registry())


def problems(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a strict server would say of an object, and that there is no schema for it."""
    api, kind = str(value["apiVersion"]), str(value["kind"])
    validator = _validator(api, kind)
    if validator is None:
        yield f"there is no schema for {api} {kind}"
        return
    for error in validator.iter_errors(value):
        yield f"{kind}/{value['metadata']['name']} {error.json_path}: {error.message}"
