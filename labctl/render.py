"""Rendering: the only place where the axes meet. A placed lab becomes workloads, and workloads become a tree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar, cast

from labctl.artefact import File, HostRoot, Item, Manager, ModelFile, Tree, TreeError
from labctl.diagnostics import Diagnostic, DocPath, LabctlError, Result
from labctl.emit import EmitError
from labctl.engines import Template
from labctl.engines import load as load_engine
from labctl.link import GatewayPlan, link
from labctl.placed import PlacedHost, Server
from labctl.resolve.lab import PlacedLab
from labctl.resolve.models import model_artefacts
from labctl.resolve.ports import Taken, port_clashes
from labctl.targets import MachineTarget, SiteTarget, Target
from labctl.targets.capabilities import choose_form
from labctl.targets.power import power_problems, power_unit
from labctl.values import dataclass
from labctl.workload import Container, Control, Endpoint, Start, Workload

_FROM: Final = re.compile(r"^(FROM\s+(?:--\S+\s+)*)(\S+)", re.MULTILINE | re.IGNORECASE)
_STAGE: Final = re.compile(r"^FROM\s.*\sAS\s+(\S+)\s*$", re.MULTILINE | re.IGNORECASE)

T = TypeVar("T")


def nothing(name: str) -> str:
    """Return no file: LabctlError for each name."""
    raise LabctlError([Diagnostic(code="LAB257", summary=f"there is no file `{name}` beside lab.yaml")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What a lab renders to, and the values on the way that other commands show."""

    placed: PlacedLab
    tree: Tree
    workloads: tuple[Workload, ...]
    endpoints: tuple[Endpoint, ...]
    gateway: GatewayPlan | None


def render(
    placed: PlacedLab, targets: Mapping[str, Target | None], template: Template, beside: Template = nothing
) -> Result[Rendered]:
    """Return the whole tree.

    Args:
        placed: the lab.
        targets: each host's target, None where this version has none.
        template: name → a template's text.
        beside: name → the text of a file in the lab's folder.
    """
    problems: list[Diagnostic] = []
    placed = _with_files(placed, beside, problems)
    servers = [(s, placed.lab.deployments[s.deployment], load_engine(_engine(placed, s))) for s in placed.servers]
    made = [_attempt(partial(e.workload, s, spec, template), s.origin, problems) for s, spec, e in servers]
    if None in made:
        return Result(None, tuple(dict.fromkeys(problems)))
    workloads = [w for w in made if w is not None]
    endpoints = [found for s, spec, engine in servers for found in engine.endpoints(s, spec)]
    networks = {name: _network(placed.hosts[name], target) for name, target in targets.items()}
    controls = {s.name: _control(targets[s.host.name], s) for s in placed.servers}
    links = link(placed, workloads, endpoints, networks, controls, problems)
    workloads = [_from_mirror(w, placed) for w in links.workloads]
    # What the gateway runs has to be something that its target runs, though apply never starts it.
    children = links.gateway.children if links.gateway else ()
    problems.extend(_unexpressible([*workloads, *(replace(w, start=Start.ALWAYS) for w in children)], targets))
    problems.extend(port_clashes(_published(placed, workloads)))
    for name, host in placed.hosts.items():
        problems.extend(power_problems(host, rendered=targets[name] is not None))
        problems.extend(_remarks(targets[name], host, workloads))
    for hosts in _sites(placed):
        problems.extend(_site_problems(targets[hosts[0].name], hosts, workloads))
    tree = Tree() if any(p.is_error for p in problems) else _tree(placed, targets, workloads, problems)
    ordered = tuple(sorted(workloads, key=lambda w: (w.host, w.name)))
    rendered = Rendered(placed=placed, tree=tree, workloads=ordered, endpoints=tuple(endpoints), gateway=links.gateway)
    return Result(rendered, tuple(problems))


