"""A machine whose disks are in the file that NixOS' installer wrote: Nix reads it, labctl does not."""

from __future__ import annotations

from pathlib import Path

from labctl.emit.nix import Call
from labctl.targets.nixos.options import merged
from labctl.usecases import load
from tests.examples.labs import bare, tree
from tests.nix import evaluated
from tests.nix.test_examples import write

WRITTEN_BY_THE_INSTALLER = """\
{ config, lib, pkgs, modulesPath, ... }:
{
  imports = [ (modulesPath + "/installer/scan/not-detected.nix") ];
  boot.initrd.availableKernelModules = [ "nvme" "xhci_pci" ];
  boot.kernelModules = [ "kvm-amd" ];
  fileSystems."/" = { device = "/dev/disk/by-uuid/1"; fsType = "ext4"; };
  fileSystems."/boot" = { device = "/dev/disk/by-uuid/2"; fsType = "vfat"; options = [ "fmask=0022" ]; };
  swapDevices = [ ];
  networking.useDHCP = lib.mkDefault true;
  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
  hardware.cpu.amd.updateMicrocode = lib.mkDefault config.hardware.enableRedistributableFirmware;
}
"""
LAB = """\
lab: sample
hosts:
  box:
    address: 192.0.2.20
    target: nixos
    memory: 64 GiB
    gpus: [{model: RTX 3090}]
    nixos:
      hardware: hardware.nix
      boot: uefi
      interface: eth0
      keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGZvcmFuZXhhbXBsZW9mYXB1YmxpY2tleWluYWxhYg me@home]
      options: {services.jellyfin.enable: true}
models: {llama3: {ollama: "llama3.1:8b"}}
deployments:
  chat: {models: [llama3], engine: ollama, on: {host: box, gpus: all}}
"""


def test_it_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB, encoding="utf-8")
    (tmp_path / "hardware.nix").write_text(WRITTEN_BY_THE_INSTALLER, encoding="utf-8")
    with bare(tmp_path):
        rendered = tree(load(Path("lab.yaml")))
    flake = write([file for file in rendered.files() if "/flake/" in file.path], tmp_path / "box")
    found = evaluated.definitions(flake)["box"]
    assert found["fileSystems"]["/boot"] == {
        "device": "/dev/disk/by-uuid/2",
        "fsType": "vfat",
        "options": ["fmask=0022"],
    }
    assert found["boot"]["loader"]["systemd-boot"]["enable"] is True
    assert found["nixpkgs"]["hostPlatform"] == "x86_64-linux"
    (own,) = evaluated.problems(flake, "26.05")["box"]
    assert own.path == ("services", "jellyfin"), "an option of the lab's own, which nobody here knows"


def test_definitions_of_several_modules_are_one() -> None:
    forced = Call("lib.mkForce", [4])
    assert merged(
        [{"a": {"b": [1]}, "imports": ["x"]}, {"a": {"b": [2], "c": 3}}, {"a": {"b": forced}, "d": None}]
    ) == {
        "a": {"b": forced, "c": 3},
        "d": None,
    }
