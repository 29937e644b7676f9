"""What llama-swap cannot do, said before anything is rendered: with its block, and with the servers it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from labctl.diagnostics import At, Diagnostic
from labctl.gateways import GatewayAsk
from labctl.gateways.combinations import MOST, TooManyError, room_beside
from labctl.gateways.llama_swap.config import combinations, pinned, together
from labctl.gateways.llama_swap.options import LlamaSwapBlock
from labctl.gateways.parent import nameless, refusals, servers_of
from labctl.model.unknown import unknown_name
from labctl.quantity import format_size
from labctl.workload import ApiFlavour, Endpoint

WHO: Final = "llama-swap"


def problems(options: LlamaSwapBlock, endpoints: Sequence[Endpoint]) -> Iterator[Diagnostic]:
    """Yield every problem of the block, with document paths."""
    deployments = {str(e.origin[-1]) for e in endpoints}
    for key, names in (("pin", options.pin), ("preload", options.preload)):
        for i, name in enumerate(names):
            if name not in deployments:
                yield unknown_name("LAB053", "deployment", name, deployments, ("gateway", key, i))


def objections(ask: GatewayAsk) -> Iterator[Diagnostic]:
    """Yield what llama-swap cannot do with the lab's servers."""
    why = "its configuration takes `${` for a macro and holds no line breaks"
    found = [*refusals(ask, WHO, r"\$\{|[\n\r\0]", why), *_names(ask)]
    yield from found
    if not found:
        yield from _room(ask)


def _names(ask: GatewayAsk) -> Iterator[Diagnostic]:
    children = ask.children.servers
    for linked in ask.endpoints:
        endpoint = linked.endpoint
        strict = endpoint.flavour is ApiFlavour.OLLAMA and endpoint.workload not in children
        other = next((name for name in endpoint.serves if name != endpoint.backend_model), None)
        if strict and other is not None:
            why = f"its server calls it `{endpoint.backend_model}`, and llama-swap passes names on"
            yield nameless(WHO, other, endpoint, why, f"serve it as `{endpoint.backend_model}`")


def _mixed(ask: GatewayAsk) -> Iterator[Diagnostic]:
    """Yield the names that some servers serve always and others at times: no strategy of llama-swap takes both."""
    for public, servers in servers_of(ask).items():
        inside = [name for name in servers if name in ask.children.servers]
        if inside and len(inside) < len(servers) and not together(ask, servers):
            first = next(x.endpoint for x in ask.endpoints if x.endpoint.workload == inside[0])
            why = "some of its servers run always, and of the others not all at a time"
            yield nameless(WHO, public, first, why, "give the two kinds two names in `serves`")


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
