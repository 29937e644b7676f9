"""Labs on NixOS, and what the real Nix makes of the modules that they render to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labctl.artefact import File, Manager, SecretFile, Unit
from labctl.emit.nix import Ref
from labctl.render import Rendered
from tests.nix import evaluated
from tests.resolve import labs

RELEASES = ("25.11", "26.05", "26.11")


def box(*cards: str, **machine: Any) -> dict[str, Any]:
    """Return a NixOS host with these cards; ``machine`` is laid over its block."""
    host = labs.box(*cards, target="nixos", address="192.0.2.20")
    return host | {"nixos": {**labs.MACHINE, **machine}}


def lab(deployments: Mapping[str, Any], host: Mapping[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    """Return a lab on one NixOS host, with an RTX 3090 unless another is given."""
    return labs.lab(deployments, {"box": host or box("RTX 3090")}, **sections)


def llama(*gpus: int, **keys: Any) -> dict[str, Any]:
    """Return a deployment of the 8B model on cards of the host."""
    return labs.llama(on={"host": "box", "gpus": gpus}, context=4096, **keys)


def ollama(*gpus: int, **keys: Any) -> dict[str, Any]:
    """Return a deployment of a model of Ollama's library on cards of the host."""
    return {"models": ("tags",), "engine": "ollama", "on": {"host": "box", "gpus": gpus}, **keys}


def files(rendered: Rendered) -> list[File]:
    """Return the files of the flake."""
    return [file for file in rendered.tree.files() if "/flake/" in file.path]


def options(data: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Return the host's merged definitions, as Nix evaluates what is rendered."""
    flake = write(labs.rendered(data), folder)
    return evaluated.definitions(flake)["box"]


def write(rendered: Rendered, folder: Path) -> Path:
    """Write the flake; returns its folder."""
    for file in files(rendered):
        path = folder / file.path.partition("/flake/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    return folder


def unit(rendered: Rendered, name: str) -> Unit:
    """Return the unit of a workload."""
    (found,) = [u for u in rendered.tree.units if u.name == name and u.manager is Manager.NIXOS]
    return found


def secrets(rendered: Rendered) -> dict[str, SecretFile]:
    """Return the secret files that labctl itself brings, by path."""
    return {a.path: a for a in rendered.tree.artefacts if isinstance(a, SecretFile)}


def name_of(package: object) -> str:
    """Return what a package is called: ``pkgs.ollama-cuda``."""
    assert isinstance(package, Ref), package
    return package.path
