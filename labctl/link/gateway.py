"""The gateway, planned once servers and services have their addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from labctl.diagnostics import Diagnostic, DocPath
from labctl.gateways import Children, Client, Gateway, GatewayAsk, Linked
from labctl.gateways import load as load_gateway
from labctl.link.address import ANYWHERE, Networks, address_of, in_url, reachable
from labctl.link.residents import Residents, children_of
from labctl.link.sites import Site, image_of
from labctl.model.gateway import GatewayBlock
from labctl.placed import DatabaseLink, GatewayLink, PlacedHost
from labctl.resolve.lab import PlacedLab
from labctl.services import Access, ServiceAsk
from labctl.values import dataclass
from labctl.workload import Endpoint, Port, SecretRef, Task, Workload


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


def plan_gateway(
    placed: PlacedLab,
    workloads: Sequence[Workload],
    endpoints: Sequence[Endpoint],
    sites: Sequence[Site],
    networks: Networks,
    offered: Residents,
    problems: list[Diagnostic],
) -> GatewayPlan | None:
    """Return the gateway with every endpoint linked; None when there is none or something is wrong with it."""
    block, host_name = placed.lab.gateway, placed.lab.gateway_host
    if block is None or host_name is None:
        return None
    gateway, host = load_gateway(block.engine), placed.hosts[host_name]
    databases = tuple(s.name for s in sites if "postgres" in s.ports)
    found = list(gateway.check(block, endpoints, databases))
    problems.extend(found)
    if any(p.is_error for p in found):
        return None
    servers = {w.name: w for w in workloads}
    ports = {e: servers[e.workload].port(e.port) for e in endpoints}
    database = next((s for s in sites if s.name == gateway.database(block)), None)
    children = children_of(placed, offered, workloads, host) if block.parent else Children()
    problems.extend(_unreachable(placed, host, ports, database, networks))
    if block.swaps:
        problems.extend(offered.out_of_hand(host, children))
    image, probe = image_of(placed.lab, block.engine)
    ask = GatewayAsk(
        lab=placed.lab.name,
        host=host,
        options=block,
        endpoints=tuple(_link(placed, e, port, host, networks) for e, port in ports.items()),
        port=block.port,
        bind=block.bind or host.bind,
        image=block.image or image,
        probe=probe,
        database=database_link(database, host, networks) if database else None,
        cards=offered.cards,
        residents=offered.of(host),
        children=children,
        services=tuple(s.seen_by(host, networks) for s in sites),
        clients=clients(sites),
    )
    found = list(gateway.objections(ask))
    problems.extend(found)
    if any(p.is_error for p in found):
        return None
    made = gateway.workloads(ask)
    address = host.address if ask.bind in ANYWHERE else ask.bind
    pages = next((h.places.pages for h in placed.hosts.values() if h.network == host.network and h.places.pages), None)
    named = pages.format(made[0].name) if pages and "http" in made[0].public else None
    url = named or f"http://{in_url(address)}:{block.port}"
    own = tuple(children.servers.values())
    return GatewayPlan(host=host_name, url=url, key=gateway.master_key(block), workloads=made, children=own)


def clients(sites: Iterable[Site]) -> tuple[Client, ...]:
    """Return the services that want a key of the gateway, by name."""
    found = [(s, s.service.client(s.part.options)) for s in sites]
    return tuple(
        Client(name=s.name, secret=wanted[1], metrics=wanted[0] is Access.METRICS)
        for s, wanted in sorted(found, key=lambda pair: pair[0].name)
        if wanted is not None
    )


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


def _link(placed: PlacedLab, endpoint: Endpoint, port: Port, user: PlacedHost, networks: Networks) -> Linked:
    provider = placed.hosts[endpoint.host]
    address = address_of(networks, provider, endpoint.workload, port, user)
    return Linked(endpoint, f"http://{address or f'{in_url(provider.address)}:{port.published}'}")


def _unreachable(
    placed: PlacedLab,
    user: PlacedHost,
    ports: Mapping[Endpoint, Port],
    database: Site | None,
    networks: Networks,
) -> Iterator[Diagnostic]:
    """Yield a problem for each host whose servers, and each service that, the gateway's host cannot reach."""
    hosts: set[str] = set()
    for endpoint, port in ports.items():
        provider = placed.hosts[endpoint.host]
        if address_of(networks, provider, endpoint.workload, port, user) is None and provider.name not in hosts:
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
