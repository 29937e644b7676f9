"""The folder that ``labctl render`` writes is a flake of all NixOS hosts; its lock is its owner's."""

from __future__ import annotations

from pathlib import Path

from labctl import folder
from tests.examples.labs import example, tree
from tests.nix import real_nix

CALL = """
let
  lab = import ./flake.nix;
  stub = { lib.nixosSystem = system: builtins.length system.modules; nixosModules.disko = null; };
  own = host: input:
    let flake = import (./. + builtins.substring 6 (-1) input.url + "/flake.nix");
    in flake.outputs (builtins.mapAttrs (name: of: stub) flake.inputs);
in
(lab.outputs (builtins.mapAttrs own lab.inputs)).nixosConfigurations
"""
"""What Nix does with a flake's inputs, by hand: paths are relative to it. nixpkgs and disko are stand-ins."""


def rendered(to: Path) -> folder.Changes:
    wanted = folder.wanted_files(tree(example("nixos-native")))
    changes = folder.compare(to, wanted)
    folder.write(to, wanted, changes)
    return changes


def test_one_flake_has_every_host(tmp_path: Path) -> None:
    rendered(tmp_path)
    call = tmp_path / "call.nix"
    call.write_text(CALL)
    assert real_nix.evaluate(call) == {"ember": 2, "hearth": 2}


def test_its_lock_is_kept(tmp_path: Path) -> None:
    rendered(tmp_path)
    (tmp_path / "flake.lock").write_text("{}")
    (tmp_path / "ember/flake.lock").write_text("{}")
    assert rendered(tmp_path).extra == ("ember/flake.lock",)
    assert (tmp_path / "flake.lock").read_text() == "{}"


def test_a_lab_without_such_hosts_has_none() -> None:
    assert "flake.nix" not in folder.wanted_files(tree(example("p106-farm")))
