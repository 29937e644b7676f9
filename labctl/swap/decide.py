"""What to do next: pure functions of a ``View``. The loop does what they say and asks again.

The rules, in their order:

1. A request goes to a ready server with a free slot, the oldest of the most urgent first. It may overtake an older one
   that waits for a server that is not resident, but nobody is overtaken for longer than ``patience``.
2. The first request without a resident server has its server started: at once if it fits beside what is resident, else
   after evicting the set of idle servers that is cheapest to bring back. Who is busy is never stopped; once patience
   has run out he gets no new requests (drains) and is stopped when he has answered.
3. A server that nobody asked for during its ``ttl`` is stopped. A server that fails to start is left alone until
   ``retry_at``. Nobody waits longer than ``longest``, whatever has gone wrong: he is told.

At no moment do the resident servers take more than a card's budget, nor are two members of an exclusive group resident.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from labctl.swap.view import Phase, Queue, Server, View

MOST_TRIED: Final = 12
"""Candidates among which every combination of evictions is tried; beyond, the cheapest are taken one after another."""


@dataclass(frozen=True, slots=True)
class Send:
    """Give the first request of a queue to a server."""

    route: str
    server: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a server: there is room for it."""

    server: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Give a server no more requests; stop it when it is idle."""

    server: str


@dataclass(frozen=True, slots=True)
class Resume:
    """A draining server is needed no less than before: give it requests again."""

    server: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop a server that works on nothing."""

    server: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer the first request of a queue that no server can be had for it."""

    route: str
    why: str


Step = Send | Start | Drain | Resume | Stop | Refuse


def next_step(view: View) -> Step | None:
    """Return the one thing to do now, None when there is nothing before the next event."""
    for rule in (_refusal, _send, _finish_drain, _load, _expired):
        step = rule(view)
        if step is not None:
            return step
    return None


def at_once(servers: Iterable[Server]) -> Server | None:
    """Return who answers a request for ``servers`` when nobody else waits: what ``next_step`` says then."""
    free = [server for server in servers if server.phase is Phase.READY and server.busy < server.slots]
    return min(free, key=lambda s: s.busy / s.slots, default=None)


def wake_at(view: View) -> float | None:
    """Return when to look again although nothing happens: patience or a ttl runs out, a failed start may be retried."""
    return min((moment for moment in _moments(view) if moment > view.now), default=None)


def _moments(view: View) -> Iterator[float]:
    for queue in view.order():
        yield queue.arrived + view.rules.patience
        yield queue.arrived + view.rules.longest
    for server in view.servers.values():
        if server.phase is Phase.READY:
            yield server.since + view.rules.min_residency
            if server.ttl is not None and not server.pinned:
                yield server.used + server.ttl
        if server.phase is Phase.FAILED:
            yield server.retry_at


# --- 1: send ----------------------------------------------------------------------------------------------------------


def _send(view: View) -> Send | None:
    given_up: set[str] = set()
    for queue in view.order():
        ready = [view.servers[name] for name in queue.servers if view.servers[name].phase is Phase.READY]
        free = at_once(server for server in ready if server.name not in given_up)
        if free is not None:
            return Send(queue.route, free.name)
        if _impatient(view, queue) and not ready:
            given_up |= {s.name for name in queue.servers for s in cheapest_eviction(view, queue, view.servers[name])}
    return None


# --- 2: load ----------------------------------------------------------------------------------------------------------


def _load(view: View) -> Step | None:
    """Make way for the first request whose servers are all away. One after the other: a start is never overtaken."""
    for queue in view.order():
        candidates = [view.servers[name] for name in queue.servers]
        if any(server.phase in {Phase.READY, Phase.STARTING} for server in candidates):
            continue
        step = _bring(view, queue, candidates)
        if step is not None:
            return step
        if _impatient(view, queue):
            return None
    return None


def _bring(view: View, queue: Queue, candidates: Sequence[Server]) -> Step | None:
    """Return the next step towards a server for a queue; None when it has to wait for something under way."""
    draining = [s for s in candidates if s.phase is Phase.DRAINING and not s.dismissed]
    returning = [s for s in draining if not _wanted_gone(view, s, queue)]
    if returning:
        return Resume(returning[0].name)
    for server in candidates:
        if server.phase is not Phase.STOPPED and not (server.phase is Phase.FAILED and view.now >= server.retry_at):
            continue
        blockers = _blockers(view, server)
        if not blockers:
            return Start(server.name)
        step = _make_room(view, queue, server)
        if step is not None:
            return step
    return None


def _blockers(view: View, server: Server) -> bool:
    """Whether something resident keeps a server from being started now."""
    free = view.free()
    if any(free.get(card, 0) < size for card, size in server.memory.items()):
        return True
    return any(other.phase.resident and other.exclusive & server.exclusive for other in view.servers.values())


def _make_room(view: View, queue: Queue, server: Server) -> Step | None:
    """Stop an idle server of the cheapest set that makes room; let busy ones drain once patience has run out."""
    chosen = cheapest_eviction(view, queue, server)
    for victim in chosen:
        if victim.phase is Phase.READY and victim.busy == 0:
            return Stop(victim.name)
    for victim in chosen:
        if victim.phase is Phase.READY:
            return Drain(victim.name)
    return None


def cheapest_eviction(view: View, queue: Queue, server: Server) -> tuple[Server, ...]:
    """Return the servers to give up so that ``server`` fits beside the others: the set that is cheapest to bring back.

    Empty when there is none yet: what is in the way is pinned, busy, wanted or too young, or on its way out already.
    """
    leaving = {s.name for s in view.servers.values() if s.phase in {Phase.DRAINING, Phase.STOPPING}}
    if fits_without(view, server, leaving):
        return ()
    candidates = sorted(
        (s for s in view.servers.values() if _evictable(view, queue, s) and _in_the_way(s, server)),
        key=lambda s: (_cost(view, s), s.name),
    )
    sets = _combinations(candidates) if len(candidates) <= MOST_TRIED else _growing(candidates)
    enough = (some for some in sets if fits_without(view, server, leaving | {s.name for s in some}))
    return min(enough, key=lambda some: (sum(_cost(view, s) for s in some), len(some)), default=())


def fits_without(view: View, server: Server, gone: Iterable[str]) -> bool:
    """Whether a server fits beside what is resident once some servers are gone."""
    absent = set(gone)
    stay = [s for s in view.servers.values() if s.phase.resident and s.name not in absent]
    if any(other.exclusive & server.exclusive for other in stay):
        return False
    budget = view.rules.cards
    return all(
        sum(other.memory.get(card, 0) for other in stay) + size <= budget.get(card, 0)
        for card, size in server.memory.items()
    )


def _combinations(candidates: Sequence[Server]) -> Iterator[tuple[Server, ...]]:
    for count in range(1, len(candidates) + 1):
        yield from combinations(candidates, count)


def _growing(candidates: Sequence[Server]) -> Iterator[tuple[Server, ...]]:
    for count in range(1, len(candidates) + 1):
        yield tuple(candidates[:count])


def _in_the_way(other: Server, server: Server) -> bool:
    return bool(other.exclusive & server.exclusive) or any(card in server.memory for card in other.memory)


def _evictable(view: View, queue: Queue, server: Server) -> bool:
    if server.phase is not Phase.READY or server.pinned:
        return False
    if _impatient(view, queue):
        return True
    young = view.now - server.since < view.rules.min_residency
    return server.busy == 0 and not young and not _waited_for(view, server)


def _waited_for(view: View, server: Server) -> bool:
    return any(q.waiting and server.name in q.servers for q in view.queues)


def _impatient(view: View, queue: Queue) -> bool:
    return view.now - queue.arrived >= view.rules.patience


def _cost(view: View, server: Server) -> float:
    """Seconds to bring it back, weighed by how recently it was used: halved every five minutes."""
    idle = max(0.0, view.now - server.used)
    return server.start_cost * float(2 ** (-idle / 300)) + (server.start_cost if _waited_for(view, server) else 0.0)


def _wanted_gone(view: View, server: Server, queue: Queue) -> bool:
    """Whether a draining server has to go for a request that is ahead of ``queue`` or has lost patience."""
    return any(
        _missing_room(view, server, other)
        for other in view.order()
        if other.head < queue.head or _impatient(view, other)
    )


def _missing_room(view: View, server: Server, queue: Queue) -> bool:
    """Whether a queue waits for the room that a resident server takes."""
    wanted = [view.servers[name] for name in queue.servers]
    if server in wanted or any(other.phase in {Phase.READY, Phase.STARTING} for other in wanted):
        return False
    return any(_in_the_way(server, other) for other in wanted)


# --- 3: the rest ------------------------------------------------------------------------------------------------------


def _finish_drain(view: View) -> Stop | Resume | None:
    """A drained server is stopped; it may stay when whoever waited for its room has left."""
    for server in view.servers.values():
        if server.phase is Phase.DRAINING:
            if not server.dismissed and not any(_missing_room(view, server, queue) for queue in view.order()):
                return Resume(server.name)
            if server.busy == 0:
                return Stop(server.name)
    return None


def _expired(view: View) -> Stop | None:
    for server in view.servers.values():
        if server.phase is Phase.READY and server.busy == 0 and not server.pinned and server.ttl is not None:
            idle = view.now - max(server.used, server.since)
            if idle >= server.ttl and not _waited_for(view, server):
                return Stop(server.name)
    return None


def _refusal(view: View) -> Refuse | None:
    """A request whose servers all failed a moment ago, or fit on no card, is answered at once."""
    for queue in view.order():
        if view.now - queue.arrived >= view.rules.longest:
            return Refuse(queue.route, f"nobody could answer within {view.rules.longest:g} s")
        problems = [_hopeless(view, view.servers[name]) for name in queue.servers]
        if all(problems):
            return Refuse(queue.route, "; ".join(p for p in problems if p))
    return None


def _hopeless(view: View, server: Server) -> str:
    if server.phase in {Phase.FAILED, Phase.STOPPING} and view.now < server.retry_at:
        return f"{server.name} cannot be started; next attempt in {server.retry_at - view.now:.0f} s"
    pinned = {s.name: s for s in view.servers.values() if s.pinned and s.phase.resident and s.name != server.name}
    rest = [s.name for s in view.servers.values() if s.name not in pinned]
    if not server.phase.resident and not fits_without(view, server, rest):
        return f"{server.name} does not fit beside what is pinned" if pinned else f"{server.name} fits on no card"
    return ""


def over_budget(view: View) -> Mapping[str, int]:
    """Return card → bytes by which resident servers exceed its budget: empty at every moment."""
    return {card: -left for card, left in view.free().items() if left < 0}
