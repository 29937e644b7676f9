"""The machine of a NixOS host as values: disk, cards, network, Tailscale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from labctl.artefact import Format, Login, SecretFile
from labctl.compat import gpus as catalogue
from labctl.emit import nix
from labctl.emit.nix import Noted, PathRef, Ref, Text
from labctl.placed import PlacedGpu, PlacedHost, Places
from labctl.quantity import GIB
from labctl.targets.nixos import machine
from labctl.targets.nixos.machine import cards, faults
from labctl.targets.nixos.needs import Needs, Node, Opening

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVDb6EdOcouHQzNY/sptWHfd6tuJZdApBFxWPFKmXp2 you"
PLACES = Places(root="/", config="etc/labctl/lab", state="var/lib/labctl/lab", models="/models")
BASE: Mapping[str, object] = {"release": "26.05", "secrets": "labctl", "disk": "/dev/vda", "keys": [KEY]}


def host(*models: str, **machine_options: object) -> PlacedHost:
    """Return a NixOS host with these cards."""
    return PlacedHost(
        name="box",
        lab="lab",
        address="10.0.0.1",
        bind="10.0.0.1",
        target="nixos",
        places=PLACES,
        gpus=tuple(_card(i, model) for i, model in enumerate(models)),
        login=Login(user="root"),
        machine={**BASE, **machine_options},
        origin=("hosts", "box"),
    )


def _card(index: int, model: str) -> PlacedGpu:
    facts = catalogue.find(model)
    assert facts is not None, model
    return PlacedGpu(
        index=index,
        model=facts.name,
        vendor=facts.vendor,
        memory=facts.memory,
        capability=facts.capability,
        gfx=facts.gfx,
        unified=facts.unified,
    )


def options(where: PlacedHost, file: str, needs: Needs | None = None) -> Any:
    """Return what a module defines, notes taken off; nothing for a module that is not written."""
    return _plain(machine.modules(where, needs or Needs()).get(file, {}))


def _plain(value: Any) -> Any:
    if isinstance(value, Noted):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def codes(where: PlacedHost, needs: Needs | None = None) -> list[str]:
    asked = needs or Needs()
    return [d.code for d in (*machine.problems(where, asked), *machine.warnings(where, asked))]


ANY = "0.0.0.0"  # noqa: S104 - nothing is bound


def opening(port: int, bind: str, *, container: bool = False) -> Needs:
    return Needs(openings=(Opening(port=port, bind=bind, who="qwen", container=container),))


def test_a_disk_boots_with_bios_and_with_uefi() -> None:
    body = options(host(), "hardware.nix")
    layout = body["disko"]["devices"]["disk"]["main"]
    assert layout["device"] == "/dev/vda"
    partitions = layout["content"]["partitions"]
    assert [p["type"] for p in list(partitions.values())[:2]] == ["EF02", "EF00"]
    assert partitions["root"]["content"] == {"type": "filesystem", "format": "ext4", "mountpoint": "/"}
    grub = body["boot"]["loader"]["grub"]
    assert grub["efiSupport"]
    assert grub["efiInstallAsRemovable"]
    assert "devices" not in grub  # disko adds the disk with the EF02 partition; twice would be a conflict
    assert machine.inputs(host()) == {"disko"}


def test_an_arm_machine_has_no_bios() -> None:
    body = options(dataclasses.replace(host(), arch="aarch64"), "hardware.nix")
    assert "boot" not in body["disko"]["devices"]["disk"]["main"]["content"]["partitions"]
    assert body["boot"]["loader"]["grub"]["devices"] == ["nodev"]
    assert "cpu" not in body["hardware"]


@pytest.mark.parametrize(
    ("boot", "loader"),
    [
        (
            "uefi",
            {
                "systemd-boot": {"enable": True, "configurationLimit": 10},
                "efi": {"canTouchEfiVariables": True},
            },
        ),
        ("/dev/sda", {"grub": {"enable": True, "device": "/dev/sda", "configurationLimit": 10}}),
        ("given", None),
    ],
)
def test_a_machine_that_is_there_brings_its_own_file(boot: str, loader: Mapping[str, object] | None) -> None:
    where = host(disk=None, hardware="hw.nix", hardware_text="{ }", boot=boot)
    body = options(where, "hardware.nix")
    assert body["imports"] == [PathRef("./hardware-configuration.nix")]
    assert body.get("boot", {}).get("loader") == loader
    (file,) = machine.files(where, Needs())
    assert file.path == "etc/labctl/lab/flake/hosts/box/hardware-configuration.nix"
    assert file.content == b"{ }"
    assert machine.inputs(where) == frozenset()
    assert codes(where) == []


@pytest.mark.parametrize(
    ("models", "branch", "opened"),
    [
        (["RTX 3090"], None, True),
        (["RTX 5090"], None, True),
        (["H100 80GB"], None, True),
        (["P106-100"], "legacy_580", False),
        (["Tesla V100 16GB"], "legacy_580", False),
        (["GTX 980 Ti", "RTX 3090"], "legacy_580", False),
        (["Tesla K80"], "legacy_470", False),
        (["Tesla K80", "GTX 1080"], "legacy_470", False),
    ],
)
def test_each_generation_gets_the_newest_driver_that_knows_it(
    models: Sequence[str], branch: str | None, *, opened: bool
) -> None:
    where = host(*models)
    nvidia = options(where, "gpu.nix")["hardware"]["nvidia"]
    package = None if branch is None else Ref(f"config.boot.kernelPackages.nvidiaPackages.{branch}")
    assert (nvidia["open"], nvidia.get("package")) == (opened, package)
    assert codes(where) == []
    assert ("nvidia-kernel-modules" in machine.unfree(where)) is not opened
    assert machine.licensed(where) is (branch == "legacy_470")
    assert {"nvidia-x11", "nvidia-persistenced"} <= machine.unfree(where)


def test_a_release_without_the_branch_takes_what_is_at_that_version() -> None:
    package = options(host("P106-100", release="25.11"), "gpu.nix")["hardware"]["nvidia"]["package"]
    assert nix.dump(package) == (
        'lib.attrByPath [ "legacy_580" ] config.boot.kernelPackages.nvidiaPackages.production '
        "config.boot.kernelPackages.nvidiaPackages"
    )


@pytest.mark.parametrize("models", [["GTX 1080 Ti", "RTX 5090"], ["Tesla K80", "RTX 4090"], ["Jetson AGX Xavier"]])
def test_some_cards_have_no_driver(models: Sequence[str]) -> None:
    assert codes(host(*models)) == ["LAB252"]


def test_every_generation_of_the_catalogue_has_a_driver() -> None:
    known = {row["architecture"] for row in cards.rows([_card(0, g.name) for g in catalogue.all_gpus()])}
    assert known == {g.architecture for g in catalogue.all_gpus() if g.vendor == "nvidia"}


def test_the_container_toolkit_is_there_only_for_containers() -> None:
    plain = options(host("RTX 3090"), "gpu.nix")
    assert "nvidia-container-toolkit" not in plain["hardware"]
    asked = options(host("RTX 3090"), "gpu.nix", Needs(contained=frozenset({"nvidia"})))
    assert asked["hardware"]["nvidia-container-toolkit"] == {"enable": True}
    assert asked["services"]["xserver"]["videoDrivers"] == ["nvidia"]


def test_a_new_driver_waits_for_a_reboot_and_fails_no_activation() -> None:
    contained = options(host("RTX 3090"), "gpu.nix", Needs(contained=frozenset({"nvidia"})))
    assert contained["boot"]["kernelModules"] == ["nvidia", "nvidia_uvm"]
    units = contained["systemd"]["services"]
    assert set(units) == {"nvidia-persistenced", "nvidia-container-toolkit-cdi-generator"}
    for unit in units.values():
        assert unit["restartIfChanged"] is False
        assert unit["unitConfig"] == {"ConditionPathExists": "/proc/driver/nvidia/version"}
    assert set(options(host("RTX 3090"), "gpu.nix")["systemd"]["services"]) == {"nvidia-persistenced"}


def test_power_limits_are_set_by_a_service_of_the_system() -> None:
    where = host("Radeon 680M", "RTX 3090", "RTX 3090")
    capped = [dataclasses.replace(gpu, power_limit=200 + gpu.index) for gpu in where.gpus if gpu.vendor == "nvidia"]
    where = dataclasses.replace(where, gpus=(where.gpus[0], capped[0], dataclasses.replace(capped[1], uuid="GPU-1")))
    service = options(where, "gpu.nix")["systemd"]["services"]["labctl-gpu-power"]
    commands = service["serviceConfig"]["ExecStart"]
    tool = '${lib.getExe\' config.hardware.nvidia.package "nvidia-smi"}'
    # nvidia-smi counts NVIDIA's cards alone
    assert [nix.dump(c) for c in commands] == [f'"{tool} -i 0 -pl 201"', f'"{tool} -i GPU-1 -pl 202"']
    assert all(isinstance(command, Text) for command in commands)
    assert service["after"] == ["nvidia-persistenced.service"]
    assert nix.dump(service["serviceConfig"]["ExecCondition"]) == tool.removeprefix("${").removesuffix("}")


def test_a_gpu_that_shares_memory_may_take_what_lab_yaml_says() -> None:
    where = host("Radeon 8060S")
    where = dataclasses.replace(where, gpus=(dataclasses.replace(where.gpus[0], memory=96 * GIB),))
    body = options(where, "gpu.nix")
    assert body["boot"]["kernelParams"] == ["ttm.pages_limit=25165824", "ttm.page_pool_size=25165824"]
    assert body["hardware"] == {"graphics": {"enable": True}}
    assert "boot" not in options(host("RX 7900 XTX"), "gpu.nix")


def test_an_intel_card_has_its_compute_runtime() -> None:
    body = options(host("Arc B580"), "gpu.nix")
    assert body["hardware"]["graphics"]["extraPackages"] == [Ref("pkgs.intel-compute-runtime")]


def test_a_host_without_cards_has_no_module_for_them() -> None:
    assert set(machine.modules(host(), Needs())) == {"hardware.nix", "networking.nix"}


def test_only_ssh_is_let_in_by_itself() -> None:
    body = options(host(), "networking.nix")
    assert body["networking"]["firewall"] == {"enable": True}
    ssh = body["services"]["openssh"]
    assert ssh["enable"]
    assert ssh["settings"]["PasswordAuthentication"] is False
    assert ssh["settings"]["PermitRootLogin"] == "prohibit-password"
    assert "ports" not in ssh
    assert body["users"]["users"] == {"root": {"openssh": {"authorizedKeys": {"keys": [KEY]}}}}
    assert "security" not in body


def test_labctl_still_finds_a_python_after_the_activation() -> None:
    body = options(host(), "networking.nix")
    assert body["environment"]["systemPackages"] == [Ref("pkgs.python3")]


def test_the_login_is_a_user_of_the_system() -> None:
    where = dataclasses.replace(host(), login=Login(user="ops", port=2222))
    body = options(where, "networking.nix")
    assert body["services"]["openssh"]["ports"] == [22, 2222]  # which may be forwarded to 22
    assert body["users"]["users"]["ops"]["extraGroups"] == ["wheel"]
    assert body["users"]["users"]["ops"]["openssh"]["authorizedKeys"]["keys"] == [KEY]
    assert body["security"]["sudo"]["wheelNeedsPassword"] is False
    without_keys = options(dataclasses.replace(where, machine={**BASE, "keys": ()}), "networking.nix")
    assert set(without_keys["users"]["users"]) == {"ops"}  # NixOS would remove it otherwise


@pytest.mark.parametrize(
    ("needs", "options_of_lab", "firewall"),
    [
        (opening(8000, "10.0.0.1"), {}, {"allowedTCPPorts": [8000]}),
        (opening(8000, "10.0.0.1"), {"interface": "eno1"}, {"interfaces": {"eno1": {"allowedTCPPorts": [8000]}}}),
        (opening(8000, ANY), {"interface": "eno1"}, {"interfaces": {"eno1": {"allowedTCPPorts": [8000]}}}),
        (opening(8000, ANY), {"tailscale": "KEY"}, {"trustedInterfaces": ["tailscale0"]}),
        (opening(8000, "100.101.102.103"), {"tailscale": "KEY"}, {"trustedInterfaces": ["tailscale0"]}),
        (opening(8000, "10.0.0.1", container=True), {}, {}),  # Docker opens it itself, at that address
    ],
)
def test_a_port_is_open_where_its_users_are_and_nowhere_else(
    needs: Needs, options_of_lab: Mapping[str, object], firewall: Mapping[str, object]
) -> None:
    where = host(**options_of_lab)
    assert options(where, "networking.nix", needs)["networking"]["firewall"] == {"enable": True, **firewall}
    assert codes(where, needs) == []


def test_a_port_for_everybody_needs_an_interface() -> None:
    assert codes(host(), opening(8000, ANY)) == ["LAB253"]
    assert codes(host(), opening(8000, ANY, container=True)) == ["LAB255"]


def test_a_machine_that_nobody_could_enter_is_remarked_upon() -> None:
    assert codes(host(keys=())) == ["LAB254"]
    assert codes(host(keys=(), options={"users.users.root.openssh.authorizedKeys.keys": [KEY]})) == []
    (warning,) = faults.warnings(host(keys=()))
    assert not warning.is_error


def test_who_logs_in_is_to_be_named_where_the_system_has_root_alone() -> None:
    assert codes(dataclasses.replace(host(), login=Login(user="ops"))) == []
    unnamed = dataclasses.replace(host(), login=Login())
    (warning,) = faults.warnings(unnamed)
    assert (warning.code, warning.is_error, warning.path) == ("LAB254", False, ("hosts", "box"))
    own = {**BASE, "options": {"users.users.ops.isNormalUser": True}}
    assert codes(dataclasses.replace(unnamed, machine=own)) == []
    assert codes(dataclasses.replace(unnamed, address="127.0.0.1")) == []  # nobody logs in


def test_the_auth_key_of_a_tailnet_is_no_part_of_the_store() -> None:
    where = host(tailscale="AUTH_KEY")
    service = options(where, "tailscale.nix")["services"]["tailscale"]
    assert service == {"enable": True, "authKeyFile": "/var/lib/labctl/lab/secrets/tailscale"}
    (secret,) = machine.secrets(where, Needs())
    assert isinstance(secret, SecretFile)
    assert f"/{secret.path}" == service["authKeyFile"]
    assert (secret.format, secret.mode) == (Format.RAW, 0o600)
    assert [text.names for text in secret.entries.values()] == [("AUTH_KEY",)]


@pytest.mark.parametrize(("keeper", "place"), [("sops-nix", "config.sops.templates"), ("agenix", "config.age.secrets")])
def test_other_keepers_of_secrets_bring_the_key_themselves(keeper: str, place: str) -> None:
    where = host(tailscale="AUTH_KEY", secrets=keeper)
    body = options(where, "tailscale.nix")
    assert body["services"]["tailscale"]["authKeyFile"] == Ref(place, "tailscale", "path")
    assert list(machine.secrets(where, Needs())) == []


def test_units_of_the_machine_come_after_its_system() -> None:
    where = host(tailscale="AUTH_KEY")
    needs = Needs(node=Node(name="box"))
    found = {u.name: u for u in machine.units(where, needs, machine.modules(where, needs))}
    assert {name: u.id for name, u in found.items()} == {
        "nixos-k3s": "k3s.service",
        "nixos-tailscale": "tailscaled.service",
    }
    assert all(u.after == ("nixos-system",) for u in found.values())
    assert set(found) == machine.NAMES
