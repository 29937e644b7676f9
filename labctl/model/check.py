"""References inside lab.yaml: every name that one block uses and another defines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labctl.diagnostics import At, Diagnostic, DocPath, Related
from labctl.model.deployment import Deployment, Placement
from labctl.model.lab import Group, Lab
from labctl.model.unknown import unknown_name


def check_references(lab: Lab) -> Iterator[Diagnostic]:
    """Yield every name that is used and not defined, or defined twice."""
    for name, deployment in lab.deployments.items():
        yield from _deployment(lab, name, deployment)
    yield from _public_names(lab)
    yield from _groups(lab)
    for name, service in lab.services.items():
        key = "host" if service.host else "hosts"
        for i, host in enumerate(service.places):
            path: DocPath = ("services", name, key, i) if key == "hosts" else ("services", name, key)
            yield from _host(lab, host, path)
    if lab.gateway is not None and lab.gateway.host is not None:
        yield from _host(lab, lab.gateway.host, ("gateway", "host"))
    elif lab.gateway is not None and len(lab.hosts) > 1:
        hint = "add `host:` and the key of a host"
        yield Diagnostic(code="LAB020", summary="the gateway says nowhere to run", path=("gateway",), hint=hint)
    yield from _workload_names(lab)


def _host(lab: Lab, host: str, path: DocPath) -> Iterator[Diagnostic]:
    if host not in lab.hosts:
        yield unknown_name("LAB050", "host", host, lab.hosts, path)


def _deployment(lab: Lab, name: str, deployment: Deployment) -> Iterator[Diagnostic]:
    path: DocPath = ("deployments", name)
    if deployment.model is not None and deployment.model not in lab.models:
        yield unknown_name("LAB051", "model", deployment.model, lab.models, (*path, "model"))
    for i, model in enumerate(deployment.models):
        if model not in lab.models:
            yield unknown_name("LAB051", "model", model, lab.models, (*path, "models", i))
    for i, placement in enumerate(deployment.on):
        place: DocPath = (*path, "on", i) if len(deployment.on) > 1 else (*path, "on")
        yield from _host(lab, placement.host, (*place, "host"))
        if placement.host in lab.hosts:
            yield from _gpus(lab, placement, place)


def _gpus(lab: Lab, placement: Placement, path: DocPath) -> Iterator[Diagnostic]:
    host = lab.hosts[placement.host]
    cards = [gpu.uuid[k] if gpu.uuid else None for gpu in host.gpus for k in range(gpu.count)]
    if placement.gpus == "none":
        return
    if not cards:
        yield Diagnostic(
            code="LAB052",
            summary=f"host `{placement.host}` has no GPU",
            path=(*path, "gpus"),
            hint=f"list its cards under `hosts.{placement.host}.gpus`, or leave `gpus` out to run on the CPU",
        )
        return
    refs = range(len(cards)) if placement.gpus == "all" else placement.gpus
    seen: set[int] = set()
    for i, ref in enumerate(refs):
        index = _index(ref, cards)
        if index is None:
            yield _no_such_card(placement.host, ref, len(cards), (*path, "gpus", i))
        elif index in seen:
            summary = f"GPU `{ref}` is listed twice"
            yield Diagnostic(code="LAB054", summary=summary, path=(*path, "gpus", i), hint="remove one")
        else:
            seen.add(index)
    if len(refs) % placement.gpus_per_server:
        yield Diagnostic(
            code="LAB027",
            summary=f"{len(refs)} cards cannot be shared out {placement.gpus_per_server} to a server",
            path=(*path, "gpus"),
            hint=f"list a multiple of {placement.gpus_per_server} cards, or change `gpus_per_server`",
        )


def _index(ref: int | str, cards: list[str | None]) -> int | None:
    """Return a card's place on the bus, by that place or its UUID; None when there is no such card."""
    if isinstance(ref, int):
        return ref if 0 <= ref < len(cards) else None
    return cards.index(ref) if ref in cards else None


