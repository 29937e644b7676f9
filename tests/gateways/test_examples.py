"""Every LiteLLM configuration that an example renders to is one that LiteLLM takes whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.usecases import load, tree_files

strict = pytest.importorskip("tests.gateways.strict", reason="LiteLLM is not installed", exc_type=ImportError)

EXAMPLES = Path(__file__).parents[2] / "examples"
WITH_LITELLM = sorted(p.parent.name for p in EXAMPLES.glob("*/lab.yaml") if "engine: litellm" in p.read_text())


@pytest.mark.parametrize("name", WITH_LITELLM)
def test_example(name: str) -> None:
    loaded = load(EXAMPLES / name)
    assert loaded.lab is not None
    assert loaded.lab.gateway is not None
    files = tree_files(loaded.need_rendered())
    found = [path for path in files if path.endswith("gateway/config.yaml")]
    targets = {host.target for host in loaded.lab.hosts.values()}
    if "k3s" in targets:
        pytest.skip(f"{name}: Kubernetes manifests come with a later version, so nothing is rendered for it")
    assert len(found) == 1
    assert strict.problems(files[found[0]].decode()) == []


def test_there_are_examples() -> None:
    assert {"p106-farm", "two-machine-vllm", "quickstart"} <= set(WITH_LITELLM)
