"""A container, by ``virtualisation.oci-containers`` and Docker: for what NixOS has no module for."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.emit import nix
from labctl.targets import gpus, shared
from labctl.targets.nixos import secret
from labctl.targets.nixos.machine.gpu import GENERATOR
from labctl.targets.nixos.program import stored
from labctl.targets.nixos.run import Made, Run
from labctl.targets.nixos.values import given
from labctl.workload import Container, GpuClaim, Health, Mount, Port, Start

GROUPS = (26, 303)
"""Ids of ``video`` and ``render`` on every NixOS machine (nixpkgs, nixos/modules/misc/ids.nix)."""

_SEALED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")


def container(run: Run, form: Container) -> Made:
    """Return a container with the workload's name."""
    host, workload = run.host, run.workload
    inside = gpus.inside(host, workload.gpu) if workload.gpu else {}
    variables = shared.Environment.of(workload, form, inside)
    entrypoint, *first = form.entrypoint or ("",)
    value: dict[str, nix.Value] = {
        "image": form.image,
        "autoStart": False if workload.start is Start.ON_DEMAND else None,
        "entrypoint": entrypoint or None,
        "cmd": [*first, *form.args],
        "environment": variables.plain,
        "ports": [published for port in workload.ports if (published := _published(port))],
        "volumes": [*(_volume(run, mount) for mount in form.mounts), *_files(run)],
        "user": form.user,
        "extraOptions": [
            *(f"--env={name}" for name in sorted(variables.secret)),
            *_limits(run, form),
            *(_cards(run, workload.gpu) if workload.gpu else ()),
        ],
    }
    options: dict[str, nix.Value] = {
        "virtualisation": {"oci-containers": {"containers": {workload.name: given(value)}}},
        "systemd": {"services": {f"docker-{workload.name}": _unit(run, has_secrets=bool(variables.secret))}},
    }
    return Made(
        options=options,
        unit=f"docker-{workload.name}.service",
        form=form,
        restarts=True,
        files=workload.files,
        secrets=variables.secret,
        image=form.image,
        health=_inside(workload.name, workload.health),
    )


def _unit(run: Run, *, has_secrets: bool) -> dict[str, nix.Value]:
    """Return what is added to the module's unit: nothing there waits for the cards, nor between two attempts."""
    described = [GENERATOR] if run.workload.gpu and gpus.is_nvidia(run.host, run.workload.gpu) else []
    config: dict[str, nix.Value] = {"RestartSec": 10}
    if has_secrets:
        # Docker takes a file's values as they stand, quotes and all; systemd reads it as it is written.
        config["EnvironmentFile"] = secret.place(run.host, f"{run.workload.name}.env")
    return given({"wants": described, "after": described, "serviceConfig": config})


def _inside(name: str, health: Health | None) -> tuple[str, ...]:
    return ("docker", "exec", name, *health.command) if health and health.command else ()


def _published(port: Port) -> str | None:
    if port.published is None:
        return None
    bind = f"[{port.bind}]" if ":" in port.bind else port.bind
    return f"{bind}:{port.published}:{port.listen}"


def _volume(run: Run, mount: Mount) -> str:
    source = f"{run.host.lab}_{mount.source}" if mount.volume else mount.source
    return f"{source}:{mount.target}{':ro' if mount.read_only else ''}"


def _files(run: Run) -> Iterator[nix.Value]:
    """Yield the mounts of configuration files: a file of the store can be read by every user of a container."""
    for file in run.workload.files:
        yield nix.Text(stored(run.workload), f"/{file.name}:{file.target}:ro")


def _limits(run: Run, form: Container) -> Iterator[nix.Value]:
    workload = run.workload
    if form.sealed:
        yield from _SEALED
    if form.init:
        yield "--init"
    if form.shm_size:
        yield f"--shm-size={form.shm_size}"
    if form.locked_memory:
        yield "--ulimit=memlock=-1"
    if workload.memory_limit is not None:
        yield f"--memory={workload.memory_limit}"
    if workload.swap_limit is not None:
        yield f"--memory-swap={workload.swap_limit}"
    if workload.cpus is not None:
        yield f"--cpus={workload.cpus:g}"


def _cards(run: Run, claim: GpuClaim) -> Iterator[nix.Value]:
    """Yield the cards: NVIDIA's by CDI, as ``hardware.nvidia-container-toolkit`` names them; AMD's by their files."""
    if gpus.is_nvidia(run.host, claim):
        yield from (f"--device=nvidia.com/gpu={_rank(run, device.index)}" for device in claim.devices)
        return
    if any(gpu.vendor == "amd" for gpu in run.host.gpus):
        yield "--device=/dev/kfd"
    yield "--device=/dev/dri"
    yield from (f"--group-add={group}" for group in claim.group_ids or GROUPS)


def _rank(run: Run, index: int) -> int:
    """Return a card's number among NVIDIA's: its driver does not count the others."""
    return [gpu.index for gpu in run.host.gpus if gpu.vendor == "nvidia"].index(index)
