"""The cards: their driver, what containers need to get them, and their power limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from labctl.emit import nix
from labctl.emit.nix import Value
from labctl.placed import PlacedHost
from labctl.targets.nixos.machine import cards
from labctl.targets.nixos.needs import Needs
from labctl.targets.nixos.values import all_of, given
from labctl.targets.power import limited

PACKAGES: Final = "config.boot.kernelPackages.nvidiaPackages"
POWER: Final = "labctl-gpu-power"
GENERATOR: Final = "nvidia-container-toolkit-cdi-generator.service"
"""It describes NVIDIA's cards to whatever runs containers."""
_PERSISTENCE: Final = "nvidia-persistenced.service"
_LOADED: Final = "/proc/driver/nvidia/version"
"""There while NVIDIA's kernel module is loaded."""


def module(host: PlacedHost, needs: Needs) -> Mapping[str, Value]:
    """Return ``gpu.nix``; nothing for a host without cards."""
    vendors = {gpu.vendor for gpu in host.gpus}
    graphics: Mapping[str, Value] = {"hardware": {"graphics": {"enable": True}}} if vendors else {}
    return all_of(
        [
            graphics,
            _nvidia(host, needs) if "nvidia" in vendors else {},
            _power(host),
            _amd(host),
            _intel() if "intel" in vendors else {},
        ]
    )


def _nvidia(host: PlacedHost, needs: Needs) -> Mapping[str, Value]:
    driver = cards.driver(host)
    if driver is None:
        return {}
    why = "what these cards have in common is this branch"
    settings: dict[str, Value] = {
        "open": driver.open,
        "package": nix.Noted(_package(driver), why) if driver.branch else None,
        "nvidiaPersistenced": True,
        "nvidiaSettings": False,
    }
    contained = "nvidia" in needs.contained
    toolkit: dict[str, Value] = {"enable": True, "device-name-strategy": "uuid" if needs.node is not None else None}
    hardware: dict[str, Value] = {"nvidia": given(settings)}
    if contained:
        hardware["nvidia-container-toolkit"] = given(toolkit)
    kept = {name.removesuffix(".service"): _kept() for name in (_PERSISTENCE, *((GENERATOR,) if contained else ()))}
    drivers = nix.Noted(["nvidia"], "this is what installs the driver, with a display or without")
    # udev would load them, too, but at a time of its own
    modules = nix.Noted(["nvidia", "nvidia_uvm"], "there before whatever asks for the cards")
    return {
        "services": {"xserver": {"videoDrivers": drivers}},
        "hardware": hardware,
        "boot": {"kernelModules": modules},
        "systemd": {"services": kept},
    }


def _kept() -> dict[str, Value]:
    """Return what keeps a tool of the driver running, or at rest, until the machine boots into another driver.

    Otherwise the activation of a new driver fails: its tools do not work with the module that is loaded, or without one
    (seen in public configurations: text index 55216669751, 68919838673, 58563569725).
    """
    why = "another driver's would fail beside the kernel module that is loaded: its turn comes with a reboot"
    restart = False
    return {"restartIfChanged": nix.Noted(restart, why), "unitConfig": {"ConditionPathExists": _LOADED}}


def _package(driver: cards.Driver) -> Value:
    if driver.instead is None:
        return nix.Ref(f"{PACKAGES}.{driver.branch}")
    return nix.Call("lib.attrByPath", [str(driver.branch)], nix.Ref(f"{PACKAGES}.{driver.instead}"), nix.Ref(PACKAGES))


def _power(host: PlacedHost) -> Mapping[str, Value]:
    """Return a service that sets each card's limit once the driver stays loaded (nvidia-smi(1), ``-pl``)."""
    own = cards.nvidia(host)
    capped = [gpu for gpu in limited(host) if gpu.vendor == "nvidia"]
    if not capped:
        return {}
    tool = nix.Call("lib.getExe'", nix.Ref("config.hardware.nvidia.package"), "nvidia-smi")
    commands: list[Value] = [
        nix.Text(tool, f" -i {gpu.uuid or own.index(gpu)} -pl {gpu.power_limit}") for gpu in capped
    ]
    service: dict[str, Value] = {
        "description": f"GPU power limits of lab {host.lab}",
        "wantedBy": ["multi-user.target"],
        "after": [_PERSISTENCE],
        "serviceConfig": {
            "Type": "oneshot",
            "RemainAfterExit": True,
            "ExecCondition": nix.Noted(tool, "not while another driver waits for a reboot"),
            "ExecStart": commands,
        },
    }
    return {"systemd": {"services": {POWER: service}}}


def _amd(host: PlacedHost) -> Mapping[str, Value]:
    parameters = cards.shared_memory(host)
    if not parameters:
        return {}
    return {"boot": {"kernelParams": nix.Noted(list(parameters), "pages of RAM that the GPU may take as its own")}}


def _intel() -> Mapping[str, Value]:
    return {"hardware": {"graphics": {"extraPackages": [nix.Ref("pkgs.intel-compute-runtime")]}}}
