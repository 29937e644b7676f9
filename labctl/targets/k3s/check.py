"""What a cluster cannot be told, and what would never run there: said before anything is rendered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from labctl.diagnostics import At, Diagnostic, DocPath, Related, Severity
from labctl.placed import PlacedHost
from labctl.targets.k3s import gpu
from labctl.targets.k3s.node import of_machine
from labctl.targets.k3s.settings import Settings, charts, disagreements, node, settings
from labctl.targets.nixos.node import remarks
from labctl.workload import Container, GpuClaim, Start, Workload

PARTS: Final = frozenset(
    {
        "pod", "container", "deployment", "statefulset", "daemonset", "job", "service", "ingress", "networkpolicy",
        "serviceaccount", "poddisruptionbudget",
    }
)  # fmt: skip
"""What ``extra: {k3s: …}`` can be laid over."""


def problems(hosts: Sequence[PlacedHost], workloads: Sequence[Workload]) -> Iterator[Diagnostic]:
    """Yield everything that is wrong with a cluster and what it is to run."""
    differ = list(disagreements(hosts))
    yield from differ
    if differ:
        return
    site = settings(hosts)
    yield from _names(hosts)
    yield from _settings(site, hosts)
    yield from _prepared(hosts)
    yield from _machines(site, hosts)
    for host in hosts:
        mine = [w for w in workloads if w.host == host.name and w.gpu is not None and not w.gpu.observes]
        yield from _cards(site, host, mine)
        yield from _which_card(site, host, mine)
    for workload in workloads:
        yield from _workload(workload)


def _names(hosts: Sequence[PlacedHost]) -> Iterator[Diagnostic]:
    """Yield a problem for names that stand for two things: the cluster and a host, or two hosts as one node."""
    nodes: dict[str, PlacedHost] = {}
    for host in hosts:
        if host.name == host.network:
            yield Diagnostic(
                code="LAB211",
                summary=f"`{host.name}` is the name of a host and of its cluster",
                path=host.origin,
                at=At.KEY,
                hint="name the cluster: `k3s: {cluster: home}`",
            )
        first = nodes.setdefault(node(host), host)
        if first is not host:
            yield Diagnostic(
                code="LAB211",
                summary=f"`{first.name}` and `{host.name}` are both the node `{node(host)}`",
                path=(*host.origin, "k3s"),
                hint="`kubectl get nodes` shows what Kubernetes calls them: `k3s: {node: NAME}`",
                related=(Related("the other host", first.origin),),
            )


def _settings(site: Settings, hosts: Sequence[PlacedHost]) -> Iterator[Diagnostic]:
    where: dict[str, DocPath] = {k: (*h.origin, "k3s", k) for h in reversed(hosts) for k in h.options}
    if site.tls and site.issuer:
        yield Diagnostic(
            code="LAB212",
            summary="a certificate comes from `tls`, a secret that is there, or from `issuer`, which makes one",
            path=where["issuer"],
            hint="leave one of them out",
        )
    for key in ("tls", "issuer", "ingress_class"):
        if getattr(site, key) and site.domain is None:
            yield Diagnostic(
                code="LAB212",
                summary=f"`{key}` is for host names, and the cluster has no `domain`",
                path=where[key],
                hint="add `domain:`; services are then at `<service>.<domain>`",
            )
    for name, chart in (site.charts or {}).items():
        if str((chart or {}).get("chart") or name) not in charts() and not (chart or {}).get("repo"):
            yield Diagnostic(
                code="LAB212",
                summary=f"labctl does not know where chart `{name}` comes from",
                path=(*where["charts"], name),
                at=At.KEY,
                hint="add `repo:` and `version:`; by name it knows " + ", ".join(f"`{c}`" for c in sorted(charts())),
            )


def _prepared(hosts: Sequence[PlacedHost]) -> Iterator[Diagnostic]:
    for host in hosts:
        if host.machine is not None:
            continue
        if host.options.get("server") and not host.options.get("prepare"):
            yield Diagnostic(
                code="LAB212",
                summary="`server` is for k3s' own configuration, which labctl writes only when asked to",
                path=(*host.origin, "k3s", "server"),
                hint="add `prepare: true`, or leave it out",
            )
        if any(g.power_limit for g in host.gpus) and not host.options.get("prepare"):
            yield Diagnostic(
                code="LAB085",
                summary=f"power limits of `{host.name}` are a unit of the host, which Kubernetes cannot bring there",
                path=(*host.origin, "gpus"),
                hint="add `k3s: {prepare: true}`: labctl then writes to the host over SSH; or leave them out",
            )


def _machines(site: Settings, hosts: Sequence[PlacedHost]) -> Iterator[Diagnostic]:
    """Yield what is wrong with the machines that labctl describes as a whole."""
    mine = [host for host in hosts if host.machine is not None]
    servers = [host for host in mine if not host.options.get("server")]
    for host in servers[1:]:
        yield Diagnostic(
            code="LAB256",
            summary=f"`{servers[0].name}` and `{host.name}` would each be the server of a cluster of its own",
            path=(*host.origin, "k3s"),
            at=At.KEY,
            hint=f"let one join the other: `k3s: {{server: https://{servers[0].address}:6443, token: SECRET}}`",
            related=(Related("the other server", servers[0].origin),),
        )
    for host in mine:
        joins = host.options.get("server") or (len(hosts) > 1 and host in servers[:1])
        if joins and not host.options.get("token"):
            yield Diagnostic(
                code="LAB256",
                summary=f"`{host.name}` has no token, and the nodes of a cluster join with one",
                path=(*host.origin, "k3s"),
                at=At.KEY,
                hint="name a secret, the same for all nodes: `k3s: {token: K3S_TOKEN}`; labctl can invent its value",
            )
        yield from remarks(host, of_machine(host, site, hosts))


def _cards(site: Settings, host: PlacedHost, workloads: Sequence[Workload]) -> Iterator[Diagnostic]:
    """Yield a problem when pods that run at the same time ask for more cards than the node hands out."""
    by_vendor: dict[str, list[Workload]] = {}
    for workload in workloads:
        claim = workload.gpu
        if claim is not None:
            by_vendor.setdefault(gpu.vendor(host, claim), []).append(workload)
    for vendor, users in by_vendor.items():
        slices = (site.time_slicing or 1) if vendor == "nvidia" else 1
        cards = [g for g in host.gpus if g.vendor == vendor]
        asked = _at_once(users)
        if asked > len(cards) * slices:
            yield _too_many(host, users, asked, len(cards), slices)
        if slices > 1:
            yield from (_sliced(w) for w in users if w.gpu is not None and len(w.gpu.devices) > 1)


def _at_once(workloads: Iterable[Workload]) -> int:
    """Return how many cards are asked for together: of the members of a group that take turns, by the largest."""
    always, turns = 0, dict[tuple[str, DocPath], int]()
    for workload in workloads:
        wanted = len(workload.gpu.devices) * workload.replicas if workload.gpu else 0
        if workload.turns is not None:
            member = workload.turns, workload.origin
            turns[member] = turns.get(member, 0) + wanted
        elif workload.start is Start.ALWAYS:
            always += wanted
    largest: dict[str, int] = {}
    for (group, _), wanted in turns.items():
        largest[group] = max(largest.get(group, 0), wanted)
    return always + sum(largest.values())


def _too_many(host: PlacedHost, users: Sequence[Workload], asked: int, cards: int, slices: int) -> Diagnostic:
    names = ", ".join(f"`{w.name}`" for w in users if w.start is Start.ALWAYS or w.turns)
    has = f"{cards} card{'' if cards == 1 else 's'}" + (f" with {slices} slices each" if slices > 1 else "")
    sharing = f"`k3s: {{time_slicing: {-(-asked // max(cards, 1))}}}`, where nothing keeps their memory apart"
    return Diagnostic(
        code="LAB213",
        summary=f"pods on `{host.name}` ask for {asked} cards at a time, and the node hands out {has}",
        detail=f"Kubernetes gives a card to one pod as a whole: {names}",
        path=(*host.origin, "gpus"),
        hint=f"let them take turns (`groups: {{…: {{exclusive: […]}}}}`), or share: {sharing}",
    )


def _sliced(workload: Workload) -> Diagnostic:
    cards = len(workload.gpu.devices) if workload.gpu else 0
    return Diagnostic(
        code="LAB214",
        summary=f"`{workload.name}` needs {cards} cards, and a pod gets one slice of one card",
        detail="with time-slicing two slices may be of one card, so the device plugin refuses pods that ask for more",
        path=workload.origin,
        hint="leave `time_slicing` out, or run it on one card",
    )


def _which_card(site: Settings, host: PlacedHost, workloads: Sequence[Workload]) -> Iterator[Diagnostic]:
    """Yield a diagnostic where it matters which card a pod gets: Kubernetes chooses, and cannot be told."""
    claims: list[GpuClaim] = [w.gpu for w in workloads if w.gpu is not None]
    used = {d.index for c in claims for d in c.devices}
    vendors = {g.vendor for g in host.gpus if g.index in used}
    kinds = {(g.vendor, g.model, g.memory) for g in host.gpus if g.vendor in vendors}
    if claims and len(kinds) > 1 and any(len(c.devices) < len(host.gpus) for c in claims):
        yield Diagnostic(
            code="LAB215",
            severity=Severity.WARNING,
            summary=f"`{host.name}` has different cards, and Kubernetes chooses which of them a pod gets",
            path=(*host.origin, "gpus"),
            hint="budgets hold only if each model fits on the smallest; or make the other cards unknown to the node",
        )
    elif claims and site.time_slicing and len(host.gpus) > 1:
        yield Diagnostic(
            code="LAB215",
            severity=Severity.WARNING,
            summary=f"with slices of {len(host.gpus)} cards nobody knows which pods share a card on `{host.name}`",
            path=(*host.origin, "k3s"),
            hint="budgets hold only if any of them fit together; exclusive groups need no slices",
        )
    elif claims and any(g.uuid for g in host.gpus) and len(host.gpus) > 1:
        yield Diagnostic(
            code="LAB215",
            severity=Severity.NOTE,
            summary=f"the UUIDs of `{host.name}` are not used: Kubernetes chooses which card a pod gets",
            path=(*host.origin, "gpus"),
            hint="its cards are alike, so every budget holds whichever it is",
        )


def _workload(workload: Workload) -> Iterator[Diagnostic]:
    if workload.ports and workload.name[0].isdigit():
        yield Diagnostic(
            code="LAB216",
            summary=f"`{workload.name}` cannot be a name in a cluster: a Service's name begins with a letter",
            path=workload.origin,
            at=At.KEY,
            hint="rename it",
        )
    extra: Mapping[str, object] = workload.extra.get("k3s", {})
    for key, patch in extra.items():
        if key not in PARTS or not isinstance(patch, Mapping):
            yield Diagnostic(
                code="LAB217",
                summary=f"`{key}` is nothing that a patch can be laid over",
                path=(*workload.origin, "extra", "k3s", key),
                at=At.KEY,
                hint="it is one of " + ", ".join(f"`{p}`" for p in sorted(PARTS)),
            )
    for form in workload.forms:
        if isinstance(form, Container) and form.build is not None:
            yield Diagnostic(
                code="LAB219",
                summary=f"`{workload.name}` runs an image that labctl would build, and a cluster only pulls images",
                path=(*workload.origin, "build"),
                hint="build it once (`docker build`), push it, and name it: `image: registry/name:tag`",
            )
