"""Hosts: cards enumerated and looked up in the catalogue, folders and addresses chosen."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from labctl.artefact import Login
from labctl.compat import gpus as catalogue
from labctl.compat.values import GpuFacts
from labctl.diagnostics import Diagnostic, DocPath, Severity
from labctl.model.host import Gpu, Host, Ssh
from labctl.model.lab import Lab
from labctl.placed import PlacedGpu, PlacedHost, Places
from labctl.quantity import format_size
from labctl.targets import Target
from labctl.workload import GpuAccess

LOOPBACK: Final = "127.0.0.1"
ANY: Final = "0.0.0.0"  # noqa: S104 - only where a host has nothing narrower


def place_host(lab: Lab, name: str, target: Target | None, problems: list[Diagnostic]) -> PlacedHost:
    """Return one host with its cards; unknown cards and impossible power limits go to ``problems``."""
    host = lab.hosts[name]
    path: DocPath = ("hosts", name)
    options = host.target_options()
    problems.extend(_misplaced_models(host, target, lab.name, path))
    places = target.places(lab.name, options, host.models) if target else _nowhere(host)
    # A cluster chooses its cards itself: no order and no UUID would change that.
    problems.extend(_by_index(host, path) if places.site is None else ())
    return PlacedHost(
        name=name,
        lab=lab.name,
        address=host.address,
        bind=_bind(host),
        target=host.target,
        places=places,
        arch=host.arch,
        cores=host.cpu.cores,
        cpu_features=None if host.cpu.features is None else frozenset(host.cpu.features),
        memory=host.memory,
        gpus=tuple(_cards(host, path, problems)),
        user=host.user,
        gpu_access=GpuAccess(host.gpu_access),
        group_ids=(host.group_ids.video, host.group_ids.render) if host.group_ids else (),
        mirror=lab.images.mirror,
        options=options,
        machine=host.machine_options(),
        login=_login(host.ssh),
        origin=path,
    )


def _login(ssh: Ssh) -> Login:
    return Login(user=ssh.user, port=ssh.port, identity=ssh.identity, jump=ssh.jump, sudo=ssh.sudo)


def _misplaced_models(host: Host, target: Target | None, lab: str, path: DocPath) -> Iterator[Diagnostic]:
    """Yield a problem for a models folder outside what the target may write to."""
    if target is not None and host.models is not None and target.places(lab, host.target_options(), None).root != "/":
        yield Diagnostic(
            code="LAB086",
            summary=f"target `{host.target}` keeps its models in its own folder, not in `{host.models}`",
            path=(*path, "models"),
            hint="leave `models` out; a model may be a file anywhere: `gguf: /path/to/file.gguf`",
        )


def _by_index(host: Host, path: DocPath) -> Iterator[Diagnostic]:
    """Yield a note for several NVIDIA cards without UUIDs: their order may change when one falls off the bus."""
    known = [catalogue.find(g.model) for g in host.gpus]
    cards = sum(g.count for g, f in zip(host.gpus, known, strict=True) if f and f.vendor == "nvidia")
    if cards > 1 and not all(g.uuid for g in host.gpus):
        yield Diagnostic(
            code="LAB089",
            severity=Severity.NOTE,
            summary=f"{cards} cards are told apart by their place on the bus, which changes when one is missing",
            path=(*path, "gpus"),
            hint="add their UUIDs, as `nvidia-smi -L` prints them: `uuid: [GPU-…, GPU-…]`",
        )


def _nowhere(host: Host) -> Places:
    return Places(root="/", config="etc/labctl", state="var/lib/labctl", models=host.models or "/var/lib/labctl/models")


def _bind(host: Host) -> str:
    """Return the narrowest address that other machines can reach."""
    if host.bind:
        return host.bind
    if host.is_local:
        return LOOPBACK
    try:
        return str(ipaddress.ip_address(host.address))
    except ValueError:
        return ANY


def _cards(host: Host, path: DocPath, problems: list[Diagnostic]) -> Iterator[PlacedGpu]:
    index = 0
    for i, gpu in enumerate(host.gpus):
        where: DocPath = (*path, "gpus", i)
        facts = catalogue.find(gpu.model)
        if facts is None:
            unknown = catalogue.unknown(gpu.model)
            problems.append(
                Diagnostic(code=unknown.code, summary=unknown.summary, path=(*where, "model"), hint=unknown.hint)
            )
        problems.extend(_power(gpu, facts, where))
        problems.extend(_reserve(gpu, facts, where))
        for k in range(gpu.count):
            yield _card(gpu, facts, index, gpu.uuid[k] if gpu.uuid else None, where)
            index += 1


def _power(gpu: Gpu, facts: GpuFacts | None, where: DocPath) -> Iterator[Diagnostic]:
    if gpu.power_limit and facts and facts.tdp_w and gpu.power_limit > facts.tdp_w:
        yield Diagnostic(
            code="LAB067",
            summary=f"card `{facts.name}` takes {facts.tdp_w} W at most, and its limit is {gpu.power_limit} W",
            path=(*where, "power_limit"),
            hint=f"lower it to {facts.tdp_w} W or less, or leave it out",
        )


def _reserve(gpu: Gpu, facts: GpuFacts | None, where: DocPath) -> Iterator[Diagnostic]:
    memory = gpu.memory or (facts.memory if facts else 0)
    if memory and gpu.reserve >= memory:
        yield Diagnostic(
            code="LAB025",
            summary=f"a reserve of {format_size(gpu.reserve)} leaves nothing of a card with {format_size(memory)}",
            path=(*where, "reserve"),
            hint="reserve what other programs take of the card, or leave `reserve` out",
        )


def _card(gpu: Gpu, facts: GpuFacts | None, index: int, uuid: str | None, where: DocPath) -> PlacedGpu:
    return PlacedGpu(
        index=index,
        uuid=uuid,
        model=facts.name if facts else gpu.model,
        vendor=facts.vendor if facts else "nvidia",
        memory=gpu.memory or (facts.memory if facts else 0),
        reserve=gpu.reserve,
        capability=facts.capability if facts else None,
        gfx=facts.gfx if facts else None,
        unified=facts.unified if facts else False,
        power_limit=gpu.power_limit,
        origin=where,
    )


def describe(gpu: PlacedGpu) -> str:
    """Return a card in a few words: ``GPU 0 (RTX 5090, 31.4 GiB)``."""
    return f"GPU {gpu.index} ({gpu.model}, {format_size(gpu.memory)})"