def _no_such_card(host: str, ref: int | str, count: int, path: DocPath) -> Diagnostic:
    places = f"its cards are 0 to {count - 1}" if count > 1 else "its only card is `0`"
    return Diagnostic(
        code="LAB052",
        summary=f"host `{host}` has no GPU `{ref}`",
        path=path,
        hint=places if isinstance(ref, int) else "add the UUID to the host's `gpus`",
    )


def _public_names(lab: Lab) -> Iterator[Diagnostic]:
    """Several deployments may share a name (they are balanced), if they are asked for the same thing."""
    first: dict[str, tuple[str, Deployment]] = {}
    for name, deployment in lab.deployments.items():
        for i, public in enumerate(deployment.serves):
            other, known = first.setdefault(public, (name, deployment))
            if known.task is not deployment.task:
                tasks = f"by `{other}` for `{known.task}` and by `{name}` for `{deployment.task}`"
                yield Diagnostic(
                    code="LAB054",
                    summary=f"`{public}` is served {tasks}",
                    path=("deployments", name, "serves", i),
                    hint="requests for one name go to any of its deployments: give one of them another name",
                    related=(Related("also served here", ("deployments", other, "serves")),),
                )


def _groups(lab: Lab) -> Iterator[Diagnostic]:
    member_of: dict[str, str] = {}
    for name, group in lab.groups.items():
        for i, member in enumerate(group.members):
            path: DocPath = ("groups", name, group.key, i)
            if member not in lab.deployments:
                yield unknown_name("LAB053", "deployment", member, lab.deployments, path)
            elif member_of.setdefault(member, name) != name or member in group.members[:i]:
                yield Diagnostic(
                    code="LAB054",
                    summary=f"deployment `{member}` is already in group `{member_of[member]}`",
                    path=path,
                    hint="a deployment takes turns in one group: remove it from the others",
                )
        if group.swap:
            yield from _swapped(lab, name, group)
        if group.active is not None and group.active not in group.exclusive:
            yield unknown_name("LAB053", "member", group.active, group.exclusive, ("groups", name, "active"))


def _swapped(lab: Lab, name: str, group: Group) -> Iterator[Diagnostic]:
    """A gateway that swaps has to be there, and nobody else may start what it swaps."""
    if lab.gateway is None or not (lab.gateway.swaps or lab.gateway.swapper):
        yield Diagnostic(
            code="LAB221",
            summary=f"nobody swaps the deployments of group `{name}`",
            path=("groups", name, "swap"),
            hint=f"{_swapping(lab)}, or let one of them run: `exclusive:`",
        )
    for i, member in enumerate(group.swap):
        if member in lab.deployments and lab.deployments[member].start == "always":
            yield Diagnostic(
                code="LAB221",
                summary=f"`{member}` is started by `labctl apply`, and by the gateway when it is asked for",
                path=("groups", name, "swap", i),
                hint=f"give `{member}` `start: on-demand`",
            )


def _swapping(lab: Lab) -> str:
    if lab.gateway is not None and "swap" in type(lab.gateway).model_fields:
        return "add `swap: {}` to the gateway: then labctl's own swaps behind it"
    return "give the lab `gateway: {engine: builtin}`"


def _workload_names(lab: Lab) -> Iterator[Diagnostic]:
    """Deployments, services and the gateway become workloads: their names must not meet on one host."""
    taken: dict[str, DocPath] = {"gateway": ("gateway",)} if lab.gateway else {}
    if lab.gateway and lab.gateway.swapper:
        taken |= {f"gateway-{host}": ("gateway", "swap") for host in lab.hosts}
    for axis, names in (("deployments", lab.deployments), ("services", lab.services)):
        yield from _collisions(axis, names, taken)


def _collisions(axis: str, names: Iterable[str], taken: dict[str, DocPath]) -> Iterator[Diagnostic]:
    for name in names:
        path: DocPath = (axis, name)
        if taken.setdefault(name, path) != path:
            yield Diagnostic(
                code="LAB054",
                summary=f"`{name}` is the name of two things that run",
                path=path,
                at=At.KEY,
                hint="rename one of them",
                related=(Related("the other one", taken[name]),),
            )
