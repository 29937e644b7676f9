"""Budgets: footprints entered into the ledgers, and an error with the arithmetic where they do not add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from labctl.diagnostics import Diagnostic, DocPath, Severity
from labctl.model.lab import Lab
from labctl.placed import PlacedGpu, PlacedHost, Server
from labctl.quantity import format_size
from labctl.resolve.arithmetic import apportion, host_sum, named_parts, whole
from labctl.resolve.ledger import Entry, GpuAccount, HostAccount, HostEntry, Ledger, host_accounts, overhead
from labctl.resolve.servers import membership
from labctl.vram.footprint import DeviceBytes, Footprint


def make_ledger(
    lab: Lab, hosts: Mapping[str, PlacedHost], servers: Sequence[Server], footprints: Mapping[str, Footprint]
) -> Ledger:
    """Return the ledgers of all cards and hosts."""
    entries: dict[tuple[str, int], list[Entry]] = {}
    for server in servers:
        for gpu, entry in _entries(lab, server, footprints.get(server.name)):
            entries.setdefault((server.host.name, gpu.index), []).append(entry)
    accounts = tuple(
        GpuAccount(
            host=name,
            gpu=gpu,
            entries=tuple(sorted(entries.get((name, gpu.index), ()), key=lambda e: e.server)),
        )
        for name in sorted(hosts)
        for gpu in hosts[name].gpus
    )
    reserves = {name: host.reserve for name, host in lab.hosts.items()}
    ram = [(s.host.name, e) for s in servers for e in _ram(lab, s, footprints.get(s.name))]
    return Ledger(
        gpus=accounts,
        hosts=host_accounts(hosts, reserves, [*ram, *_limits(lab)]),
        footprints=dict(footprints),
        unknown=tuple(sorted(s.name for s in servers if s.gpus and s.name not in footprints)),
    )


def _entries(lab: Lab, server: Server, footprint: Footprint | None) -> Iterator[tuple[PlacedGpu, Entry]]:
    if footprint is None:
        return
    turn = membership(lab, server.deployment)
    for gpu, device in zip(server.gpus, footprint.devices, strict=False):
        yield (
            gpu,
            Entry(
                server=server.name,
                deployment=server.deployment,
                bytes=device,
                overhead=overhead(server.runtime.accelerator, footprint),
                group=turn.group,
                runs=turn.runs,
                declared=footprint.declared,
                exact=footprint.exact and all(m.exact for m in server.models),
            ),
        )


def _ram(lab: Lab, server: Server, footprint: Footprint | None) -> Iterator[HostEntry]:
    """Yield what a server takes of its host's RAM: its limit, else its estimate; unified cards on top."""
    turn = membership(lab, server.deployment)
    limit = lab.deployments[server.deployment].memory_limit
    unified = 0
    if footprint is not None:
        cards = zip(server.gpus, footprint.devices, strict=False)
        unified = sum(d.total + overhead(server.runtime.accelerator, footprint) for g, d in cards if g.unified)
    own = limit if limit is not None else (footprint.host if footprint is not None else 0)
    if own + unified:
        yield HostEntry(
            server=server.name,
            deployment=server.deployment,
            total=own + unified,
            limited=limit is not None,
            group=turn.group,
        )


def _limits(lab: Lab) -> Iterator[tuple[str, HostEntry]]:
    """Yield what services and the gateway may take of their hosts' RAM, where lab.yaml limits it."""
    for name, service in lab.services.items():
        for host in service.places if service.memory_limit is not None else ():
            yield host, HostEntry(server=name, deployment=name, total=service.memory_limit or 0, limited=True)
    if lab.gateway is not None and lab.gateway_host is not None and lab.gateway.memory_limit is not None:
        entry = HostEntry(server="gateway", deployment="gateway", total=lab.gateway.memory_limit, limited=True)
        yield lab.gateway_host, entry


def with_budgets(servers: Iterable[Server], footprints: Mapping[str, Footprint]) -> list[Server]:
    """Return the servers with their budgets per card."""
    return [
        replace(s, budget=tuple(d.total for d in footprints[s.name].devices)) if s.name in footprints else s
        for s in servers
    ]


