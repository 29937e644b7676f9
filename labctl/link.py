"""Linking: who reaches whom at which address. Services and the gateway are planned here, once servers are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final

from labctl.compat import builds
from labctl.diagnostics import At, Diagnostic, DocPath, Severity
from labctl.gateways import COMING as COMING_GATEWAYS
from labctl.gateways import GATEWAYS, DatabaseLink, GatewayAsk, Linked
from labctl.gateways import load as load_gateway
from labctl.model.lab import Lab
from labctl.model.service import ServiceBlock
from labctl.placed import PlacedHost
from labctl.resolve.hosts import LOOPBACK
from labctl.resolve.lab import PlacedLab
from labctl.resolve.ports import drawn_port
from labctl.services import COMING as COMING_SERVICES
from labctl.services import SERVICES, ServiceAsk
from labctl.services import load as load_service
from labctl.values import dataclass
from labctl.workload import Endpoint, Probe, Workload

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
    ask = GatewayAsk(
        lab=placed.lab.name,
        host=host,
        options=block,
        endpoints=tuple(_linked(placed, endpoints, workloads, host, by_name=by_name[host_name])),
        port=block.port,
        bind=bind,
        image=block.image or image,
        probe=probe,
        database=_database(placed, gateway.database(block), services, host, by_name=by_name[host_name]),
    )
    shown = host.address if bind == host.bind and bind != LOOPBACK else bind
    url = f"http://{shown}:{block.port}"
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


def _linked(
    placed: PlacedLab,
    endpoints: Sequence[Endpoint],
    workloads: Sequence[Workload],
    host: PlacedHost,
    *,
    by_name: bool,
) -> Iterator[Linked]:
    servers = {w.name: w for w in workloads}
    for endpoint in endpoints:
        port = servers[endpoint.workload].port(endpoint.port)
        address, number = _reached(placed, host, endpoint.host, port.published)
        if by_name and endpoint.host == host.name:
            address, number = endpoint.workload, port.listen
        yield Linked(endpoint, f"http://{address}:{number}")


def _reached(placed: PlacedLab, user: PlacedHost, provider: str, published: int | None) -> tuple[str, int]:
    """Return the address and port of a provider's published port, from a user's host."""
    if provider == user.name:
        return LOOPBACK, published or 0
    return placed.hosts[provider].address, published or 0


def _database(
    placed: PlacedLab, name: str | None, services: ServicePlan, user: PlacedHost, *, by_name: bool
) -> DatabaseLink | None:
    if name is None or name not in services.asks:
        return None
    ask = services.asks[name]
    service = load_service(ask.options.kind or name)
    address, port = _reached(placed, user, ask.host.name, ask.published)
    same = ask.host.name == user.name
    if same and by_name:
        address, port = name, service.listens or 0
    return service.database(ask, address, port, same_host=same)