def _with_files(placed: PlacedLab, beside: Template, problems: list[Diagnostic]) -> PlacedLab:
    """Return the lab with the files that its machines are described by, and that lie beside lab.yaml."""
    hosts = dict(placed.hosts)
    for name, host in placed.hosts.items():
        file = (host.machine or {}).get("hardware")
        if file is not None:
            text = _attempt(partial(beside, str(file)), (*host.origin, "nixos", "hardware"), problems)
            hosts[name] = replace(host, machine={**(host.machine or {}), "hardware_text": text})
    return replace(placed, hosts=hosts)


def _network(host: PlacedHost, target: Target | None) -> str | None:
    """Return the private network of a host's workloads; where this version has no target, each host its own."""
    return host.name if target is None else target.network(host)


def _control(target: Target | None, server: Server) -> Control | None:
    return None if target is None else target.control(server.host, server.name)


def _engine(placed: PlacedLab, server: Server) -> str:
    return placed.lab.deployments[server.deployment].engine


def _attempt(make: Callable[[], T], origin: DocPath, problems: list[Diagnostic]) -> T | None:
    """Return what ``make`` makes; None, and a located problem, when something of the lab cannot be written down."""
    try:
        return make()
    except LabctlError as error:
        problems.extend(replace(d, path=d.path or origin) for d in error.diagnostics)
    except (EmitError, TreeError) as error:
        summary = f"`{origin[-1]}` has something that cannot be written down"
        problems.append(Diagnostic(code="LAB084", summary=summary, detail=str(error), path=origin))
    return None


def _tree(
    placed: PlacedLab, targets: Mapping[str, Target | None], workloads: Sequence[Workload], problems: list[Diagnostic]
) -> Tree:
    """Return the tree of all hosts; each host is checked by itself, so that a problem has a place."""
    runs: dict[str, list[Workload]] = {name: [] for name in placed.hosts}
    for workload in workloads:
        runs[workload.host].append(workload)
    wanted = _models_by_host(placed)

    def make(hosts: Sequence[PlacedHost]) -> Tree:
        models = {host.name: _models(placed, host, wanted.get(host.name, set())) for host in hosts}
        target = targets[hosts[0].name]
        if hosts[0].places.site is not None:
            return Tree.of(_site(cast("SiteTarget", target), hosts, runs, models))
        (host,) = hosts
        return Tree.of(_host(host, target, runs[host.name], models[host.name]))

    trees = [_attempt(partial(make, hosts), hosts[0].origin, problems) or Tree() for hosts in _sites(placed)]
    return Tree.of(item for t in trees for item in t.items())


def _sites(placed: PlacedLab) -> list[tuple[PlacedHost, ...]]:
    """Return the hosts that are rendered together: those of one cluster; every other host by itself."""
    found: dict[tuple[bool, str], list[PlacedHost]] = {}
    for host in placed.hosts.values():
        found.setdefault((host.places.site is not None, host.network), []).append(host)
    return [tuple(sorted(hosts, key=lambda h: h.name)) for hosts in found.values()]


def _site(
    target: SiteTarget,
    hosts: Sequence[PlacedHost],
    runs: Mapping[str, Sequence[Workload]],
    models: Mapping[str, Sequence[ModelFile | File]],
) -> Iterable[Item]:
    workloads = sorted((w for h in hosts for w in runs[h.name]), key=lambda w: w.name)
    return target.render_site(hosts, workloads, [m for h in hosts for m in models[h.name]])


def _published(placed: PlacedLab, workloads: Iterable[Workload]) -> Iterator[Taken]:
    """Yield every host port that is really published, those that labctl drew for services among them."""
    drawn = {s.name for s in placed.servers if placed.lab.deployments[s.deployment].port is None}
    drawn |= {name for name, block in placed.lab.services.items() if block.port is None}
    for workload in workloads:
        for port in workload.ports:
            if port.published is not None:
                yield Taken(
                    host=workload.host,
                    port=port.published,
                    who=workload.name,
                    path=workload.origin,
                    declared=workload.name not in drawn,
                )


