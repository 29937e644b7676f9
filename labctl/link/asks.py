"""What a gateway is told: the same for the lab's own and for those that swap behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from labctl.diagnostics import DocPath
from labctl.gateways import WORKLOAD, Children, Client, GatewayAsk, Linked
from labctl.link.address import Networks, address_of, in_url
from labctl.link.residents import Residents
from labctl.link.sites import Site, image_of
from labctl.model.gateway import GatewayBlock
from labctl.placed import DatabaseLink, PlacedHost
from labctl.resolve.lab import PlacedLab
from labctl.services import Access
from labctl.values import dataclass
from labctl.workload import Endpoint, Port


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every gateway of a lab is planned among."""

    placed: PlacedLab
    networks: Networks
    sites: Sequence[Site]
    offered: Residents
    ports: Mapping[Endpoint, Port]
    """Every endpoint and the port of its server."""


def make_ask(  # noqa: PLR0913 - what tells one gateway from another
    around: Surroundings,
    block: GatewayBlock,
    host: PlacedHost,
    endpoints: Iterable[Linked],
    *,
    bind: str,
    name: str = WORKLOAD,
    origin: DocPath = ("gateway",),
    database: DatabaseLink | None = None,
    children: Children | None = None,
    clients: tuple[Client, ...] = (),
) -> GatewayAsk:
    """Return everything that a gateway on ``host`` is told."""
    image, probe = image_of(around.placed.lab, block.engine)
    return GatewayAsk(
        lab=around.placed.lab.name,
        name=name,
        host=host,
        options=block,
        endpoints=tuple(endpoints),
        port=block.port,
        bind=bind,
        image=block.image or image,
        probe=probe,
        database=database,
        cards=around.offered.cards,
        residents=around.offered.of(host),
        children=children or Children(),
        services=tuple(s.seen_by(host, around.networks) for s in around.sites),
        clients=clients,
        origin=origin,
    )


def link_endpoint(around: Surroundings, endpoint: Endpoint, user: PlacedHost) -> Linked:
    """Return an endpoint with its server's URL as ``user`` reaches it."""
    url = url_of(around, endpoint.host, endpoint.workload, around.ports[endpoint], user)
    return Linked(endpoint, url)


def url_of(around: Surroundings, host: str, name: str, port: Port, user: PlacedHost) -> str:
    """Return the URL of a workload's port; of one that cannot be reached, what it would be."""
    provider = around.placed.hosts[host]
    address = address_of(around.networks, provider, name, port, user)
    return f"http://{address or f'{in_url(provider.address)}:{port.published}'}"


def clients_of(sites: Iterable[Site]) -> tuple[Client, ...]:
    """Return the services that want a key of the gateway, by name."""
    found = [(s, s.service.client(s.part.options)) for s in sites]
    return tuple(
        Client(name=s.name, secret=wanted[1], metrics=wanted[0] is Access.METRICS)
        for s, wanted in sorted(found, key=lambda pair: pair[0].name)
        if wanted is not None
    )
