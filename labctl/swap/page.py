"""The dashboard: one file that asks the same API as everybody else, and what it is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from labctl.swap.asgi import Send, answer

if TYPE_CHECKING:
    from labctl.swap.loop import Loop
    from labctl.swap.records import Record

FILES: Final = MappingProxyType({"/": "index.html"})
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing of anybody else's is ever loaded, and the page cannot be framed."""


async def show(send: Send, path: str) -> None:
    """Send a page. It holds no data: those come with a key."""
    content = resources.files("labctl.swap").joinpath(FILES[path]).read_bytes()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
    ]
    await answer(send, 200, content, headers)


def state(loop: Loop, machine: Mapping[str, Any], *, admin: bool) -> dict[str, Any]:
    """Return everything that the dashboard shows of servers and machine. Seconds, bytes; logs only to an ``admin``."""
    view = loop.view()
    free = view.free()
    cards = [
        {"id": card, "label": loop.config.labels.get(card, card), "budget": budget, "taken": budget - free[card]}
        for card, budget in loop.config.cards.items()
    ]
    return {
        "cards": cards,
        "servers": [
            {**_server(loop, name, view.now), "last_words": loop.words.get(name, "") if admin else ""}
            for name in loop.servers
        ],
        "queue": {"length": loop.queued, "capacity": loop.config.queue},
        "waiting": {q.route: q.waiting for q in view.queues},
        "live": live(cards, on_this_host(loop), machine["gpus"]),
        "machine": machine,
        "admin": admin,
    }


def on_this_host(loop: Loop) -> set[str]:
    """Return the cards of the gateway's own host: those of servers that it starts, and it starts no others' servers."""
    return {card for b in loop.backends.values() if b.driver.kind != "none" for card in b.memory}


def live(cards: Iterable[Mapping[str, Any]], own: Collection[str], gpus: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return card → its place in ``gpus``, which is what the machine says. Cards are called ``host:index``."""
    found: dict[str, int] = {}
    for card in cards:
        index = str(card["id"]).rpartition(":")[2]
        places = [i for i, gpu in enumerate(gpus) if str(gpu.get("index")) == index]
        if card["id"] in own and len(places) == 1:
            found[card["id"]] = places[0]
    return found


def _server(loop: Loop, name: str, now: float) -> dict[str, Any]:
    server, backend = loop.servers[name], loop.backends[name]
    return {
        "name": name,
        "serves": list(backend.serves or (name,)),
        "phase": server.phase,
        "busy": server.busy,
        "slots": server.slots,
        "pinned": server.pinned,
        "fixed": backend.driver.kind == "none",
        "memory": dict(server.memory),
        "for": round(now - server.since, 1),
        "task": backend.task,
        "vision": backend.vision,
        "problem": loop.problems.get(name, ""),
    }


def record(item: Record) -> dict[str, Any]:
    """Return one line of the list of requests."""
    return asdict(item)
