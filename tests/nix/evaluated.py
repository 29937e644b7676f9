"""A rendered flake → the definitions of its hosts, evaluated by the real Nix over a stub of nixpkgs of our own.

It proves that the modules are Nix, name only arguments and functions that exist, and merge without contradiction. What
they define is then checked against labctl's own table of options. Nothing is built: there is no nixpkgs here.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from labctl.emit import nix
from labctl.emit.nix import Lambda, PathRef, Ref
from labctl.targets.nixos.options import Problem, check, table
from tests.nix import real_nix

STUB = Path(__file__).parent / "stub"
_NAME = r"""[A-Za-z_][A-Za-z0-9_'-]*|"[^"]+\""""
PACKAGES = frozenset(
    row["name"] for row in csv.DictReader(STUB.with_name("packages.csv").read_text("utf-8").splitlines())
)
"""Packages of nixpkgs that modules may name, each with its source; there is no nixpkgs here to look them up in."""
_OF_PACKAGES = frozenset({"override", "overrideAttrs", "overridePythonAttrs", "withPackages"})
_HELPERS = frozenset({"writeText", "writeShellScript", "writeShellScriptBin", "lib"})
_NAMED = re.compile(rf"(?<![.\w-])(pkgs|config)((?:\.(?:{_NAME}))+)")


def definitions(flake: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return each host's merged definitions, as values that ``check`` reads.

    ``flake`` is the folder of flake.nix. AssertionError with Nix's message when it cannot be evaluated.
    """
    files = sorted(flake.rglob("*.nix"))
    real_nix.parse(*files)
    unknown = [".".join(path) for path in _names(files)["pkgs"] if not _is_package(path)]
    assert not unknown, f"packages that tests/nix/packages.csv does not have: {unknown}"
    call = flake / "evaluate.nix.call"
    call.write_text(
        f"import {STUB} {{ flake = {flake}/flake.nix; names = {nix.dump(_names(files))}; units = {_units()}; }}",
        encoding="utf-8",
    )
    found: dict[str, Mapping[str, Any]] = _value(real_nix.evaluate(call), flake)
    return found


@cache
def _units() -> str:
    """Return, as Nix, what NixOS' modules define of their own units: a plain definition beside it is a conflict."""
    rows = csv.DictReader(STUB.with_name("units.csv").read_text("utf-8").splitlines())
    return nix.dump(
        [
            {
                "module": row["service"].split("."),
                "path": ["systemd", "services", row["unit"], *row["option"].split(".")],
                "value": json.loads(row["value"]),
            }
            for row in rows
        ]
    )


def problems(flake: Path, release: str) -> Mapping[str, list[Problem]]:
    """Return what labctl's table refuses of each host's definitions in a release."""
    return {host: list(check(of, release)) for host, of in definitions(flake).items()}


def unknown_reads(flake: Path) -> list[str]:
    """Return what modules read of ``config`` that is no option of the table and below none."""
    return [".".join(path) for path in _names(sorted(flake.rglob("*.nix")))["config"] if not _is_option(path)]


def _is_package(path: list[str]) -> bool:
    """Whether the table has a package, by itself or before a function of it or a helper."""
    *above, last = path
    return ".".join(path) in PACKAGES or (last in _OF_PACKAGES and ".".join(above) in PACKAGES) or path[0] in _HELPERS


def _is_option(path: Iterable[str]) -> bool:
    node = table.tree()
    for name in path:
        if node.option is not None and node.child(name) is None:
            return node.option.type.name in {"anything", "free", "attrsOf", "package"}
        below = node.child(name)
        if below is None:
            return False
        node = below
    return True


def _names(files: Iterable[Path]) -> dict[str, list[list[str]]]:
    """Return the packages and the values of the configuration that the files name, each once."""
    found: dict[str, set[tuple[str, ...]]] = {"pkgs": set(), "config": set()}
    for file in files:
        for root, path in _NAMED.findall(file.read_text(encoding="utf-8")):
            found[root].add(tuple(name.strip('"') for name in re.findall(_NAME, path)))
    return {root: sorted(map(list, paths)) for root, paths in found.items()}


def _value(value: Any, root: Path) -> Any:
    """Return what the stub's data stands for; paths are relative to the flake."""
    match value:
        case {"_package": str(path)}:
            return Ref(path)
        case {"_path": str(path)}:
            return PathRef(f"./{Path(path).relative_to(root)}")
        case {"_function": True}:
            return Lambda("given", None)
        case dict():
            return {key: _value(inner, root) for key, inner in value.items()}
        case list():
            return [_value(inner, root) for inner in value]
    return value
