"""What holds for the unit of any workload, whoever defines it: order, waiting, limits, restarts, rests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from labctl.emit import nix, polkit, shell
from labctl.targets import shared, systemd_unit
from labctl.targets.nixos import program
from labctl.targets.nixos.machine import network, tailscale
from labctl.targets.nixos.needs import LOOPBACK, on_host
from labctl.targets.nixos.run import Made, Options, Run
from labctl.targets.nixos.values import all_of, given
from labctl.workload import Container, Start, Workload

_AT_ONCE: Final = nix.Call("lib.mkForce", [])


def common(run: Run, made: Made, units: Mapping[str, str]) -> Options:
    """Return what is added to the unit that ``made`` names; ``units``: workload → unit, of the whole host."""
    workload = run.workload
    before = [run.siblings[name] for name in workload.after if name in run.siblings]
    config: dict[str, nix.Value] = {**_restart(run, made), **(_limits(workload, made))}
    waiting = _waiting(before, units)
    if waiting and (made.module or not isinstance(made.form, Container)):  # a container's unit has no limit anyway
        config["TimeoutStartSec"] = sum(systemd_unit.patience(w) for w in before if _health(w)) + 60
    addressed = _addressed(run, made)
    unit: dict[str, nix.Value] = {
        "wants": [*addressed[:1], *(units[w.name] for w in before if systemd_unit.needs(workload, w))],
        "after": [*addressed, *(units[w.name] for w in before)],
        "path": [nix.Ref("pkgs.curl")] if waiting else None,
        "preStart": waiting,
        "serviceConfig": config,
        "aliases": [alias(run.host.lab, workload.name)] if _is_controlled(run) else None,
    }
    if made.module and workload.start is Start.ON_DEMAND:
        unit["wantedBy"] = nix.Noted(_AT_ONCE, "started on demand, not with the machine")
    parts: list[Options] = [_of(made.unit, given(unit))]
    if made.module and workload.start is Start.ON_DEMAND:
        parts += [_of(name, {"wantedBy": _AT_ONCE}) for name in made.companions]
    return all_of(parts)


def _addressed(run: Run, made: Made) -> list[str]:
    """Return the units after which the host has the addresses that the workload is bound to: modules wait for none."""
    bound = {port.bind for port in run.workload.ports if on_host(port, made.form) is not None}
    bound = {bind for bind in bound if not bind.startswith(LOOPBACK) and bind not in network.WILDCARDS}
    if not bound:
        return []
    joined = tailscale.CONNECTED if tailscale.joins(run.host) else tailscale.UNIT
    return ["network-online.target", *([joined] if any(tailscale.is_inside(bind) for bind in bound) else [])]


def _of(unit: str, values: Mapping[str, nix.Value]) -> Options:
    return {"systemd": {"services": {unit.removesuffix(".service"): values}}} if values else {}


def rights(run: Run, made: Made, units: Mapping[str, str]) -> Options:
    """Return what lets a workload start and stop the units of those it controls: a rule of polkit's.

    polkit is asked with a unit's own name, whatever name it is started by.
    """
    controlled = run.workload.controls
    if not controlled:
        return {}
    names = sorted({*(alias(run.host.lab, name) for name in controlled), *(units[n] for n in controlled if n in units)})
    user = made.form.user or run.host.user or program.account(made.unit.removesuffix(".service"))
    rule = polkit.may_start_and_stop(user, names)
    return {"security": {"polkit": {"enable": True, "extraConfig": rule}}}


def alias(lab: str, name: str) -> str:
    """Return the name by which a gateway starts and stops a workload, whatever its own unit is called."""
    return f"labctl-{lab}-{name}.service"


def _is_controlled(run: Run) -> bool:
    return any(run.workload.name in other.controls for other in run.siblings.values())


def _restart(run: Run, made: Made) -> dict[str, nix.Value]:
    if made.restarts:
        return {}
    return {"Restart": "always" if run.workload.start is Start.ALWAYS else "on-failure", "RestartSec": 10}


def _limits(workload: Workload, made: Made) -> dict[str, nix.Value]:
    if isinstance(made.form, Container):
        return {}
    memory, swap = workload.memory_limit, workload.swap_limit
    return given(
        {
            "LimitMEMLOCK": "infinity" if made.form.locked_memory else None,
            "MemoryMax": memory,
            "MemorySwapMax": None if swap is None else max(0, swap - (memory or 0)),
            "CPUQuota": None if workload.cpus is None else f"{workload.cpus * 100:g}%",
        }
    )


def _health(neighbour: Workload) -> str | None:
    return systemd_unit.health_url(neighbour)


def _waiting(before: Sequence[Workload], units: Mapping[str, str]) -> str | None:
    """Return the script that waits for neighbours that run; one that never gets healthy keeps nobody down."""
    lines = []
    for neighbour in before:
        url = _health(neighbour)
        if url is not None:
            words = systemd_unit.curl(systemd_unit.patience(neighbour), url)
            again = words.index("--retry")
            lines.append(f"if systemctl is-active --quiet {shell.words([units[neighbour.name]])}; then")
            lines.append(f"  {shell.words(words[:again])} \\")
            lines.append(f"    {shell.words(words[again:-1])} \\")
            lines.append(f"    {shell.words(words[-1:])} || true")
            lines.append("fi")
    return "\n".join([*lines, ""]) if lines else None


def check_url(workload: Workload) -> str | None:
    """Return where the host itself asks for a workload's health, None where nowhere."""
    return shared.check_url(workload, shared.native_port(workload))
