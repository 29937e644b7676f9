"""Linking: who reaches whom at which address. Services and the gateway are planned here, once servers are known.

In this order: where every service is (``sites``), the gateway (``gateway``) after those behind it (``swappers``), the
services (``services``), and who calls whom (``callers``). Addresses are decided in ``address`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labctl.diagnostics import Diagnostic
from labctl.link.address import Networks
from labctl.link.asks import Surroundings
from labctl.link.callers import with_callers
from labctl.link.gateway import GatewayPlan, called, plan_gateway
from labctl.link.residents import plan_residents
from labctl.link.services import Known, plan_services
from labctl.link.sites import plan_sites
from labctl.resolve.lab import PlacedLab
from labctl.values import dataclass
from labctl.workload import Control, Endpoint, Workload

__all__ = ["GatewayPlan", "Links", "Networks", "link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Everything that runs, linked, and the gateway as people reach it."""

    workloads: tuple[Workload, ...]
    gateway: GatewayPlan | None


def link(
    placed: PlacedLab,
    servers: Sequence[Workload],
    endpoints: Sequence[Endpoint],
    networks: Networks,
    controls: Mapping[str, Control | None],
    problems: list[Diagnostic],
) -> Links:
    """Return the servers, the gateway and the services, each told where the others are.

    ``controls`` says of each server how a program of its own host starts and stops it.
    """
    sites = plan_sites(placed, networks, called(placed), problems)
    offered = plan_residents(placed, servers, controls)
    at = {w.name: w for w in servers}
    ports = {e: at[e.workload].port(e.port) for e in endpoints}
    around = Surroundings(placed=placed, networks=networks, sites=sites, offered=offered, ports=ports)
    gateway = plan_gateway(around, servers, problems)
    children = {w.name for w in gateway.children} if gateway else set()
    own = (*gateway.workloads, *(s.workload for s in gateway.swappers)) if gateway else ()
    first = (*(w for w in servers if w.name not in children), *own)
    known = Known(placed=placed, networks=networks, sites=sites, gateway=gateway, endpoints=tuple(endpoints))
    planned = plan_services(known, first, problems)
    workloads = (*first, *(w for some in planned.values() for w in some))
    return Links(workloads=with_callers(placed, workloads, endpoints, gateway, sites, planned), gateway=gateway)
