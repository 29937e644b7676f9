"""Who calls whom: filled in once everything is planned, so that nobody else needs to be let in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from labctl.link.gateway import GatewayPlan, gateway_of
from labctl.link.sites import Site
from labctl.resolve.lab import PlacedLab
from labctl.workload import Endpoint, Workload

Call = tuple[str, str]
"""Who calls, and whom."""


def with_callers(
    placed: PlacedLab,
    workloads: Sequence[Workload],
    endpoints: Iterable[Endpoint],
    gateway: GatewayPlan | None,
    sites: Sequence[Site],
    planned: Mapping[str, tuple[Workload, ...]],
) -> tuple[Workload, ...]:
    """Return the workloads with ``serves_to``: None where anybody may call.

    That is the gateway, servers of a lab without one, and services that are made for others.
    """
    calls = {*_of_gateway(placed, endpoints, gateway, sites), *_of_services(workloads, sites, planned)}
    callers: dict[str, set[str]] = {}
    for caller, callee in calls:
        callers.setdefault(callee, set()).add(caller)
    anybody = {s.name for s in sites if s.service.open}
    anybody |= {gateway.workloads[0].name} if gateway else {e.workload for e in endpoints}
    return tuple(
        w if w.name in anybody else replace(w, serves_to=tuple(sorted(callers.get(w.name, ())))) for w in workloads
    )


def _of_gateway(
    placed: PlacedLab, endpoints: Iterable[Endpoint], plan: GatewayPlan | None, sites: Sequence[Site]
) -> Iterator[Call]:
    found = gateway_of(placed)
    if found is None or plan is None:
        return
    gateway, block = found
    main, *tasks = (w.name for w in plan.workloads)
    database = gateway.database(block)
    for site in sites:
        if {site.name, site.part.kind} & {*gateway.calls, database}:
            yield main, site.name
        if site.name == database:
            yield from ((task, site.name) for task in tasks)
    through = {name: swapper.workload.name for swapper in plan.swappers for name in swapper.behind}
    yield from ((main, through.get(e.workload, e.workload)) for e in endpoints)
    yield from ((swapper.workload.name, name) for swapper in plan.swappers for name in swapper.around)


def _of_services(
    workloads: Iterable[Workload], sites: Sequence[Site], planned: Mapping[str, tuple[Workload, ...]]
) -> Iterator[Call]:
    with_figures = [w.name for w in workloads if w.metrics is not None]
    for site in sites:
        yield from ((site.name, s.name) for s in sites if s.part.kind in site.service.calls)
        yield from ((task.name, site.name) for task in planned.get(site.name, ())[1:])
        kept = site.service.keeps(site.part.options)
        yield from ((site.name, kept),) if kept else ()
        yield from ((site.name, name) for name in with_figures if site.service.watches and name != site.name)
