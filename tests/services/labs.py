"""Labs with services, rendered; and the programs of Debian that check what services read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from labctl.render import Rendered
from labctl.workload import ConfigFile, Workload
from tests.resolve import labs

GATEWAY = {"engine": "litellm", "host": "box"}
CHAT = {
    "model": "llama",
    "engine": "llama.cpp",
    "context": 8192,
    "slots": 1,
    "on": {"host": "box"},
    "serves": ("chat",),
}
EMBED = {**CHAT, "model": "nomic", "task": "embed", "context": 2048, "serves": ("vectors",)}


def hosts(*targets: str, cards: Sequence[str] = ("RTX 3090", "RTX 3090")) -> dict[str, Any]:
    """Return ``box`` with two cards and, for each further target, one without: ``box1``, ``box2`` and so on."""
    first = {"box": labs.box(*cards, target=targets[0] if targets else "compose", address="10.0.0.1")}
    others = {f"box{i}": labs.box(target=t, address=f"10.0.0.{i + 1}") for i, t in enumerate(targets) if i}
    return {**first, **others}


def lab(services: Mapping[str, Any], *, gateway: Mapping[str, Any] | None = None, **sections: Any) -> Rendered:
    """Return a lab with a chat and an embedding server behind LiteLLM, and these services, rendered."""
    sections.setdefault("deployments", {"chat": CHAT, "vectors": EMBED})
    deployments = sections.pop("deployments")
    where = sections.pop("hosts", hosts("compose"))
    front = {**GATEWAY, **(gateway or {})}
    return labs.rendered(labs.lab(deployments, where, gateway=front, services=dict(services), **sections))


def of(found: Rendered, name: str) -> Workload:
    """Return the workload of that name."""
    (workload,) = [w for w in found.workloads if w.name == name]
    return workload


def file(found: Rendered, name: str, path: str) -> ConfigFile:
    """Return one of a workload's configuration files."""
    (config,) = [f for f in of(found, name).files if f.name == path]
    return config


def laid(found: Rendered, name: str, folder: Path) -> Path:
    """Write a workload's configuration files into a folder."""
    for config in of(found, name).files:
        (folder / config.name).write_text(config.content)
    return folder


def program(name: str, package: str) -> str:
    """Return a program of Debian's; skip the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package}): what it reads is not checked")
    return path


def accepted(*command: str) -> None:
    """Fail with its own words when a program does not accept something."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
