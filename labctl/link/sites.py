"""Where every service is, and at which ports: decided before any of them is told about the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from labctl.compat import builds
from labctl.diagnostics import At, Diagnostic, Severity
from labctl.link.address import Networks, address_of, together
from labctl.model.lab import Lab
from labctl.model.service import ServiceBlock
from labctl.placed import PlacedHost, ServiceLink
from labctl.resolve.hosts import LOOPBACK
from labctl.resolve.lab import PlacedLab
from labctl.resolve.ports import drawn_port
from labctl.resolve.servers import taken_ports
from labctl.services import COMING, SERVICES, Part, Service
from labctl.services import load as load_service
from labctl.values import dataclass
from labctl.workload import Port, Probe

NO_IMAGE: Final = ("", Probe.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One service on one host."""

    part: Part
    service: Service
    host: PlacedHost
    image: str
    probe: Probe
    ports: Mapping[str, Port]

    @property
    def name(self) -> str:
        """Its workload's name."""
        return self.part.name

    def seen_by(self, user: PlacedHost, networks: Networks) -> ServiceLink:
        """Return the service as programs of a host reach it."""
        found = {n: address_of(networks, self.host, self.name, p, user) for n, p in self.ports.items()}
        return ServiceLink(
            name=self.name,
            kind=self.part.kind,
            addresses={name: address for name, address in found.items() if address is not None},
            after=self.host.name == user.name,
            options=self.part.options,
        )


def plan_sites(
    placed: PlacedLab, networks: Networks, gateway_calls: Iterable[str], problems: list[Diagnostic]
) -> tuple[Site, ...]:
    """Return every service of a lab; what this version only knows by name is one note.

    ``gateway_calls``: names and kinds of the services that the gateway asks.
    """
    problems.extend(_to_come(placed.lab))
    parts = list(_parts(placed, problems))
    users = {part.name: _users(placed, part, parts, frozenset(gateway_calls)) for part in parts}
    taken = {(t.host, t.port) for t in taken_ports(placed.lab, placed.servers) if t.declared}
    return tuple(_site(placed, part, networks, users[part.name], taken) for part in parts)


def _parts(placed: PlacedLab, problems: list[Diagnostic]) -> Iterator[Part]:
    """Yield what the services consist of. What is declared by itself is left out of a bundle."""
    declared = {(block.kind or name) for name, block in placed.lab.services.items()}
    for name, block in sorted(placed.lab.services.items()):
        kind = block.kind or name
        if kind not in SERVICES:
            continue
        service = load_service(kind)
        parts = [p for p in service.parts(name, block, placed.hosts) if p.kind == kind or p.kind not in declared]
        found = [*service.check(name, block), *(_unplaced(name, block) if not all(p.host for p in parts) else ())]
        found += _unplaced(name, block) if not parts and not block.places else ()
        problems.extend(found)
        yield from parts if not any(p.is_error for p in found) else ()


def _to_come(lab: Lab) -> Iterator[Diagnostic]:
    names = [n for n, block in lab.services.items() if (block.kind or n) in COMING]
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


def _users(placed: PlacedLab, part: Part, parts: Sequence[Part], gateway_calls: frozenset[str]) -> set[str]:
    """Return the hosts from which a service is asked by the rest of the lab."""
    service = load_service(part.kind)
    hosts: set[str] = set()
    if placed.lab.gateway_host is not None and {part.name, part.kind} & gateway_calls:
        hosts.add(placed.lab.gateway_host)
    for other in parts:
        user = load_service(other.kind)
        watched = user.watches and service.watched
        if part.kind in user.calls or watched or user.keeps(other.options) == part.name:
            hosts.add(other.host)
    return hosts


def _site(placed: PlacedLab, part: Part, networks: Networks, users: set[str], taken: set[tuple[str, int]]) -> Site:
    service, host, block = load_service(part.kind), placed.hosts[part.host], part.options
    engine = service.image(block, host)
    image, probe = image_of(placed.lab, engine, part.kind)
    far = any(not together(networks, part.host, user) and user != part.host for user in users)
    blind = probe is Probe.NONE and host.places.site is None and not any(b.health_command for b in builds.of(engine))
    ports: dict[str, Port] = {}
    for index, (name, listen) in enumerate(service.ports.items()):
        declared = block.port if index == 0 else None
        page = service.page == name
        wide = declared is not None or far or page
        needed = wide or networks[part.host] is None or (blind and index == 0)
        own = part.name if index == 0 else f"{part.name}-{name}"
        usual = listen if page and (part.host, listen) not in taken else drawn_port(part.host, own)
        published = (declared or usual) if needed else None
        bind = block.bind or (host.bind if wide else LOOPBACK)
        ports[name] = Port(name=name, listen=listen, published=published, bind=bind)
    return Site(part=part, service=service, host=host, image=image, probe=probe, ports=ports)


def image_of(lab: Lab, engine: str, kind: str | None = None) -> tuple[str, Probe]:
    """Return the container image of a gateway or service and what it can probe itself with."""
    rows = [b for b in builds.of(engine) if b.image]
    image, probe = (rows[0].image or "", rows[0].probe) if rows else NO_IMAGE
    return lab.images.replace.get(kind or engine, image), probe
