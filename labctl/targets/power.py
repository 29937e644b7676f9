"""Power limits of NVIDIA cards: a unit of the host's own, beside whatever runs its workloads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from labctl.artefact import File, Manager, Unit
from labctl.diagnostics import Diagnostic, DocPath
from labctl.emit import systemd
from labctl.placed import PlacedGpu, PlacedHost

NAME: Final = "gpu-power"
_TOOL: Final = "/usr/bin/nvidia-smi"


def power_problems(host: PlacedHost, *, rendered: bool) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each kind of card whose limit cannot be set: nothing is dropped silently."""
    for origin, gpus in groupby(limited(host), key=lambda g: g.origin):
        path: DocPath = (*origin, "power_limit")
        vendor = next(gpus).vendor
        if vendor != "nvidia":
            hint = "leave it out, and set it with the vendor's own tool"
            yield Diagnostic(
                code="LAB085", summary=f"labctl sets no power limits of {vendor} cards", path=path, hint=hint
            )
        elif rendered and host.places.root != "/":
            hint = "use target `compose` or `systemd` with system units, or leave it out"
            summary = f"target `{host.target}` on `{host.name}` has no rights to set power limits"
            yield Diagnostic(code="LAB085", summary=summary, path=path, hint=hint)


def limited(host: PlacedHost) -> list[PlacedGpu]:
    """Return the cards that have a limit."""
    return [g for g in host.gpus if g.power_limit is not None]


def power_unit(host: PlacedHost) -> Iterator[File | Unit]:
    """Yield a unit that turns persistence mode on and sets each card's limit at boot; nothing without limits.

    Persistence mode keeps the driver loaded, and the limit with it (nvidia-smi(1), ``-pm`` and ``-pl``).
    """
    gpus = [g for g in limited(host) if g.vendor == "nvidia"]
    if not gpus or host.places.root != "/" or host.machine is not None:  # NixOS owns /etc: see targets/nixos/machine
        return
    unit_name = f"labctl-{host.lab}-{NAME}.service"
    commands = [systemd.command(_TOOL, ("-pm", "1"))]
    commands += [systemd.command(_TOOL, ("-i", g.uuid or str(g.index), "-pl", str(g.power_limit))) for g in gpus]
    content = systemd.dump(
        [
            ("Unit", [("Description", systemd.text(f"GPU power limits of lab {host.lab}"))]),
            ("Service", [("Type", "oneshot"), ("RemainAfterExit", "yes"), *(("ExecStart", c) for c in commands)]),
            ("Install", [("WantedBy", "multi-user.target")]),
        ]
    )
    path = f"etc/systemd/system/{unit_name}"
    yield File(host=host.name, path=path, content=content.encode(), origin=gpus[0].origin)
    yield Unit(
        host=host.name,
        name=NAME,
        id=unit_name,
        manager=Manager.SYSTEMD,
        project=path,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        files=(path,),
        origin=gpus[0].origin,
        description="power limits",
    )