Overrun = Callable[[Sequence[GpuAccount]], Diagnostic]
"""Says of equal cards that they are over budget, with the remedies."""


def budget_problems(
    lab: Lab, ledger: Ledger, servers: Mapping[str, Server], overrun: Overrun, started: Callable[[str], bool]
) -> Iterator[Diagnostic]:
    """Yield every card and host that is over budget, every cap that cannot hold, every server nobody can size.

    ``started`` tells of a deployment whether its engine could start at all: if not, that has been said.
    """
    yield from (overrun(cards) for cards in _alike(a for a in ledger.gpus if not a.fits and a.gpu.memory))
    yield from (_out_of_ram(host) for host in ledger.hosts if not host.fits)
    of_deployment: dict[str, list[Server]] = {}
    for server in servers.values():
        of_deployment.setdefault(server.deployment, []).append(server)
    for name in lab.deployments:
        if started(name):
            yield from _broken_cap(lab, name, ledger, of_deployment.get(name, ()))
    yield from _unsized(lab, ledger, servers)


def _alike(accounts: Iterable[GpuAccount]) -> Iterable[list[GpuAccount]]:
    """Gather cards of one host that hold the same: they are one mistake."""
    found: dict[tuple[object, ...], list[GpuAccount]] = {}
    for account in accounts:
        gpu = account.gpu
        held = tuple((e.deployment, e.bytes, e.overhead, e.group) for e in account.entries)
        found.setdefault((account.host, gpu.model, gpu.memory, gpu.reserve, held), []).append(account)
    return found.values()


def _out_of_ram(account: HostAccount) -> Diagnostic:
    over = whole(account.used) + whole(account.reserve) - (account.memory or 0) // 2**20
    return Diagnostic(
        code="LAB062",
        summary=f"host `{account.host}` is over its RAM by {over:,} MiB",
        detail=host_sum(account),
        path=("hosts", account.host, "memory"),
        hint="lower the `memory_limit` of its deployments, or move some of them to another host",
    )


def _broken_cap(lab: Lab, name: str, ledger: Ledger, servers: Iterable[Server]) -> Iterator[Diagnostic]:
    """Yield a problem when one of a deployment's servers takes more than the cap."""
    cap = lab.deployments[name].vram
    sizes = [d for s in servers for d in _devices(ledger, s)]
    biggest = max(sizes, key=lambda d: d.total, default=None)
    if not isinstance(cap, int) or biggest is None or biggest.total <= cap:
        return
    parts = named_parts(biggest)
    shares = apportion([size for _, size in parts], whole(biggest.total))
    terms = " + ".join(f"{part} {share:,}" for (part, _), share in zip(parts, shares, strict=True))
    yield Diagnostic(
        code="LAB068",
        summary=f"`{name}` takes {whole(biggest.total):,} MiB per card; its cap is {format_size(cap)}",
        detail=f"{terms} = {whole(biggest.total):,} MiB",
        path=("deployments", name, "vram"),
        hint=f"raise the cap to `{whole(biggest.total)} MiB`, or lower its context",
    )


def _devices(ledger: Ledger, server: Server) -> tuple[DeviceBytes, ...]:
    footprint = ledger.footprints.get(server.name)
    return footprint.devices if footprint is not None else ()


def _unsized(lab: Lab, ledger: Ledger, servers: Mapping[str, Server]) -> Iterator[Diagnostic]:
    for name in sorted({servers[s].deployment for s in ledger.unknown}):
        path: DocPath = ("deployments", name)
        model = ", ".join(f"`{m}`" for m in lab.deployments[name].model_names) or "its image"
        yield Diagnostic(
            code="LAB069",
            severity=Severity.WARNING,
            summary=f"nothing is known of the memory that `{name}` takes: {model} is not in labctl's catalogue",
            path=path,
            hint="run `labctl lock` to read the model's header, or state it: `vram: {declared: 4 GiB}`",
        )
