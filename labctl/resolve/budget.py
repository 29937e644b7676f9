"""Budgets: footprints entered into the ledgers, and an error with the arithmetic where they do not add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from labctl.diagnostics import Diagnostic, DocPath, Related, Severity
from labctl.model.deployment import Deployment
from labctl.model.lab import Lab
from labctl.placed import PlacedGpu, PlacedHost, Server
from labctl.quantity import format_size
from labctl.resolve.hosts import describe
from labctl.resolve.ledger import Entry, GpuAccount, HostAccount, HostEntry, Ledger, host_accounts, overhead
from labctl.resolve.remedies import remedies
from labctl.resolve.servers import membership
from labctl.vram.footprint import DeviceBytes, Footprint

Estimate = Callable[[Server, Deployment], Footprint | None]
"""The footprint that a server would have with these settings."""


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
        hosts=host_accounts(hosts, reserves, ram),
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
                exact=footprint.exact,
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
            bytes=own + unified,
            limited=limit is not None,
            group=turn.group,
        )


def with_budgets(servers: Iterable[Server], footprints: Mapping[str, Footprint]) -> list[Server]:
    """Return the servers with their budgets per card."""
    return [
        replace(s, budget=tuple(d.total for d in footprints[s.name].devices)) if s.name in footprints else s
        for s in servers
    ]


def budget_problems(
    lab: Lab, ledger: Ledger, servers: Mapping[str, Server], estimate: Estimate
) -> Iterator[Diagnostic]:
    """Yield every card and host that is over budget, every cap that cannot hold, every server nobody can size."""
    seen: set[tuple[DocPath, str]] = set()
    for account in ledger.gpus:
        if not account.fits and account.gpu.memory:
            problem = _over_budget(lab, account, servers, estimate, ledger)
            if (problem.path or (), problem.summary.partition(" of host")[0]) not in seen:
                yield problem
    for host in ledger.hosts:
        if not host.fits:
            yield _out_of_ram(host)
    yield from _broken_caps(lab, ledger, servers)
    yield from _unsized(lab, ledger, servers)


def _over_budget(
    lab: Lab, account: GpuAccount, servers: Mapping[str, Server], estimate: Estimate, ledger: Ledger
) -> Diagnostic:
    worst = max(account.entries, key=lambda e: (e.total, e.server))
    spec = lab.deployments[worst.deployment]
    room = worst.total + account.free
    where = next((i for i, g in enumerate(servers[worst.server].gpus) if g.index == account.gpu.index), 0)

    def size(changed: Deployment) -> int | None:
        footprint = estimate(servers[worst.server], changed)
        return None if footprint is None else footprint.devices[where].total + worst.overhead

    found = [] if worst.declared else list(remedies(spec, room, size))
    found += _other_card(account, worst, ledger)
    return Diagnostic(
        code="LAB061",
        summary=f"{describe(account.gpu)} of host `{account.host}` is over budget by {format_size(-account.free)}",
        detail=arithmetic(account),
        path=("deployments", worst.deployment),
        hint="; or ".join(found) or "move a deployment to another card, or give it a smaller quantisation",
        related=(Related("the card", account.gpu.origin),),
    )


def arithmetic(account: GpuAccount) -> str:
    """Return a card's ledger as lines of text that add up."""
    rows = [
        (e.server + (f" (takes turns in `{e.group}`)" if e.group else ""), _parts(e), e.total) for e in account.entries
    ]
    width = max(len("in use at worst"), *(len(name) for name, _, _ in rows))
    lines = [f"{name:<{width}}  {format_size(total):>9}  = {parts}" for name, parts, total in rows]
    lines.append(f"{'in use at worst':<{width}}  {format_size(account.used):>9}")
    reserve = f" - reserve {format_size(account.gpu.reserve)}" if account.gpu.reserve else ""
    lines.append(f"{'the card has':<{width}}  {format_size(account.gpu.memory - account.gpu.reserve):>9}{reserve}")
    return "\n".join(lines)


def _parts(entry: Entry) -> str:
    if entry.declared:
        return "declared"
    b = entry.bytes
    named = (("weights", b.weights), ("context", b.context), ("compute", b.compute), ("other", b.other))
    parts = [f"{name} {format_size(size)}" for name, size in named if size]
    return " + ".join([*parts, f"process {format_size(entry.overhead)}"] if entry.overhead else parts)


def _other_card(account: GpuAccount, worst: Entry, ledger: Ledger) -> list[str]:
    roomy = [a for a in ledger.gpus if a.free >= worst.total and a is not account]
    if not roomy:
        return []
    best = max(roomy, key=lambda a: (a.free, a.host, -a.gpu.index))
    return [f"{describe(best.gpu)} of host `{best.host}` has {format_size(best.free)} free"]


def _out_of_ram(account: HostAccount) -> Diagnostic:
    width = max(len("in use at worst"), *(len(e.server) for e in account.entries))
    lines = [
        f"{e.server:<{width}}  {format_size(e.bytes):>9}  {'limit' if e.limited else 'estimate'}"
        for e in account.entries
    ]
    lines.append(f"{'in use at worst':<{width}}  {format_size(account.used):>9}")
    memory = account.memory or 0
    has = (
        f"{format_size(memory - account.reserve):>9}  of {format_size(memory)}, {format_size(account.reserve)} reserved"
    )
    lines.append(f"{'the host has':<{width}}  {has}")
    return Diagnostic(
        code="LAB062",
        summary=f"host `{account.host}` is over its RAM by {format_size(-(account.free or 0))}",
        detail="\n".join(lines),
        path=("hosts", account.host, "memory"),
        hint="lower the `memory_limit` of its deployments, or move some of them to another host",
    )


def _broken_caps(lab: Lab, ledger: Ledger, servers: Mapping[str, Server]) -> Iterator[Diagnostic]:
    for name, spec in lab.deployments.items():
        if not isinstance(spec.vram, int):
            continue
        sizes = [d for s in servers.values() if s.deployment == name for d in _devices(ledger, s)]
        biggest = max(sizes, key=lambda d: d.total, default=None)
        if biggest is not None and biggest.total > spec.vram:
            yield Diagnostic(
                code="LAB068",
                summary=f"`{name}` takes {format_size(biggest.total)} per card; its cap is {format_size(spec.vram)}",
                detail=f"weights {format_size(biggest.weights)} + context {format_size(biggest.context)}"
                f" + compute {format_size(biggest.compute)}",
                path=("deployments", name, "vram"),
                hint="raise the cap, or lower its context",
            )


def _devices(ledger: Ledger, server: Server) -> tuple[DeviceBytes, ...]:
    footprint = ledger.footprints.get(server.name)
    return footprint.devices if footprint is not None else ()


def _unsized(lab: Lab, ledger: Ledger, servers: Mapping[str, Server]) -> Iterator[Diagnostic]:
    for name in sorted({servers[s].deployment for s in ledger.unknown}):
        model = ", ".join(f"`{m}`" for m in lab.deployments[name].model_names) or "its image"
        yield Diagnostic(
            code="LAB069",
            severity=Severity.WARNING,
            summary=f"nothing is known of the memory that `{name}` takes: {model} is not in labctl's catalogue",
            path=("deployments", name),
            hint="run `labctl lock` to read the model's header, or state it: `vram: {declared: 4 GiB}`",
        )
