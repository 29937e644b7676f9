"""Services, told about the gateway, each other and everything that has figures; who collects figures comes last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from labctl.diagnostics import Diagnostic, Severity
from labctl.link.address import Networks, address_of
from labctl.link.gateway import GatewayPlan, database_link, gateway_link
from labctl.link.sites import Site
from labctl.model.unknown import unknown_name
from labctl.placed import CardBudget, DatabaseLink, Scrape
from labctl.resolve.lab import PlacedLab
from labctl.services import ServiceAsk
from labctl.values import dataclass
from labctl.workload import Endpoint, Start, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is decided when services are planned."""

    placed: PlacedLab
    networks: Networks
    sites: tuple[Site, ...]
    gateway: GatewayPlan | None
    endpoints: tuple[Endpoint, ...]


def plan_services(
    known: Known, workloads: Sequence[Workload], problems: list[Diagnostic]
) -> dict[str, tuple[Workload, ...]]:
    """Return the workloads of each service by its name; ``workloads`` are the servers and the gateway."""
    planned: dict[str, tuple[Workload, ...]] = {}
    everything = list(workloads)
    for site in sorted(known.sites, key=lambda s: (s.service.watches, "prometheus" in s.service.calls, s.name)):
        ask = _ask(known, site, everything, problems)
        planned[site.name] = site.service.workloads(ask)
        everything += planned[site.name]
    return planned


def _ask(known: Known, site: Site, workloads: Sequence[Workload], problems: list[Diagnostic]) -> ServiceAsk:
    gateway = known.gateway
    watching = site.service.watches or "prometheus" in site.service.calls
    return ServiceAsk(
        lab=known.placed.lab.name,
        name=site.name,
        host=site.host,
        options=site.part.options,
        image=site.image,
        probe=site.probe,
        ports=site.ports,
        origin=site.part.origin,
        gateway=gateway_link(gateway, known.placed, known.endpoints, site, known.networks) if gateway else None,
        others=tuple(s.seen_by(site.host, known.networks) for s in known.sites if s.part.kind in site.service.calls),
        database=_database(known, site, problems),
        databases=tuple(sorted(_own(s.name) for s in known.sites if s.service.keeps(s.part.options) == site.name)),
        scrapes=tuple(_scrapes(known, site, workloads, problems)) if watching else (),
        budgets=tuple(_budgets(known.placed)) if watching else (),
    )


def _own(name: str) -> str:
    """Return what a service's own database is called."""
    return name.replace("-", "_")


def _database(known: Known, site: Site, problems: list[Diagnostic]) -> DatabaseLink | None:
    """Return where a service keeps its data: a database of its own at the server that lab.yaml names."""
    wanted = site.service.keeps(site.part.options)
    if wanted is None:
        return None
    offered = {s.name: s for s in known.sites if "postgres" in s.ports}
    if wanted not in offered:
        path = (*site.part.origin, "database")
        problems.append(unknown_name("LAB136", "database service", wanted, offered, path))
        return None
    link = database_link(offered[wanted], site.host, known.networks)
    if link is None:
        return None
    made = f"{wanted}-databases" if link.workload else None
    return replace(link, name=_own(site.name), workload=made)


def _scrapes(known: Known, site: Site, workloads: Sequence[Workload], problems: list[Diagnostic]) -> Iterator[Scrape]:
    """Yield everything that has figures, as a service reaches it; what it cannot reach is a warning, once per host."""
    cut_off: set[str] = set()
    for workload in sorted(workloads, key=lambda w: w.name):
        metrics = workload.metrics
        if metrics is None:
            continue
        provider = known.placed.hosts[workload.host]
        address = address_of(known.networks, provider, workload.name, workload.port(metrics.port), site.host)
        if address is None:
            cut_off.add(provider.name)
            continue
        yield Scrape(
            kind=metrics.kind,
            workload=workload.name,
            host=workload.host,
            address=address,
            path=metrics.path,
            keyed=metrics.keyed,
            on_demand=workload.start is Start.ON_DEMAND,
        )
    if site.service.watches:
        yield from _itself(known, site)
        problems.extend(_unseen(site, host) for host in sorted(cut_off))


def _itself(known: Known, site: Site) -> Iterator[Scrape]:
    port = next(iter(site.ports.values()))
    address = address_of(known.networks, site.host, site.name, port, site.host)
    if address is not None:
        yield Scrape(kind=site.part.kind, workload=site.name, host=site.host.name, address=address, path="/metrics")


def _unseen(site: Site, host: str) -> Diagnostic:
    return Diagnostic(
        code="LAB152",
        severity=Severity.WARNING,
        summary=f"`{site.name}` runs on `{site.host.name}` and cannot reach figures of programs on `{host}`",
        path=site.part.origin,
        hint=f"run it on `{host}` too, or give the host an `address` that other machines reach",
    )


def _budgets(placed: PlacedLab) -> Iterable[CardBudget]:
    hosts: dict[str, list[tuple[int, int]]] = {}
    for account in placed.ledger.gpus:
        hosts.setdefault(account.host, []).append((account.used + account.gpu.reserve, account.gpu.memory))
    for host, cards in sorted(hosts.items()):
        planned, total = (sum(card[i] for card in cards) for i in (0, 1))
        if planned:
            yield CardBudget(host=host, planned=planned, total=total)
