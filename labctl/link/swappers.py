"""Gateways that swap behind the lab's own: one on each host that has on-demand servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from labctl.diagnostics import Diagnostic, DocPath
from labctl.gateways import WORKLOAD, Linked, load
from labctl.link.asks import Surroundings, clients_of, link_endpoint, make_ask, url_of
from labctl.model.gateway import GatewayBlock
from labctl.placed import PlacedHost
from labctl.resolve.hosts import LOOPBACK
from labctl.values import dataclass
from labctl.workload import Endpoint, Workload

ORIGIN: DocPath = ("gateway", "swap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapper:
    """One of them.

    Attributes:
        workload: what runs.
        behind: the on-demand servers that are asked through it.
        around: every server of its host, which it has to know to keep the books of the cards.
        key: name of the secret that opens it, None when it asks for none.
    """

    workload: Workload
    behind: frozenset[str]
    around: frozenset[str]
    key: str | None


def plan_swappers(around: Surroundings, problems: list[Diagnostic]) -> tuple[Swapper, ...] | None:
    """Return the gateways that swap behind the lab's own; None when something is wrong with their block."""
    own = around.placed.lab.gateway
    block = own.swapper if own is not None else None
    if block is None:
        return ()
    found = [replace(p, path=(*ORIGIN, *(p.path or ())[1:])) for p in load(block.engine).check(block, around.ports, ())]
    problems.extend(found)
    if any(p.is_error for p in found):
        return None
    return tuple(_swapper(around, block, host, names, problems) for host, names in _asleep(around))


def _asleep(around: Surroundings) -> Iterator[tuple[PlacedHost, frozenset[str]]]:
    """Yield each host with the servers that somebody has to start; who takes turns is switched by hand."""
    servers = around.offered.servers
    for name, host in sorted(around.placed.hosts.items()):
        mine = [n for n, s in servers.items() if s.host.name == name and s.on_demand and s.turns is None]
        if mine:
            yield host, frozenset(mine)


def _swapper(
    around: Surroundings, block: GatewayBlock, host: PlacedHost, names: frozenset[str], problems: list[Diagnostic]
) -> Swapper:
    problems.extend(around.offered.out_of_hand(host, names))
    near = [link_endpoint(around, e, host) for e in around.ports if e.host == host.name]
    gateway = load(block.engine)
    ask = make_ask(
        around,
        block,
        host,
        near,
        bind=LOOPBACK if host.name == around.placed.lab.gateway_host else host.bind,
        name=f"{WORKLOAD}-{host.name}",
        origin=ORIGIN,
        clients=tuple(client for client in clients_of(around.sites) if client.metrics),
    )
    (workload,) = gateway.workloads(ask)
    known = frozenset(linked.endpoint.workload for linked in near)
    return Swapper(workload=workload, behind=names, around=known, key=gateway.master_key(block))


def through(around: Surroundings, swappers: Mapping[str, Swapper], endpoint: Endpoint, user: PlacedHost) -> Linked:
    """Return an endpoint as the lab's gateway reaches it: through the one that loads its server, else directly."""
    swapper = swappers.get(endpoint.workload)
    if swapper is None:
        return link_endpoint(around, endpoint, user)
    main = swapper.workload
    return Linked(endpoint, url_of(around, main.host, main.name, main.port(), user), by_name=True, key=swapper.key)
