"""The flakes that the examples render to: evaluated by Nix, and every definition an option of the release they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from labctl.artefact import File, Manager
from tests.examples.labs import EXAMPLES, NAMES, example, tree
from tests.nix import evaluated

_BRANCH = re.compile(r"github:NixOS/nixpkgs/nixos-([0-9.]+|unstable)")
_NEXT = "26.11"
"""What `nixos-unstable` is to become."""


NIXOS = [name for name in NAMES if "nixos" in (EXAMPLES / name / "lab.yaml").read_text(encoding="utf-8")]


def flakes(name: str) -> Mapping[str, list[File]]:
    """Return the files of each NixOS host's flake in an example, by the host."""
    rendered = tree(example(name))
    hosts = {unit.host for unit in rendered.units if unit.manager is Manager.NIXOS}
    files = list(rendered.files())
    return {host: [file for file in files if file.host == host and "/flake/" in file.path] for host in sorted(hosts)}


def write(files: Iterable[File], folder: Path) -> Path:
    """Write a flake's files; returns the folder of flake.nix."""
    for file in files:
        path = folder / file.path.partition("/flake/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    return folder


def release(flake: Path) -> str:
    """Return the release whose branch the flake follows."""
    (found,) = _BRANCH.findall((flake / "flake.nix").read_text(encoding="utf-8"))
    return _NEXT if found == "unstable" else str(found)


@pytest.mark.parametrize("name", NIXOS)
def test_every_definition_is_an_option(name: str, tmp_path: Path) -> None:
    hosts = flakes(name)
    assert hosts, "the example is about NixOS, and has no such host"
    for host, files in hosts.items():
        flake = write(files, tmp_path / host)
        problems = evaluated.problems(flake, release(flake))
        assert problems == {host: []}
        assert not evaluated.unknown_reads(flake)


def test_there_are_such_examples() -> None:
    assert NIXOS
