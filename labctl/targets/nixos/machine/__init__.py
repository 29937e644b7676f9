"""The machine itself: hardware, cards, network, disk, Tailscale, k3s, one NixOS module each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labctl.artefact import File, SecretFile, Unit
from labctl.diagnostics import Diagnostic
from labctl.emit import nix
from labctl.placed import PlacedHost
from labctl.targets.nixos.machine import cards, cluster, faults, gpu, hardware, network, tailscale, watched
from labctl.targets.nixos.machine.watched import NAMES
from labctl.targets.nixos.needs import Needs

__all__ = ["NAMES", "files", "inputs", "licensed", "modules", "problems", "secrets", "unfree", "units", "warnings"]


def modules(host: PlacedHost, needs: Needs) -> Mapping[str, Mapping[str, nix.Value]]:
    """Return the machine's modules by file name, ``hardware.nix`` …, as nested options; ``host.machine`` is its block.

    Only files with content. ``default.nix``, ``services.nix`` and ``flake.nix`` are not among them.
    """
    written = {
        "hardware.nix": hardware.module(host),
        "gpu.nix": gpu.module(host, needs),
        "networking.nix": network.module(host, needs),
        "tailscale.nix": tailscale.module(host),
        "k3s.nix": cluster.module(host, needs),
    }
    return {name: body for name, body in written.items() if body}


def files(host: PlacedHost, needs: Needs) -> Iterable[File]:
    """Return the files of the flake that these modules name."""
    yield from hardware.files(host)
    yield from cluster.files(host, needs)


def secrets(host: PlacedHost, needs: Needs) -> Iterable[SecretFile]:
    """Return the secret files that these modules name by their runtime path (``folder.secret``)."""
    yield from tailscale.secrets(host)
    yield from cluster.secrets(host, needs)


def units(host: PlacedHost, needs: Needs, modules: Mapping[str, Mapping[str, nix.Value]]) -> Iterable[Unit]:
    """Return the machine's own services, as units of its system; ``modules`` by file name."""
    return watched.units(host, needs, modules)


def unfree(host: PlacedHost) -> frozenset[str]:
    """Return the names (``lib.getName``) of packages without a free licence that these modules bring."""
    driver = cards.driver(host)
    return driver.unfree if driver is not None else frozenset()


def licensed(host: PlacedHost) -> bool:
    """Whether NVIDIA's licence has to be accepted for the driver, beside its being allowed by name."""
    driver = cards.driver(host)
    return driver is not None and driver.licensed


def inputs(host: PlacedHost) -> frozenset[str]:
    """Return the flake inputs that these modules need beside nixpkgs: ``disko``."""
    return frozenset({"disko"}) if (host.machine or {}).get("disk") else frozenset()


def problems(host: PlacedHost, needs: Needs) -> Iterable[Diagnostic]:
    """Return what the machine cannot be, with paths from the top: no root file system, no boot loader."""
    yield from faults.problems(host)
    yield from faults.closed(host, needs)


def warnings(host: PlacedHost, needs: Needs) -> Iterable[Diagnostic]:
    """Return what may let in too many, or nobody, and stops nothing."""
    yield from faults.warnings(host)
    yield from faults.past_the_firewall(host, needs)
