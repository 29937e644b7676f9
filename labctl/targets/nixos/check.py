"""What is wrong with a system before it is written down: said as diagnostics, so that nixos-rebuild need not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from labctl.diagnostics import Diagnostic, LabctlError
from labctl.placed import PlacedHost
from labctl.targets.nixos import folder, machine, system
from labctl.targets.nixos.needs import Needs
from labctl.targets.nixos.run import Options, Ran
from labctl.targets.nixos.values import at, spread


def system_problems(host: PlacedHost, needs: Needs, of: Sequence[Ran]) -> Iterator[Diagnostic]:
    """Yield what the machine cannot be."""
    yield from machine.problems(host)
    yield from _unfree(host, needs)
    yield from _two_dockers(host, needs)
    for item in of:
        if item.run.workload.name == folder.SYSTEM_UNIT:
            yield Diagnostic(
                code="LAB235",
                summary=f"`{folder.SYSTEM_UNIT}` is what the system itself is called on a NixOS host",
                path=item.run.workload.origin or None,
                hint="give it another name",
            )


def _unfree(host: PlacedHost, needs: Needs) -> Iterator[Diagnostic]:
    names = sorted(system.unfree_names(host, needs))
    if names and (host.machine or {}).get("unfree") is False:
        yield Diagnostic(
            code="LAB232",
            summary=f"`{host.name}` needs packages without a free licence, which it does not allow: {', '.join(names)}",
            path=(*host.origin, "nixos", "unfree"),
            hint="write `unfree: true`, which allows these and no others",
        )


def _two_dockers(host: PlacedHost, needs: Needs) -> Iterator[Diagnostic]:
    own = spread(cast("Mapping[str, object]", (host.machine or {}).get("options") or {}))
    if needs.containers and at(own, "virtualisation", "podman", "dockerCompat") is True:
        yield Diagnostic(
            code="LAB234",
            summary=f"containers on `{host.name}` run with Docker, and Podman is to stand in for it",
            path=(*host.origin, "nixos", "options"),
            hint="leave `virtualisation.podman.dockerCompat` out",
        )


def check_system(host: PlacedHost, needs: Needs, of: Sequence[Ran], services: Options) -> None:
    """Raise LabctlError with everything that is wrong."""
    del services
    found = list(system_problems(host, needs, of))
    if found:
        raise LabctlError(found)
