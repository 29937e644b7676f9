"""The stub of nixpkgs that flakes are evaluated over: it merges as NixOS does, and mistakes are not merged away."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.emit import nix
from labctl.emit.nix import Call, Lambda, PathRef, Ref, Text
from labctl.targets.nixos.options import Kind
from tests.nix import evaluated
from tests.nix.test_options import GOOD


def flake(folder: Path, **modules: str) -> Path:
    """Write a flake whose host `lab` imports these modules, each a text."""
    for name, text in modules.items():
        (folder / f"{name}.nix").write_text(text, encoding="utf-8")
    host = nix.Call("nixpkgs.lib.nixosSystem", {"modules": [PathRef(f"./{name}.nix") for name in modules]})
    body: dict[str, nix.Value] = {
        "inputs": {
            "nixpkgs": {"url": "github:NixOS/nixpkgs/nixos-26.05"},
            "sops-nix": {"url": "github:Mic92/sops-nix"},
        },
        "outputs": Lambda(("nixpkgs", "sops-nix"), {"nixosConfigurations": {"lab": host}}),
    }
    (folder / "flake.nix").write_text(nix.module((), body), encoding="utf-8")
    return folder


def test_definitions_merge_as_in_nixos(tmp_path: Path) -> None:
    one = """{ lib, config, ... }: {
      imports = [ ./more.nix { from.inside = true; } ];
      scalar = lib.mkDefault 1;
      forced = 1;
      same = "x";
      set = { a = 1; deep.b = 2; };
      list = [ 3 4 ];
      conditions = lib.mkMerge [ { a = lib.mkIf true 1; b = lib.mkIf false 1; } (lib.mkIf config.same2 { c = 1; }) ];
      same2 = true;
      read = config.set.deep.c + config.scalar;
      made = lib.genAttrs [ "x" "y" ] (name: { inherit name; });
      shell = lib.escapeShellArgs [ "a b" "it's" ];
    }"""
    two = """{ lib, ... }: {
      scalar = 2;
      forced = lib.mkForce 9;
      same = "x";
      set.deep.c = 3;
      list = lib.mkMerge [ (lib.mkBefore [ 1 2 ]) (lib.mkAfter [ 5 ]) (lib.optional false 6) (lib.optional true 4) ];
    }"""
    more = "{ set.more = [ ]; empty = { }; }"
    (tmp_path / "more.nix").write_text(more, encoding="utf-8")
    assert evaluated.definitions(flake(tmp_path, one=one, two=two))["lab"] == {
        "scalar": 2,
        "forced": 9,
        "same": "x",
        "same2": True,
        "set": {"a": 1, "deep": {"b": 2, "c": 3}, "more": []},
        "empty": {},
        "list": [1, 2, 3, 4, 4, 5],
        "conditions": {"a": 1, "c": 1},
        "read": 5,
        "made": {"x": {"name": "x"}, "y": {"name": "y"}},
        "shell": "'a b' 'it'\\''s'",
        "from": {"inside": True},
    }


def test_packages_paths_and_functions_are_told_apart(tmp_path: Path) -> None:
    body: dict[str, nix.Value] = {
        "package": Ref("pkgs.ollama-cuda"),
        "overridden": Call("pkgs.llama-cpp.override", {"cudaSupport": True}),
        "nested": [Ref("pkgs.rocmPackages.clr"), Ref("pkgs.rocmPackages.clr.icd")],
        "driver": Ref("config.boot.kernelPackages.nvidiaPackages.legacy_470"),
        "command": Text(Ref("pkgs.llama-cpp"), "/bin/llama-server"),
        "program": Call("lib.getExe", Ref("pkgs.ollama-cuda")),
        "path": PathRef("./files/a.yaml"),
        "stored": Text(PathRef("./one.nix")),
        "predicate": Lambda("pkg", Call("lib.getName", Ref("pkg"))),
    }
    found = dict(evaluated.definitions(flake(tmp_path, one=nix.module(("config", "lib", "pkgs"), body)))["lab"])
    assert str(found.pop("stored")).startswith("/nix/store/")
    assert found == {
        "package": Ref("pkgs.ollama-cuda"),
        "overridden": Ref("pkgs.llama-cpp"),
        "nested": [Ref("pkgs.rocmPackages.clr"), Ref("pkgs.rocmPackages.clr.icd")],
        "driver": Ref("config.boot.kernelPackages.nvidiaPackages.legacy_470"),
        "command": "/nix/store/00000000000000000000000000000000-llama-cpp/bin/llama-server",
        "program": "/nix/store/00000000000000000000000000000000-ollama-cuda/bin/ollama-cuda",
        "path": PathRef("./files/a.yaml"),
        "predicate": Lambda("given", None),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{ a = 1; b = [ 1 ; }", "syntax error"),
        ("{ lib, ... }: { a = lib.mkForced 1; }", "mkForced"),
        ("{ ... }: { a = lib.mkForce 1; }", "undefined variable 'lib'"),
        ("{ a.b = 1; imports = [ { a.b = 2; } ]; }", "`a.b` has conflicting definitions"),
        ("{ a.b = 1; imports = [ { a = [ 1 ]; } ]; }", "`a` has conflicting definitions"),
        ("{ imports = [ ./missing.nix ]; }", "missing.nix"),
        ("{ config, ... }: { a = config.a; }", "infinite recursion"),
        ("{ pkgs, ... }: { a = pkgs.ollama_cuda; }", "ollama_cuda"),
    ],
)
def test_a_module_that_nix_refuses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        evaluated.definitions(flake(tmp_path, one=text))


def host(folder: Path, wrong: str) -> Path:
    """Write the flake of a host that NixOS 26.05 takes, beside one more module."""
    good = {key: value for key, value in GOOD.items() if key != "imports"}
    return flake(folder, good=nix.module(("config", "lib", "pkgs"), good), wrong=wrong)


@pytest.mark.parametrize(
    ("text", "release", "kind", "option"),
    [
        ('{ services.litellm.hsot = "127.0.0.1"; }', "26.05", Kind.UNKNOWN, "services.litellm.hsot"),
        ("{ services.lite-llm.enable = true; }", "26.05", Kind.UNKNOWN, "services.lite-llm"),
        ('{ services.ollama.port = "11434"; }', "26.05", Kind.TYPE, "services.ollama.port"),
        ('{ lib, ... }: { services.k3s.role = lib.mkForce "master"; }', "26.05", Kind.TYPE, "services.k3s.role"),
        ("{ pkgs, ... }: { services.ollama.host = pkgs.ollama; }", "26.05", Kind.TYPE, "services.ollama.host"),
        ('{ services.ollama.acceleration = "cuda"; }', "26.05", Kind.RELEASE, "services.ollama.acceleration"),
        ("{ services.llama-cpp.settings.port = 8081; }", "25.11", Kind.RELEASE, "services.llama-cpp.settings"),
        ('{ services.llama-cpp.extraFlags = [ "-fa" ]; }', "26.11", Kind.RELEASE, "services.llama-cpp.extraFlags"),
        ("{ services.k3s.tokenFile = ./one.nix; }", "26.05", Kind.SECRET, "services.k3s.tokenFile"),
        ('{ services.k3s.tokenFile = "${./good.nix}"; }', "26.05", Kind.SECRET, "services.k3s.tokenFile"),
        (
            "{ virtualisation.podman.dockerCompat = true; }",
            "26.05",
            Kind.CONFLICT,
            "virtualisation.podman.dockerCompat",
        ),
        ("{ services.ollama.port = 4000; }", "26.05", Kind.CONFLICT, "services.ollama.port"),
        ("{ lib, ... }: { hardware.nvidia.open = lib.mkForce null; }", "26.05", Kind.MISSING, "hardware.nvidia.open"),
    ],
)
def test_a_module_that_nixos_refuses(tmp_path: Path, text: str, release: str, kind: Kind, option: str) -> None:
    (found,) = evaluated.problems(host(tmp_path, text), release)["lab"]
    assert (found.kind, ".".join(found.path)) == (kind, option)


@pytest.mark.parametrize("release", ["25.11", "26.05", "26.11"])
def test_a_module_that_nixos_takes(tmp_path: Path, release: str) -> None:
    text = '{ pkgs, ... }: { environment.systemPackages = [ pkgs.git ]; services.k3s.tokenFile = "/run/token"; }'
    assert evaluated.problems(host(tmp_path, text), release) == {"lab": []}


UNIT = "systemd.services.prometheus-node-exporter.serviceConfig"
ENABLE = "services.prometheus.exporters.node.enable"


def test_a_containers_unit_has_no_limit_to_start_in(tmp_path: Path) -> None:
    """The good host has the containers `db` and `web`."""
    text = "{ systemd.services.docker-web.serviceConfig.TimeoutStartSec = VALUE; }"
    with pytest.raises(AssertionError, match=r"docker-web\.serviceConfig\.TimeoutStartSec` has conflicting"):
        evaluated.definitions(host(tmp_path, text.replace("VALUE", "60")))
    assert evaluated.definitions(host(tmp_path, text.replace("VALUE", "0")))


@pytest.mark.parametrize(
    ("text", "met"),
    [
        (f'{{ {UNIT}.UMask = "0027"; }}', True),
        (f'{{ lib, ... }}: {{ {UNIT}.UMask = lib.mkDefault "0027"; }}', False),
        (f'{{ lib, ... }}: {{ {UNIT}.UMask = lib.mkForce "0027"; }}', False),
        (f'{{ {UNIT}.UMask = "0077"; }}', False),
        (f"{{ {UNIT}.RestartSec = 10; }}", False),
        (f'{{ lib, ... }}: {{ {UNIT}.UMask = "0027"; {ENABLE} = lib.mkForce false; }}', False),
    ],
)
def test_what_a_module_says_of_its_own_unit_is_not_said_again(tmp_path: Path, text: str, met: bool) -> None:  # noqa: FBT001
    """The module of the good host's node exporter sets its UMask to 0077."""
    flake = host(tmp_path, text)
    if met:
        with pytest.raises(AssertionError, match=r"serviceConfig\.UMask` has conflicting definitions"):
            evaluated.definitions(flake)
    else:
        service = evaluated.definitions(flake)["lab"]["systemd"]["services"]["prometheus-node-exporter"]
        assert set(service["serviceConfig"]) <= {"UMask", "RestartSec"}, "what NixOS defines is left out"
