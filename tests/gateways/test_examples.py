"""Every LiteLLM configuration that an example renders to is one that LiteLLM takes whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.usecases import load

strict = pytest.importorskip("tests.gateways.strict", reason="LiteLLM is not installed", exc_type=ImportError)

EXAMPLES = Path(__file__).parents[2] / "examples"
WITH_LITELLM = sorted(p.parent.name for p in EXAMPLES.glob("*/lab.yaml") if "engine: litellm" in p.read_text())


@pytest.mark.parametrize("name", WITH_LITELLM)
def test_example(name: str) -> None:
    loaded = load(EXAMPLES / name)
    assert loaded.lab is not None
    assert loaded.lab.gateway is not None
    files = [f for w in loaded.need_rendered().workloads if w.name == "gateway" for f in w.files]
    (config,) = [f for f in files if f.name == "config.yaml"]
    assert strict.problems(config.content) == []


def test_there_are_examples() -> None:
    assert {"p106-farm", "two-machine-vllm", "quickstart"} <= set(WITH_LITELLM)
