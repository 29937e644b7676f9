"""Labs as plain data, taken as far as a test wants them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labctl.assets import Assets
from labctl.diagnostics import Diagnostic, Result
from labctl.knowledge import OfflineKnowledge
from labctl.model.lab import Lab, read_lab
from labctl.registry import Registry
from labctl.render import Rendered, render
from labctl.resolve.lab import PlacedLab, resolve

LLAMA = "hf://bartowski/Llama-3.1-8B-Stheno-v3.4-GGUF/Llama-3.1-8B-Stheno-v3.4-Q4_K_M.gguf"
NOMIC = "hf://nomic-ai/nomic-embed-text-v1.5-GGUF/nomic-embed-text-v1.5.Q8_0.gguf"
MODELS: Mapping[str, Any] = {
    "llama": {"gguf": LLAMA},
    "nomic": {"gguf": NOMIC},
    "qwen": {"hf": "Qwen/Qwen3-4B"},
    "tags": {"ollama": "llama3.1:8b"},
    "tiny": {"tiny": {"says": "hello"}},
}


MACHINE: Mapping[str, Any] = {"disk": "/dev/vda", "interface": "eth0"}
"""A ``nixos`` block with all that a machine has to say of itself."""


def box(*gpus: str, **keys: Any) -> dict[str, Any]:
    """Return a compose host with these cards."""
    cards = [{"model": name} for name in gpus]
    return {"address": "192.168.1.5", "target": "compose", "memory": "256 GiB", "gpus": cards, **keys}


def llama(**keys: Any) -> dict[str, Any]:
    """Return a deployment of the 8B model."""
    return {"model": "llama", "engine": "llama.cpp", **keys}


def lab(deployments: Mapping[str, Any], hosts: Mapping[str, Any] | None = None, /, **sections: Any) -> dict[str, Any]:
    """Return a lab; without hosts on one with two RTX 3090."""
    return {
        "lab": "test",
        "hosts": hosts or {"box": box("RTX 3090", "RTX 3090")},
        "models": dict(MODELS),
        "deployments": deployments,
        **sections,
    }


def valid(data: Mapping[str, Any]) -> Lab:
    """Return the lab; it has to be valid by the schema."""
    read = read_lab(data, Registry())
    assert read.value is not None, read.diagnostics
    assert read.ok, read.diagnostics
    return read.value


def taken(data: Mapping[str, Any]) -> Result[PlacedLab]:
    """Resolve a lab that is valid by the schema."""
    return resolve(valid(data), Registry(), OfflineKnowledge())


def placed(data: Mapping[str, Any]) -> PlacedLab:
    """Resolve a lab that has no errors."""
    found = taken(data)
    assert found.value is not None
    assert found.ok, errors(found.diagnostics)
    return found.value


def written(data: Mapping[str, Any], folder: Path = Path("/nonexistent")) -> Result[Rendered]:
    """Render a lab that resolves without errors."""
    found = placed(data)
    registry = Registry()
    targets = {name: registry.target(host.target) for name, host in found.lab.hosts.items()}
    return render(found, targets, Assets(folder).text)


def rendered(data: Mapping[str, Any]) -> Rendered:
    """Render a lab that has no errors."""
    found = written(data)
    assert found.value is not None
    assert found.ok, errors(found.diagnostics)
    return found.value


def errors(diagnostics: tuple[Diagnostic, ...]) -> list[str]:
    """Return the errors in a few words."""
    return [f"{d.code} {'.'.join(map(str, d.path or ()))}: {d.summary}" for d in diagnostics if d.is_error]


def codes(found: Result[Any]) -> list[str]:
    """Return the codes of the errors."""
    return [d.code for d in found.diagnostics if d.is_error]


def where(found: PlacedLab) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return for each server its host and cards."""
    return {s.name: (s.host.name, tuple(g.index for g in s.gpus)) for s in found.servers}
