"""What llama-swap cannot do, said before anything is rendered: with its block, and with the servers it is given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from labctl.diagnostics import At, Diagnostic, DocPath
from labctl.gateways import GatewayAsk
from labctl.gateways.combinations import MOST, TooManyError, room_beside
from labctl.gateways.llama_swap.config import accelerators, child_of, combinations, pinned, together
from labctl.gateways.llama_swap.names import servers_of
from labctl.gateways.llama_swap.options import LlamaSwapBlock
from labctl.model.unknown import unknown_name
from labctl.quantity import format_size
from labctl.workload import ApiFlavour, Container, Endpoint, SecretText, Workload

_TROUBLE: Final = re.compile(r"\$\{|[\n\r\0]")


def problems(options: LlamaSwapBlock, endpoints: Sequence[Endpoint]) -> Iterator[Diagnostic]:
    """Yield every problem of the block, with document paths."""
    deployments = {str(e.origin[-1]) for e in endpoints}
    for key, names in (("pin", options.pin), ("preload", options.preload)):
        for i, name in enumerate(names):
            if name not in deployments:
                yield unknown_name("LAB053", "deployment", name, deployments, ("gateway", key, i))


def objections(ask: GatewayAsk) -> Iterator[Diagnostic]:
    """Yield what llama-swap cannot do with the lab's servers."""
    found = [*_children(ask), *_programs(ask), *_names(ask)]
    yield from found
    if not found:
        yield from _room(ask)


def _children(ask: GatewayAsk) -> Iterator[Diagnostic]:
    limits = {x.endpoint.workload: x.endpoint for x in ask.endpoints}
    for name, server in ask.children.servers.items():
        if server.child is None:
            yield _refused(name, server.origin, "it runs llama.cpp servers that need no image of their own")
            continue
        for key, what in _beyond(server, limits[name]):
            yield _refused(name, (*server.origin, *key), what, key=True)
        group, _ = ask.children.apart.get(name, ("", ""))
        if group in ask.children.beside:
            yield _refused(name, ("groups", group), "a member of its group is not started by llama-swap")


def _beyond(server: Workload, endpoint: Endpoint) -> Iterator[tuple[DocPath, str]]:
    """Yield the settings of a server that nothing of llama-swap's stands for: key, reason."""
    limits = {"memory_limit": server.memory_limit, "swap_limit": server.swap_limit, "cpus": server.cpus}
    rates = {"rpm": endpoint.rpm, "tpm": endpoint.tpm}
    yield from (((key,), f"`{key}` cannot hold for one of its children") for key, x in limits.items() if x is not None)
    yield from ((("limits", key), f"it counts no `{key}`") for key, rate in rates.items() if rate is not None)
    if server.extra:
        yield ("extra",), "there is no unit or container of its own to lay `extra` over"
    yield from _unspeakable(server)


def _unspeakable(server: Workload) -> Iterator[tuple[DocPath, str]]:
    """Yield the texts that its configuration cannot hold. Public names have nothing of the kind."""
    why = "its configuration takes `${` for a macro and holds no line breaks"
    for name, value in server.env.items():
        if isinstance(value, SecretText) and value.names:
            yield ("env", name), "its configuration would hold the secret"
        elif _TROUBLE.search(str(value)):
            yield ("env", name), why
    if any(_TROUBLE.search(word) for word in child_of(server).args):
        yield ("args",), why


def _programs(ask: GatewayAsk) -> Iterator[Diagnostic]:
    """All children run in one container, or as one user's processes, and see the same cards."""
    servers = [server for server in ask.children.servers.values() if server.child]
    images = {form.image: w for w in servers for form in w.forms if isinstance(form, Container)}
    contained = any(
        r.control is None or r.control.kind == "docker" for n, r in ask.residents.items() if n in ask.children.servers
    )
    if contained and len(images) > 1 and ask.options.image is None:
        *_, (image, server) = images.items()
        listed = ", ".join(f"`{name}`" for name in images if name != image)
        yield _refused(server.name, server.origin, f"it needs `{image}`, and others {listed}: there is one container")
    if len(accelerators(servers)) > 1:
        server = next(w for w in reversed(servers) if w.gpu)
        yield _refused(server.name, server.origin, "its children drive their cards in different ways")


