"""What gateways do the same way that run the servers of their host themselves, as their children."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from labctl.diagnostics import At, Diagnostic, DocPath
from labctl.gateways import GatewayAsk
from labctl.workload import Child, Container, Endpoint, GpuClaim, Mount, SecretText, Workload


def child_of(server: Workload) -> Child:
    """Return how a server is run as a child; ValueError for one that cannot be, which ``refusals`` has said."""
    if server.child is None:
        message = f"{server.name} is nobody's child"
        raise ValueError(message)
    return server.child


def command(ask: GatewayAsk, server: Workload) -> tuple[str, ...]:
    """Return the words of a child's command line: program and arguments, with its folder and its cards filled in."""
    child = child_of(server)
    return tuple(_filled(ask, server, word) for word in (child.program, *child.args))


def _filled(ask: GatewayAsk, server: Workload, word: str) -> str:
    word = word.replace("{models}", ask.host.places.models)
    head, found, rest = word.partition("{cards:")
    if not found or server.gpu is None:
        return word
    places = {index: place for place, index in enumerate(_devices(ask))}
    name, _, tail = rest.partition("}")
    return head + ",".join(f"{name}{places[device.index]}" for device in server.gpu.devices) + tail


def _devices(ask: GatewayAsk) -> list[int]:
    """Return the positions of all the children's cards, in the order in which their parent sees them."""
    return sorted({d.index for server in ask.children.servers.values() if server.gpu for d in server.gpu.devices})


def claim(ask: GatewayAsk) -> GpuClaim | None:
    """Return a claim on all cards that the children use."""
    claims = [server.gpu for server in ask.children.servers.values() if server.gpu]
    found = {device.index: device for own in claims for device in own.devices}
    return replace(claims[0], devices=tuple(found[i] for i in _devices(ask)), budget=()) if claims else None


def models(ask: GatewayAsk) -> tuple[str, ...]:
    """Return the files in the models folder that the children read."""
    return tuple(dict.fromkeys(model for server in ask.children.servers.values() for model in server.models))


def mounts(ask: GatewayAsk) -> tuple[Mount, ...]:
    """Return the models folder, where it is on the host: so one file is right for programs and for containers."""
    folder = ask.host.places.models
    return (Mount(source=folder, target=folder, read_only=True),) if containers(ask) else ()


def containers(ask: GatewayAsk) -> list[Container]:
    """Return the children's own containers; their parent's has what theirs would have."""
    return [f for server in ask.children.servers.values() for f in server.forms if isinstance(f, Container)]


def locks_memory(ask: GatewayAsk) -> bool:
    """Whether a child keeps its weights in RAM."""
    return any(form.locked_memory for server in ask.children.servers.values() for form in server.forms)


def refusals(ask: GatewayAsk, who: str, trouble: str, why: str) -> Iterator[Diagnostic]:
    """Yield the servers that a parent cannot run.

    Args:
        ask: what it is told.
        who: what it is called.
        trouble: pattern of what its file cannot hold.
        why: what it would make of that.
    """
    limits = {x.endpoint.workload: x.endpoint for x in ask.endpoints}
    for name, server in ask.children.servers.items():
        if server.child is None:
            yield refused(who, name, server.origin, "it runs llama.cpp servers that need no image of their own")
            continue
        for key, what in (*_beyond(server, limits[name]), *_unspeakable(server, trouble, why)):
            yield refused(who, name, (*server.origin, *key), what, key=True)
        group, _ = ask.children.apart.get(name, ("", ""))
        if group in ask.children.beside:
            yield refused(who, name, ("groups", group), f"a member of its group is not started by {who}")
    yield from _programs(ask, who)


def _beyond(server: Workload, endpoint: Endpoint) -> Iterator[tuple[DocPath, str]]:
    """Yield the settings of a server that nothing of a parent's stands for: key, reason."""
    limits = {"memory_limit": server.memory_limit, "swap_limit": server.swap_limit, "cpus": server.cpus}
    rates = {"rpm": endpoint.rpm, "tpm": endpoint.tpm}
    yield from (((key,), f"`{key}` cannot hold for one of its children") for key, x in limits.items() if x is not None)
    yield from ((("limits", key), f"it counts no `{key}`") for key, rate in rates.items() if rate is not None)
    if server.extra:
        yield ("extra",), "there is no unit or container of its own to lay `extra` over"


def _unspeakable(server: Workload, trouble: str, why: str) -> Iterator[tuple[DocPath, str]]:
    """Yield the texts that its configuration cannot hold. Public names have nothing of the kind."""
    for name, value in server.env.items():
        if isinstance(value, SecretText) and value.names:
            yield ("env", name), "its configuration would hold the secret"
        elif re.search(trouble, str(value)):
            yield ("env", name), why
    if any(re.search(trouble, word) for word in child_of(server).args):
        yield ("args",), why


def _programs(ask: GatewayAsk, who: str) -> Iterator[Diagnostic]:
    """All children run in one container, or as one user's processes, and see the same cards."""
    servers = [server for server in ask.children.servers.values() if server.child]
    images = {form.image: w for w in servers for form in w.forms if isinstance(form, Container)}
    controls = [ask.residents[server.name].control for server in servers]
    contained = any(control is None or control.kind == "docker" for control in controls)
    if contained and len(images) > 1 and ask.options.image is None:
        *_, (image, server) = images.items()
        listed = ", ".join(f"`{name}`" for name in images if name != image)
        why = f"it needs `{image}`, and others {listed}: there is one container"
        yield refused(who, server.name, server.origin, why)
    if len({server.gpu.accelerator for server in servers if server.gpu}) > 1:
        server = next(w for w in reversed(servers) if w.gpu)
        yield refused(who, server.name, server.origin, "its children drive their cards in different ways")


def refused(who: str, name: str, path: DocPath, why: str, *, key: bool = False) -> Diagnostic:
    """Return the problem of a server that a parent cannot run."""
    ways = f"leave `{path[-1]}` out, " if key else ""
    return Diagnostic(
        code="LAB222",
        summary=f"{who} cannot run `{name}`: {why}",
        path=path,
        at=At.KEY if key else At.VALUE,
        hint=f"{ways}let `{name}` run always (`start: always`), or use `gateway: {{engine: builtin}}`",
    )


def nameless(who: str, public: str, endpoint: Endpoint, why: str, remedy: str) -> Diagnostic:
    """Return the problem of a public name that a gateway cannot serve."""
    return Diagnostic(
        code="LAB225",
        summary=f"{who} cannot serve `{public}`: {why}",
        path=endpoint.origin,
        hint=f"{remedy}, or use `gateway: {{engine: builtin}}`",
    )


def servers_of(ask: GatewayAsk) -> Mapping[str, tuple[str, ...]]:
    """Return public name → the servers that serve it."""
    behind: dict[str, dict[str, None]] = {}
    for linked in ask.endpoints:
        for public in linked.endpoint.serves:
            behind.setdefault(public, {})[linked.endpoint.workload] = None
    return {public: tuple(servers) for public, servers in behind.items()}
