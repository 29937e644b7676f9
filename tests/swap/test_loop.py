"""The loop takes short cuts; after each of them it stands as if it had asked ``next_step`` about everything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from labctl.swap.backends import Run
from labctl.swap.config import Backend, Config, Driver
from labctl.swap.decide import Send, at_once, next_step, wake_at
from labctl.swap.loop import Loop
from labctl.swap.metrics import Metrics
from labctl.swap.tickets import Ticket, Unavailable
from labctl.swap.view import Phase, Queue, Rules, Server, View

NAMES = ("a", "b", "c")


@given(st.lists(st.tuples(st.sampled_from(Phase), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=4))
def test_who_answers_at_once(servers: list[tuple[Phase, int, int]]) -> None:
    """Nobody else waits: the short cut takes whom the rules take."""
    known = {
        f"s{i}": Server(name=f"s{i}", phase=phase, slots=slots, busy=min(busy, slots), memory={"gpu": 1})
        for i, (phase, slots, busy) in enumerate(servers)
    }
    queue = Queue(route="x", servers=tuple(known), waiting=1, head=(0, 1), arrived=5.0)
    free = at_once(known.values())
    step = next_step(View(now=5.0, servers=known, queues=(queue,), rules=Rules(cards={"gpu": 4})))
    assert (step == Send("x", free.name)) if free else not isinstance(step, Send)


class Instant:
    """Stands in for managers and servers: everything is done at once; ``broken`` ones do not start."""

    def __init__(self, broken: Iterable[str]) -> None:
        self.broken = set(broken)

    def patience_hint(self, _queued: int) -> float:
        return 1.0

    async def survey(self, _backends: Iterable[Backend]) -> Mapping[str, Run]:
        return dict.fromkeys(NAMES, Run.STOPPED)

    async def start(self, backend: Backend) -> str:
        return "broken" if backend.name in self.broken else ""

    async def wait_ready(self, _backend: Backend, **_: Any) -> str:
        return ""

    async def stop(self, _backend: Backend) -> str:
        return ""

    async def words(self, _backend: Backend) -> str:
        return ""


def loop_of(
    sizes: Mapping[str, int], ttls: Mapping[str, float | None], broken: Iterable[str], clock: list[float]
) -> Loop:
    """Return a loop over servers that are started at once."""
    backends = tuple(
        Backend(name=n, url="http://x", memory={"gpu": size}, slots=2, ttl=ttls[n], driver=Driver(kind="docker", id=n))
        for n, size in sizes.items()
    )
    config = Config(backends=backends, cards={"gpu": 9}, queue=6, patience=20.0)
    return Loop(config, Instant(broken), Metrics(), lambda: clock[0])  # type: ignore[arg-type]


OPERATIONS = st.lists(st.tuples(st.sampled_from(("ask", "ask", "end", "wait")), st.integers(0, 5)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({name: st.integers(2, 8) for name in NAMES}),
    st.fixed_dictionaries({name: st.none() | st.floats(1, 60) for name in NAMES}),
    st.sets(st.sampled_from(NAMES), max_size=1),
    OPERATIONS,
)
@example(
    dict.fromkeys(NAMES, 3),
    {"a": 10.0, "b": None, "c": None},
    set(),
    [("ask", 0), ("wait", 0), ("wait", 5), ("end", 0)],
)
def test_nothing_is_left_undone(
    sizes: dict[str, int], ttls: dict[str, float | None], broken: set[str], operations: list[tuple[str, int]]
) -> None:
    """After each request and each answer: nothing to do that was not done, and an alarm for the next moment."""

    async def play() -> None:
        clock = [100.0]
        loop = loop_of(sizes, ttls, broken, clock)
        await loop.open()
        tickets: list[Ticket] = []
        for what, number in operations:
            if what == "ask":
                try:
                    tickets.append(loop.submit(NAMES[number % 3]))
                except Unavailable:
                    assert loop.queued == loop.config.queue
            elif what == "end" and tickets:
                loop.leave(tickets.pop(number % len(tickets)))
            elif what == "wait":
                clock[0] += 8 * number
                for _ in range(8):
                    await asyncio.sleep(0)
                loop.settle()  # what the alarm would have done meanwhile
            _check(loop)
        for ticket in tickets:
            loop.leave(ticket)
        assert all(server.busy == 0 for server in loop.servers.values())
        await loop.close()

    asyncio.run(play())


def _check(loop: Loop) -> None:
    view = loop.view()
    assert next_step(view) is None
    moment = wake_at(view)
    assert loop._alarm <= (inf if moment is None else moment)
    assert sum(server.busy for server in loop.servers.values()) <= 6
