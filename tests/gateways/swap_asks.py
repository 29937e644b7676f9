"""Asks for gateways that run their servers themselves, made of sizes alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from labctl.gateways import Children, GatewayAsk, Linked, Resident
from labctl.gateways.llama_swap.options import LlamaSwapBlock
from labctl.model.lab import frozen
from labctl.workload import Child, Native, Probe, Workload
from tests.gateways.labs import HOST, endpoint

Sizes = Mapping[str, Mapping[str, int]]


def ask(
    takes: Sizes, room: Mapping[str, int], apart: Mapping[str, tuple[str, str]] | None = None, pin: Iterable[str] = ()
) -> GatewayAsk:
    """Return an ask with one child per entry of ``takes``, each a deployment with one public name."""
    servers = {
        name: Workload(
            name=name,
            host="prod",
            forms=(Native(program="llama-server"),),
            child=Child(program="llama-server", args=("--port", str(9000 + i)), port=9000 + i),
            origin=("deployments", name),
        )
        for i, name in enumerate(takes)
    }
    block = {"engine": "llama-swap", "pin": list(pin)}
    return GatewayAsk(
        lab="demo",
        host=HOST,
        options=LlamaSwapBlock.model_validate(frozen(block)),
        endpoints=tuple(Linked(endpoint(name, name, host="prod"), "http://127.0.0.1:1") for name in takes),
        port=8888,
        bind="127.0.0.1",
        image="llama-swap",
        probe=Probe.CURL,
        residents={n: Resident(deployment=n, memory={}, startup=30, health="/health", always=False) for n in takes},
        children=Children(servers=servers, takes=takes, room=room, apart=apart or {}),
    )


def fits(names: Iterable[str], children: Children) -> bool:
    """Whether a set is within every budget and no two of it are rivals: the definition, spelt out."""
    some = list(names)
    for place, room in children.room.items():
        if sum(children.takes[name].get(place, 0) for name in some) > room:
            return False
    groups = [children.apart[name] for name in some if name in children.apart]
    return all(a[0] != b[0] or a[1] == b[1] for a, b in combinations(groups, 2))


def subsets(names: Iterable[str]) -> Iterator[frozenset[str]]:
    """Yield every set of some names."""
    some = sorted(names)
    for size in range(len(some) + 1):
        yield from map(frozenset, combinations(some, size))