def _names(ask: GatewayAsk) -> Iterator[Diagnostic]:
    children = ask.children.servers
    for linked in ask.endpoints:
        endpoint = linked.endpoint
        strict = endpoint.flavour is ApiFlavour.OLLAMA and endpoint.workload not in children
        other = next((name for name in endpoint.serves if name != endpoint.backend_model), None)
        if strict and other is not None:
            why = f"its server calls it `{endpoint.backend_model}`, and llama-swap passes names on"
            yield _nameless(other, endpoint, why, f"serve it as `{endpoint.backend_model}`")


def _mixed(ask: GatewayAsk) -> Iterator[Diagnostic]:
    """Yield the names that some servers serve always and others at times: no strategy of llama-swap takes both."""
    for public, servers in servers_of(ask).items():
        inside = [name for name in servers if name in ask.children.servers]
        if inside and len(inside) < len(servers) and not together(ask, servers):
            first = next(x.endpoint for x in ask.endpoints if x.endpoint.workload == inside[0])
            why = "some of its servers run always, and of the others not all at a time"
            yield _nameless(public, first, why, "give the two kinds two names in `serves`")


def _nameless(public: str, endpoint: Endpoint, why: str, remedy: str) -> Diagnostic:
    return Diagnostic(
        code="LAB225",
        summary=f"llama-swap cannot serve `{public}`: {why}",
        path=endpoint.origin,
        hint=f"{remedy}, or use `gateway: {{engine: builtin}}`",
    )


def _room(ask: GatewayAsk) -> Iterator[Diagnostic]:
    stay = pinned(ask)
    room = room_beside(ask.children, stay)
    short = [place for place, size in room.items() if size < 0]
    if short:
        yield _crowded(
            "the pinned deployments do not fit together", f"{short[0]} would need {format_size(-room[short[0]])} more"
        )
        return
    for name in sorted(set(ask.children.servers) - stay):
        takes = ask.children.takes[name]
        full = next((p for p, size in takes.items() if size > room[p]), None)
        rival = next((n for n in sorted(stay) if _apart(ask, n, name)), None)
        if full is not None:
            detail = f"it takes {format_size(takes[full])} of {full}, and {format_size(room[full])} are left"
            yield _crowded(f"`{name}` never fits beside what is pinned", detail)
        elif rival is not None:
            yield _crowded(f"`{name}` never runs beside `{rival}`, which is pinned", "they are in one exclusive group")
    yield from _too_many(ask)


def _apart(ask: GatewayAsk, one: str, other: str) -> bool:
    a, b = (ask.children.apart.get(name) for name in (one, other))
    return a is not None and b is not None and a[0] == b[0] and a[1] != b[1]


def _too_many(ask: GatewayAsk) -> Iterable[Diagnostic]:
    try:
        combinations(ask)
        yield from _mixed(ask)
    except TooManyError:
        yield Diagnostic(
            code="LAB224",
            summary=f"the budgets allow more than {MOST} largest combinations of models",
            path=("gateway", "engine"),
            hint="round their footprints to a few sizes with `vram: {declared: …}`, or use `engine: builtin`, which "
            "needs no list",
        )


def _crowded(summary: str, detail: str) -> Diagnostic:
    return Diagnostic(
        code="LAB223",
        summary=summary,
        detail=detail,
        path=("gateway", "pin"),
        at=At.KEY,
        hint="pin fewer deployments, or give them less memory",
    )


def _refused(name: str, path: DocPath, why: str, *, key: bool = False) -> Diagnostic:
    ways = f"leave `{path[-1]}` out, " if key else ""
    return Diagnostic(
        code="LAB222",
        summary=f"llama-swap cannot run `{name}`: {why}",
        path=path,
        at=At.KEY if key else At.VALUE,
        hint=f"{ways}let `{name}` run always (`start: always`), or use `gateway: {{engine: builtin}}`",
    )
