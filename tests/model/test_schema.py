"""The JSON Schema for editors says what labctl itself takes, for every gateway and example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from labctl.model.schema import _define, lab_schema
from labctl.registry import Registry

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: the schema is not tried out")

EXAMPLES = Path(__file__).parents[2] / "examples"
GATEWAYS: dict[str, dict[str, Any]] = {
    "litellm": {"keys": {"database": "none", "master": "A", "salt": "B"}, "swap": {"queue": {"patience": "5 s"}}},
    "builtin": {"keys": {"users": {"alice": {"key": "A", "models": ["chat"], "parallel": 2}}}, "idle": "5 min"},
    "llama-swap": {"keys": {"users": {"alice": "A"}}, "requests": 5},
    "llama-router": {"keys": {"master": "A"}, "preload": ["chat"]},
}


def problems(lab: dict[str, Any]) -> list[str]:
    checker = jsonschema.Draft202012Validator(lab_schema(Registry()))
    return [error.message for error in checker.iter_errors(lab)]


@pytest.mark.parametrize("engine", sorted(GATEWAYS))
def test_each_gateway_has_its_own_keys(engine: str) -> None:
    base = {"lab": "sample", "hosts": {"box": {"target": "compose"}}}
    assert problems({**base, "gateway": {"engine": engine, **GATEWAYS[engine]}}) == []
    for other, keys in GATEWAYS.items():
        if other != engine and set(keys["keys"]) - {"master"} and keys["keys"] != GATEWAYS[engine]["keys"]:
            assert problems({**base, "gateway": {"engine": engine, "keys": keys["keys"]}}), other


@pytest.mark.parametrize("name", sorted(p.parent.name for p in EXAMPLES.glob("*/lab.yaml")))
def test_examples(name: str) -> None:
    assert problems(YAML(typ="safe", pure=True).load(EXAMPLES / name / "lab.yaml")) == []


def test_two_blocks_of_one_name_are_refused() -> None:
    """One would stand for both, and an editor would call the other one's keys wrong."""
    first, second = (type("Keys", (BaseModel,), {"__annotations__": {key: int}}) for key in ("a", "b"))
    definitions: dict[str, Any] = {}
    _define(definitions, type("One", (BaseModel,), {"__annotations__": {"keys": first}}))
    with pytest.raises(ValueError, match="Keys"):
        _define(definitions, type("Two", (BaseModel,), {"__annotations__": {"keys": second}}))
