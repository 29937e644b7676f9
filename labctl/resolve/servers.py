"""Servers: a slot, its runtime, its port and its share of the limits, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labctl.diagnostics import Diagnostic, DocPath
from labctl.model.deployment import Deployment
from labctl.model.lab import Lab
from labctl.placed import PlacedHost, PlacedModel, Runtime, Server
from labctl.resolve.hosts import LOOPBACK
from labctl.resolve.ports import Taken, drawn_port
from labctl.resolve.slots import Slot
from labctl.values import dataclass
from labctl.workload import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What taking turns means for a deployment."""

    group: str | None = None
    runs: bool = True

    turns: str | None = None
    """The group, when apply runs one of its members; on-demand deployments are started by who wants them."""


def membership(lab: Lab, deployment: str) -> Membership:
    """Return a deployment's exclusive group, and whether it runs after an apply."""
    always = lab.deployments[deployment].start == "always"
    for name, group in lab.groups.items():
        if deployment in group.swap:
            return Membership(group=name, runs=False)
        if deployment in group.exclusive:
            active = group.active or group.exclusive[0]
            return Membership(group=name, runs=always and deployment == active, turns=name if always else None)
    return Membership(runs=always)


def server_names(deployment: str, slots: Sequence[Slot]) -> tuple[str, ...]:
    """Return one name per slot: the deployment's own for a single server, else with what tells them apart."""
    if len(slots) == 1:
        return (deployment,)
    one_host = len({s.host.name for s in slots}) == 1
    labels = [s.label.removeprefix(f"{s.host.name}-") if one_host else s.label for s in slots]
    if len(set(labels)) < len(labels):
        labels = [str(s.index) for s in slots]
    return tuple(f"{deployment}-{label}" for label in labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Who has to reach a server: decides whether its port is published, and where."""

    published: bool
    bind: str


def reach(
    host: PlacedHost, gateway: PlacedHost | None, spec: Deployment, runtime: Runtime, *, by_name: bool, linked: bool
) -> Reach:
    """Return the narrowest way that works.

    ``gateway`` is its host; ``by_name``: servers of this host share a private network; ``linked``: the gateway is
    rendered, too. Without a gateway the server is for people, so other machines must reach it.
    """
    if gateway is None or gateway.network != host.network:
        return Reach(published=True, bind=host.bind)
    # Who is asked from outside of its container needs a port on the host; in a cluster every node reaches it.
    asked = runtime.probe is Probe.NONE and host.places.site is None
    private = by_name and linked and spec.port is None and not asked
    return Reach(published=not private, bind=LOOPBACK if gateway.name == host.name else host.bind)


def share(total: int | None, index: int, count: int) -> int | None:
    """Return the part of a limit that server ``index`` of ``count`` gets: whole numbers that add up to the total."""
    return None if total is None else total // count + (1 if index < total % count else 0)


def limit_problems(name: str, spec: Deployment, count: int) -> Iterator[Diagnostic]:
    """Yield a problem for each limit with less than one for every server: nothing else would keep it."""
    for key in ("rpm", "tpm", "parallel"):
        limit = getattr(spec.limits, key)
        if limit is not None and limit < count:
            yield Diagnostic(
                code="LAB025",
                summary=f"`{key}: {limit}` cannot be shared out over {count} servers",
                path=("deployments", name, "limits", key),
                hint=f"raise it to {count} or more, or run fewer servers: a limit holds for all of them together",
            )


def port_of(spec: Deployment, slot: Slot, slots: Sequence[Slot], name: str) -> int:
    """Return the host port: counted up from the declared one on each host, else drawn from the name."""
    if spec.port is None:
        return drawn_port(slot.host.name, name)
    return spec.port + sum(1 for s in slots if s.host.name == slot.host.name and s.index < slot.index)


def make_servers(
    lab: Lab,
    deployment: str,
    slots: Sequence[Slot],
    runtimes: Sequence[Runtime],
    models: Mapping[str, PlacedModel],
    reaches: Sequence[Reach],
) -> list[Server]:
    """Return the servers of one deployment, in the order of its slots; budgets and start order come later."""
    spec = lab.deployments[deployment]
    names = server_names(deployment, slots)
    origin: DocPath = ("deployments", deployment)
    return [
        Server(
            name=name,
            deployment=deployment,
            label=slot.label,
            host=slot.host,
            runtime=runtime,
            models=tuple(models[m] for m in spec.model_names),
            gpus=slot.gpus,
            port=port_of(spec, slot, slots, name),
            published=way.published,
            bind=way.bind,
            rpm=share(spec.limits.rpm, slot.index, len(slots)),
            tpm=share(spec.limits.tpm, slot.index, len(slots)),
            parallel=share(spec.limits.parallel, slot.index, len(slots)),
            on_demand=not membership(lab, deployment).runs,
            turns=membership(lab, deployment).turns,
            origin=origin,
        )
        for name, slot, runtime, way in zip(names, slots, runtimes, reaches, strict=True)
    ]


def taken_ports(lab: Lab, servers: Sequence[Server]) -> list[Taken]:
    """Return every host port that the lab's servers, services and gateway are reachable at."""
    taken = [
        Taken(
            host=s.host.name,
            port=s.port,
            who=s.name,
            path=s.origin,
            declared=lab.deployments[s.deployment].port is not None,
        )
        for s in servers
        if s.published or s.runtime.image is None
    ]
    for name, service in lab.services.items():
        taken += [
            Taken(host=h, port=service.port, who=name, path=("services", name), declared=True)
            for h in service.places
            if service.port is not None
        ]
    gateway, host = lab.gateway, lab.gateway_host
    if gateway is not None and host is not None:
        declared = "port" in gateway.model_fields_set
        taken.append(Taken(host=host, port=gateway.port, who="gateway", path=("gateway",), declared=declared))
    return taken
