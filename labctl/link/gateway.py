"""The gateway, planned once servers and services have their addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from labctl.diagnostics import Diagnostic, DocPath
from labctl.gateways import Children, Gateway, GatewayAsk
from labctl.gateways import load as load_gateway
from labctl.link.address import ANYWHERE, Networks, address_of, in_url, reachable
from labctl.link.asks import Surroundings, clients_of, make_ask
from labctl.link.residents import children_of
from labctl.link.sites import Site
from labctl.link.swappers import Swapper, plan_swappers, through
from labctl.model.gateway import GatewayBlock
from labctl.placed import DatabaseLink, GatewayLink, PlacedHost
from labctl.resolve.lab import PlacedLab
from labctl.services import Access, ServiceAsk
from labctl.values import dataclass
from labctl.workload import Endpoint, SecretRef, Task, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    """The gateway, as people reach it."""

    host: str
    url: str
    """``http://address:port``, without ``/v1``."""
    key: str | None
    """Name of the secret that opens it, None when it asks for none."""
    workloads: tuple[Workload, ...]
    """The gateway first, then its tasks."""
    children: tuple[Workload, ...] = ()
    """Servers that it runs itself, so that nobody else does."""
    swappers: tuple[Swapper, ...] = ()
    """Gateways behind it that load the servers of their hosts."""


def gateway_of(placed: PlacedLab) -> tuple[Gateway, GatewayBlock] | None:
    """Return the lab's gateway and its block; None when there is none."""
    block = placed.lab.gateway
    if block is None or placed.lab.gateway_host is None:
        return None
    return load_gateway(block.engine), block


def called(placed: PlacedLab) -> frozenset[str]:
    """Return the names and kinds of the services that the gateway asks."""
    found = gateway_of(placed)
    if found is None:
        return frozenset()
    gateway, block = found
    database = gateway.database(block)
    return frozenset({*gateway.calls, *([database] if database else [])})


def plan_gateway(around: Surroundings, workloads: Sequence[Workload], problems: list[Diagnostic]) -> GatewayPlan | None:
    """Return the gateway with every endpoint linked; None when there is none or something is wrong with it."""
    found, host_name = gateway_of(around.placed), around.placed.lab.gateway_host
    if found is None or host_name is None:
        return None
    gateway, block = found
    host = around.placed.hosts[host_name]
    databases = tuple(s.name for s in around.sites if "postgres" in s.ports)
    if _are_errors(gateway.check(block, around.ports, databases), problems):
        return None
    swappers = plan_swappers(around, problems)
    if swappers is None:
        return None
    database = next((s for s in around.sites if s.name == gateway.database(block)), None)
    by_server = {name: swapper for swapper in swappers for name in swapper.behind}
    children = children_of(around.placed, around.offered, workloads, host) if block.parent else Children()
    problems.extend(_unreachable(around, host, by_server, database))
    if block.swaps:
        problems.extend(around.offered.out_of_hand(host, around.offered.residents.keys() - children.servers.keys()))
    ask = make_ask(
        around,
        block,
        host,
        [through(around, by_server, endpoint, host) for endpoint in around.ports],
        bind=block.bind or host.bind,
        database=database_link(database, host, around.networks) if database else None,
        children=children,
        clients=clients_of(around.sites),
    )
    if _are_errors(gateway.objections(ask), problems):
        return None
    made = gateway.workloads(ask)
    return GatewayPlan(
        host=host_name,
        url=_page(around.placed, host, made[0]) or _url(host, ask),
        key=gateway.master_key(block),
        workloads=made,
        children=tuple(children.servers.values()),
        swappers=swappers,
    )


def _are_errors(found: Iterable[Diagnostic], problems: list[Diagnostic]) -> bool:
    """Add problems to the others; return whether there is an error among them."""
    new = list(found)
    problems.extend(new)
    return any(p.is_error for p in new)


def _page(placed: PlacedLab, host: PlacedHost, main: Workload) -> str | None:
    """Return where people reach the gateway by a host name, None when they do not."""
    pages = next((h.places.pages for h in placed.hosts.values() if h.network == host.network and h.places.pages), None)
    return pages.format(main.name) if pages and "http" in main.public else None


def _url(host: PlacedHost, ask: GatewayAsk) -> str:
    return f"http://{in_url(host.address if ask.bind in ANYWHERE else ask.bind)}:{ask.port}"


def gateway_link(
    plan: GatewayPlan, placed: PlacedLab, endpoints: Iterable[Endpoint], site: Site, networks: Networks
) -> GatewayLink | None:
    """Return the gateway as a service reaches it, None when it cannot or has no use for it."""
    wanted = site.service.client(site.part.options)
    main, host = plan.workloads[0], placed.hosts[plan.host]
    address = address_of(networks, host, main.name, main.port(), site.host)
    if wanted is None or address is None:
        return None
    models: dict[Task, tuple[str, ...]] = {}
    for endpoint in endpoints:
        models[endpoint.task] = tuple(dict.fromkeys((*models.get(endpoint.task, ()), endpoint.serves[0])))
    near = site.host.name == plan.host
    return GatewayLink(
        url=f"http://{address}",
        key=SecretRef(wanted[1]),
        after=tuple(w.name for w in plan.workloads) if near and wanted[0] is Access.MODELS else (),
        models=models,
    )


def database_link(site: Site, user: PlacedHost, networks: Networks) -> DatabaseLink | None:
    """Return the database of a service as a host's programs reach it."""
    port = site.ports["postgres"]
    ask = ServiceAsk(
        lab=user.lab, name=site.name, host=site.host, options=site.part.options, image=site.image, probe=site.probe
    )
    address = address_of(networks, site.host, site.name, port, user)
    host, _, number = (address or f"{in_url(site.host.address)}:{port.published or 0}").rpartition(":")
    return site.service.database(ask, host, int(number), same_host=site.host.name == user.name)


def _unreachable(
    around: Surroundings, user: PlacedHost, swappers: Mapping[str, Swapper], database: Site | None
) -> Iterator[Diagnostic]:
    """Yield a problem for each host whose servers, and each service that, the gateway's host cannot reach."""
    hosts: set[str] = set()
    for endpoint, port in around.ports.items():
        provider = around.placed.hosts[endpoint.host]
        asked = swappers[endpoint.workload].workload if endpoint.workload in swappers else None
        name, at = (asked.name, asked.port()) if asked else (endpoint.workload, port)
        if address_of(around.networks, provider, name, at, user) is None and provider.name not in hosts:
            hosts.add(provider.name)
            yield _cut_off(f"the servers of host `{provider.name}`", ("hosts", provider.name), user)
    if database is not None and not reachable(database.host, database.ports["postgres"].bind, user):
        bound = database.part.options.bind
        path: DocPath = (*database.part.origin, "bind") if bound else ("hosts", database.host.name)
        yield _cut_off(f"service `{database.name}`", path, user)


def _cut_off(what: str, path: DocPath, user: PlacedHost) -> Diagnostic:
    return Diagnostic(
        code="LAB139",
        summary=f"{what} can only be reached on its own machine, and the gateway runs on `{user.name}`",
        path=path,
        hint="give the host the `address` by which other machines reach it, and bind to nothing narrower",
    )
