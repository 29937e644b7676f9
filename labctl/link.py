"""Linking: who reaches whom at which address. Services and the gateway are planned here, once servers are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final

from labctl.compat import builds
from labctl.diagnostics import At, Diagnostic, DocPath, Severity
from labctl.gateways import COMING as COMING_GATEWAYS
from labctl.gateways import GATEWAYS, GatewayAsk, Linked
from labctl.gateways import load as load_gateway
from labctl.model.lab import Lab
from labctl.model.service import ServiceBlock
from labctl.placed import DatabaseLink, PlacedHost
from labctl.resolve.hosts import ANY, LOOPBACK
from labctl.resolve.lab import PlacedLab
from labctl.resolve.ports import drawn_port
from labctl.services import COMING as COMING_SERVICES
from labctl.services import SERVICES, ServiceAsk
from labctl.services import load as load_service
from labctl.values import dataclass
from labctl.workload import Endpoint, Port, Probe, Workload

ANYWHERE: Final = frozenset({ANY, "::"})
"""Addresses that stand for all of a host's own."""
NO_IMAGE: Final = ("", Probe.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """The services that run."""

    workloads: tuple[Workload, ...] = ()
    asks: Mapping[str, ServiceAsk] = field(default_factory=dict)
    """Service → what it was told; for a service on several hosts, the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    """The gateway, as people reach it."""

    host: str
    url: str
    """``http://address:port``, without ``/v1``."""
    key: str | None
    """Name of the secret that opens it, None when it asks for none."""
    workloads: tuple[Workload, ...]


def plan_services(placed: PlacedLab, by_name: Mapping[str, bool], problems: list[Diagnostic]) -> ServicePlan:
    """Return the services of a lab; what this version only knows by name is one note."""
    problems.extend(_services_to_come(placed.lab))
    asks: dict[str, ServiceAsk] = {}
    workloads: list[Workload] = []
    for name, block in sorted(placed.lab.services.items()):
        kind = block.kind or name
        if kind not in SERVICES:
            continue
        service = load_service(kind)
        found = [*service.check(name, block), *_unplaced(name, block)]
        problems.extend(found)
        for host in block.places if not found else ():
            ask = _service_ask(placed, name, block, placed.hosts[host], by_name=by_name[host])
            asks.setdefault(name, ask)
            workloads += service.workloads(ask)
    return ServicePlan(workloads=tuple(workloads), asks=asks)


def _services_to_come(lab: Lab) -> Iterator[Diagnostic]:
    names = [n for n, block in lab.services.items() if (block.kind or n) in COMING_SERVICES]
    if names:
        listed = ", ".join(f"`{n}`" for n in names)
        yield Diagnostic(
            code="LAB083",
            severity=Severity.NOTE,
            summary=f"{listed}: known to the schema, rendered once the service catalogue is there",
            path=("services",),
            at=At.KEY,
        )


def _unplaced(name: str, block: ServiceBlock) -> Iterator[Diagnostic]:
    if not block.places:
        yield Diagnostic(
            code="LAB020",
            summary=f"service `{name}` says nowhere to run",
            path=("services", name),
            hint="add `host:` and the key of a host",
        )


def _service_ask(placed: PlacedLab, name: str, block: ServiceBlock, host: PlacedHost, *, by_name: bool) -> ServiceAsk:
    image, probe = image_of(placed.lab, block.kind or name)
    far = placed.lab.gateway is not None and placed.lab.gateway_host != host.name
    wide = far or block.port is not None
    published = (block.port or drawn_port(host.name, name)) if wide or not by_name else None
    return ServiceAsk(
        lab=placed.lab.name,
        name=name,
        host=host,
        options=block,
        image=block.image or image,
        probe=probe,
        published=published,
        bind=block.bind or (host.bind if wide else LOOPBACK),
        port=published,
    )


def image_of(lab: Lab, engine: str) -> tuple[str, Probe]:
    """Return the container image of a gateway or service and what it can probe itself with."""
    rows = [b for b in builds.of(engine) if b.image]
    image, probe = (rows[0].image or "", rows[0].probe) if rows else NO_IMAGE
    return lab.images.replace.get(engine, image), probe


def plan_gateway(
    placed: PlacedLab,
    workloads: Sequence[Workload],
    endpoints: Sequence[Endpoint],
    services: ServicePlan,
    by_name: Mapping[str, bool],
    problems: list[Diagnostic],
) -> GatewayPlan | None:
    """Return the gateway with every endpoint linked; None when there is none or a later version brings it."""
    block, host_name = placed.lab.gateway, placed.lab.gateway_host
    if block is None or host_name is None:
        return None
    if block.engine not in GATEWAYS:
        problems.append(_gateway_to_come(block.engine))
        return None
    gateway = load_gateway(block.engine)
    found = list(gateway.check(block, endpoints, tuple(services.asks)))
    problems.extend(found)
    if any(p.is_error for p in found):
        return None
    host = placed.hosts[host_name]
    image, probe = image_of(placed.lab, block.engine)
    bind = block.bind or host.bind
    servers = {w.name: w for w in workloads}
    ports = {e: servers[e.workload].port(e.port) for e in endpoints}
    links = [_link(placed, e, port, host, by_name=by_name[host_name]) for e, port in ports.items()]
    database = gateway.database(block)
    unreachable = {d.path: d for d in _unreachable(placed, host, ports, services, database)}
    problems.extend(unreachable.values())
    ask = GatewayAsk(
        lab=placed.lab.name,
        host=host,
        options=block,
        endpoints=tuple(links),
        port=block.port,
        bind=bind,
        image=block.image or image,
        probe=probe,
        database=_database(database, services, host, by_name=by_name[host_name]),
    )
    url = f"http://{_in_url(bind if bind not in ANYWHERE else host.address)}:{block.port}"
    return GatewayPlan(host=host_name, url=url, key=gateway.master_key(block), workloads=gateway.workloads(ask))


def _gateway_to_come(engine: str) -> Diagnostic:
    path: DocPath = ("gateway", "engine")
    return Diagnostic(
        code="LAB082",
        severity=Severity.NOTE,
        summary=f"{COMING_GATEWAYS[engine]} comes with a later version; the servers behind it are rendered today",
        path=path,
        hint="`engine: litellm` is rendered today, and does not swap models",
    )


def _link(placed: PlacedLab, endpoint: Endpoint, port: Port, user: PlacedHost, *, by_name: bool) -> Linked:
    if by_name and endpoint.host == user.name:
        return Linked(endpoint, f"http://{endpoint.workload}:{port.listen}")
    address = reached(placed.hosts[endpoint.host], port.bind, user)
    return Linked(endpoint, f"http://{_in_url(address)}:{port.published}")


def reached(provider: PlacedHost, bind: str, user: PlacedHost) -> str:
    """Return the address at which programs of ``user`` reach what ``provider`` serves at ``bind``."""
    if bind in ANYWHERE:
        return LOOPBACK if provider.name == user.name else provider.address
    return bind


def reachable(provider: PlacedHost, bind: str, user: PlacedHost) -> bool:
    """Whether that works at all: a loopback address, or a host known only as ``localhost``, ends at its own machine."""
    return provider.name == user.name or not is_loopback(reached(provider, bind, user))


def is_loopback(address: str) -> bool:
    """Whether an address is only good on its own machine."""
    return address in {"localhost", "::1"} or address.startswith("127.")


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _unreachable(
    placed: PlacedLab,
    user: PlacedHost,
    ports: Mapping[Endpoint, Port],
    services: ServicePlan,
    database: str | None,
) -> Iterator[Diagnostic]:
    """Yield a problem for each host whose servers, and each service that, the gateway's host cannot reach."""
    for endpoint, port in ports.items():
        if not reachable(placed.hosts[endpoint.host], port.bind, user):
            yield _cut_off(f"the servers of host `{endpoint.host}`", ("hosts", endpoint.host), user)
    ask = services.asks.get(database or "")
    if ask is not None and not reachable(ask.host, ask.bind, user):
        path: DocPath = ("services", ask.name, "bind") if ask.options.bind else ("hosts", ask.host.name)
        yield _cut_off(f"service `{ask.name}`", path, user)


def _cut_off(what: str, path: DocPath, user: PlacedHost) -> Diagnostic:
    return Diagnostic(
        code="LAB139",
        summary=f"{what} can only be reached on its own machine, and the gateway runs on `{user.name}`",
        path=path,
        hint="give the host the `address` by which other machines reach it, and bind to nothing narrower",
    )


def _database(name: str | None, services: ServicePlan, user: PlacedHost, *, by_name: bool) -> DatabaseLink | None:
    if name is None or name not in services.asks:
        return None
    ask = services.asks[name]
    service = load_service(ask.options.kind or name)
    address, port = reached(ask.host, ask.bind, user), ask.published or 0
    same = ask.host.name == user.name
    if same and by_name:
        address, port = name, service.listens or 0
    return service.database(ask, _in_url(address), port, same_host=same)
