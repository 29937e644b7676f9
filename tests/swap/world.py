"""A made-up world for decisions: servers take time to start, requests take time to answer, people leave."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labctl.swap.decide import Drain, Refuse, Resume, Send, Start, Step, Stop, next_step, over_budget, wake_at
from labctl.swap.view import Phase, Queue, Rules, Server, View


@dataclass
class Asked:
    """A request and what became of it."""

    number: int
    route: str
    arrived: float
    work: float
    sent: float | None = None
    server: str = ""
    answered: float | None = None
    refused: bool = False
    left: bool = False


@dataclass
class World:
    """Carries out what is decided. Checks at every step what has to hold at every moment."""

    servers: dict[str, Server]
    routes: Mapping[str, tuple[str, ...]]
    rules: Rules
    fails: frozenset[str] = frozenset()
    now: float = 0.0
    queues: dict[str, deque[Asked]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    events: list[tuple[float, int, str, object]] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    steps: int = 0
    arrivals: int = 0
    _count: int = 0

    def at(self, when: float, what: str, about: object) -> None:
        """Let something happen later."""
        self._count += 1
        heapq.heappush(self.events, (when, self._count, what, about))

    def ask(self, when: float, route: str, work: float) -> Asked:
        """Let somebody ask."""
        request = Asked(len(self.asked), route, when, work)
        self.asked.append(request)
        self.at(when, "arrive", request)
        return request

    def view(self) -> View:
        """What a decision is made from."""
        queues = tuple(
            Queue(
                route=route,
                servers=servers,
                waiting=len(waiting := self.queues.get(route, deque())),
                head=(0, waiting[0].number) if waiting else (0, 0),
                arrived=waiting[0].arrived if waiting else 0.0,
            )
            for route, servers in self.routes.items()
        )
        return View(now=self.now, servers=self.servers, queues=queues, rules=self.rules)

    def run(self, until: float = 1e9) -> None:
        """Go on until nothing is left to happen."""
        while True:
            self.settle()
            wake = wake_at(self.view())
            upcoming = self.events[0][0] if self.events else None
            times = [t for t in (wake, upcoming) if t is not None]
            if not times or min(times) > until or (upcoming is None and not any(self.queues.values())):
                return
            self.now = max(self.now, min(times))
            while self.events and self.events[0][0] <= self.now:
                _, _, what, about = heapq.heappop(self.events)
                self.happen(what, about)

    def settle(self) -> None:
        """Do what is decided until there is nothing to do."""
        for _ in range(10_000):
            step = next_step(self.view())
            if step is None:
                return
            self.do(step)
            assert not over_budget(self.view()), f"{step} exceeds a card"
            groups = [g for s in self.servers.values() if s.phase.resident for g in s.exclusive]
            assert len(groups) == len(set(groups)), f"{step}: two of a group"
        message = "decisions never end"
        raise AssertionError(message)

    def change(self, name: str, **values: object) -> None:
        """Replace a server's state."""
        self.servers[name] = replace(self.servers[name], **values)  # type: ignore[arg-type]

    def do(self, step: Step) -> None:
        """Carry out one step."""
        self.steps += 1
        match step:
            case Send(route, name):
                self._send(route, name)
            case Start(name):
                assert not self.servers[name].phase.resident
                self.change(name, phase=Phase.STARTING, since=self.now)
                self.starts.append(name)
                self.at(self.now + self.servers[name].start_cost, "started", name)
            case Drain(name):
                assert self.servers[name].phase is Phase.READY
                self.change(name, phase=Phase.DRAINING, since=self.now)
            case Resume(name):
                assert self.servers[name].phase is Phase.DRAINING
                self.change(name, phase=Phase.READY, since=self.now)
            case Stop(name):
                assert self.servers[name].busy == 0, "a busy server is never stopped"
                assert not self.servers[name].pinned
                self.change(name, phase=Phase.STOPPING, since=self.now)
                self.at(self.now + 0.5, "stopped", name)
            case Refuse(route):
                request = self.queues[route].popleft()
                request.refused, request.answered = True, self.now

    def _send(self, route: str, name: str) -> None:
        server = self.servers[name]
        assert server.phase is Phase.READY
        assert server.busy < server.slots
        request = self.queues[route].popleft()
        self._nobody_lost_patience(request, server)
        request.sent, request.server = self.now, name
        self.change(name, busy=server.busy + 1, used=self.now)
        self.at(self.now + request.work, "answered", request)

    def _nobody_lost_patience(self, request: Asked, server: Server) -> None:
        """Whoever has waited longer than his patience is not overtaken by a request that keeps his place taken."""
        for waiting in self.queues.values():
            for other in list(waiting)[:1]:
                blocks = other.number < request.number and self.now - other.arrived > self.rules.patience
                if blocks and len(self.routes[other.route]) == 1:
                    wanted = self.servers[self.routes[other.route][0]]
                    alone = [n for n, s in self.servers.items() if s.phase.resident and n != server.name]
                    only = all(
                        sum(self.servers[n].memory.get(c, 0) for n in alone) + size <= self.rules.cards[c]
                        for c, size in wanted.memory.items()
                    )
                    needed = any(c in server.memory for c in wanted.memory) and len(self.servers) == 2
                    assert not (only and needed and not wanted.phase.resident), f"{request} overtakes {other}"

    def happen(self, what: str, about: object) -> None:
        """Something came to its end."""
        match what, about:
            case "arrive", Asked() as request:
                self.arrivals += 1
                request.number = self.arrivals
                self.queues.setdefault(request.route, deque()).append(request)
            case "leave", Asked() as request:
                if request in self.queues.get(request.route, ()):
                    self.queues[request.route].remove(request)
                    request.left = True
            case "answered", Asked() as request:
                request.answered = self.now
                server = self.servers[request.server]
                self.change(request.server, busy=server.busy - 1, used=self.now)
            case "started", str() as name:
                if name in self.fails:
                    self.change(name, phase=Phase.FAILED, since=self.now, retry_at=self.now + 5)
                else:
                    self.change(name, phase=Phase.READY, since=self.now)
            case "stopped", str() as name:
                self.change(name, phase=Phase.STOPPED, since=self.now)