def _models_by_host(placed: PlacedLab) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for server in placed.servers:
        found.setdefault(server.host.name, set()).update(m.name for m in server.models)
    return found


def _site_problems(
    target: Target | None, hosts: Sequence[PlacedHost], workloads: Sequence[Workload]
) -> Iterable[Diagnostic]:
    if target is None or hosts[0].places.site is None:
        return ()
    names = {host.name for host in hosts}
    return cast("SiteTarget", target).check(hosts, [w for w in workloads if w.host in names])


def _remarks(target: Target | None, host: PlacedHost, workloads: Sequence[Workload]) -> Iterable[Diagnostic]:
    """Return what is to be said of a machine that its target describes as a whole; of a node, its site says it."""
    if target is None or host.machine is None or host.places.site is not None:
        return ()
    return cast("MachineTarget", target).remarks(host, [w for w in workloads if w.host == host.name])


def _models(placed: PlacedLab, host: PlacedHost, wanted: Iterable[str]) -> list[ModelFile | File]:
    models: list[ModelFile | File] = []
    for name in sorted(wanted):
        models += model_artefacts(host, name, placed.lab.models[name], placed.known[name])
    unique = {m.path: m for m in models}
    return [unique[p] for p in sorted(unique)]


def _host(
    host: PlacedHost, target: Target | None, workloads: Sequence[Workload], models: Sequence[ModelFile | File]
) -> Iterator[Item]:
    if target is None:
        return
    limits = list(power_unit(host))
    yield from limits
    for item in target.render(host, sorted(workloads, key=lambda w: w.name), models):
        if isinstance(item, HostRoot) and limits and Manager.SYSTEMD not in item.managers:
            yield replace(item, managers=(*item.managers, Manager.SYSTEMD))
        else:
            yield item


def _unexpressible(workloads: Iterable[Workload], targets: Mapping[str, Target | None]) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each workload that its target cannot express: nothing is dropped silently."""
    seen: set[tuple[DocPath, str]] = set()
    for workload in workloads:
        target = targets[workload.host]
        chosen = choose_form(workload, target) if target is not None else None
        if isinstance(chosen, Diagnostic) and (workload.origin, chosen.code) not in seen:
            seen.add((workload.origin, chosen.code))
            yield chosen


def _from_mirror(workload: Workload, placed: PlacedLab) -> Workload:
    """Return the workload with its images taken from the lab's mirror, where it has one."""
    mirror = placed.lab.images.mirror
    if mirror is None:
        return workload
    forms = tuple(_mirrored_form(f, mirror) if isinstance(f, Container) else f for f in workload.forms)
    return replace(workload, forms=forms)


def _mirrored_form(form: Container, mirror: str) -> Container:
    """Return a container whose image is at a mirror, or whose image is built upon such ones."""
    if form.build is None:
        return replace(form, image=mirrored(form.image, mirror))
    files = form.build.files
    dockerfile = _mirrored_bases(files["Dockerfile"], mirror)
    return replace(form, build=replace(form.build, files={**files, "Dockerfile": dockerfile}))


def _mirrored_bases(text: str, mirror: str) -> str:
    """Return a Dockerfile whose ``FROM`` lines name a mirror; stages of its own, ``scratch`` and variables stay."""
    stages = {found.lower() for found in _STAGE.findall(text)}

    def base(found: re.Match[str]) -> str:
        image = found[2]
        own = image.lower() in stages or image == "scratch" or image.startswith("$")
        return found[0] if own else found[1] + mirrored(image, mirror)

    return _FROM.sub(base, text)


def mirrored(image: str, mirror: str) -> str:
    """Return an image at a mirror: the registry is replaced, name and tag are kept."""
    first, _, rest = image.partition("/")
    is_registry = bool(rest) and ("." in first or ":" in first or first == "localhost")
    return f"{mirror.rstrip('/')}/{rest if is_registry else image}"
