"""The only writer of the gateway's state.

Every method that changes something runs to its end without giving way to another task, so there are no locks and no
decision is made from a stale picture. What takes time (starting and stopping servers) runs beside it and reports back
when it is over.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from math import inf
from typing import Any, Final

from labctl.swap.backends import Control, Run
from labctl.swap.config import Backend, Config
from labctl.swap.decide import Drain, Refuse, Resume, Send, Start, Step, Stop, at_once, fits_without, next_step, wake_at
from labctl.swap.metrics import Metrics
from labctl.swap.tickets import Ticket, Unavailable, Waiting
from labctl.swap.view import Phase, Queue, Rules, Server, View

log = logging.getLogger("labctl.swap")

FIRST_RETRY: Final = 5.0
LONGEST_RETRY: Final = 300.0
"""Seconds before a failed start is tried again: doubled with each failure in a row."""
FIND_EVERY: Final = 1.0
"""Seconds between two questions to a manager that could not tell what runs."""


class Loop:
    """Takes requests in, gives them to servers, and has servers started and stopped."""

    def __init__(self, config: Config, control: Control, metrics: Metrics, clock: Callable[[], float]) -> None:
        self.config, self._control, self._metrics, self._clock = config, control, metrics, clock
        self.backends: Mapping[str, Backend] = {b.name: b for b in config.backends}
        self.servers = {b.name: _server(b) for b in config.backends}
        self.waiting = {route: Waiting(servers) for route, servers in config.routes().items()}
        self.problems: dict[str, str] = {}
        self.words: dict[str, str] = {}
        """What servers that did not start said last: for those who run the lab, not for those who ask."""
        self._failures: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = inf
        self._stopping = False
        metrics.queued.set_function(lambda: self.queued)
        self._rules = Rules(config.cards, config.patience, config.min_residency, config.longest_wait)

    # --- what requests ask --------------------------------------------------------------------------------------------

    def submit(self, route: str, priority: int = 0) -> Ticket:
        """Queue a request; Unavailable when the queue is full, KeyError for an unknown name."""
        queue, queued = self.waiting[route], self.queued
        if self._stopping:
            raise _stopping()
        free = None if len(queue) else at_once(self.servers[name] for name in queue.servers)
        if free is None and queued >= self.config.queue:
            self._metrics.refused.labels(route, "queue full").inc()
            message = f"{queued} requests wait already"
            raise Unavailable(message, self._control.patience_hint(queued))
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        ticket = Ticket(next(self._numbers), route, priority, self._clock(), future)
        if free is not None and not queued:
            self._send(ticket, free.name)
            return ticket
        queue.put(ticket)
        self.settle()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """The client has gone, waiting or being served."""
        if ticket.server:
            self.done(ticket)
        elif self.waiting[ticket.route].drop(ticket):
            self.settle()

    def done(self, ticket: Ticket) -> None:
        """A request was answered, or its client left while it was served."""
        if ticket.server:
            server, now = self.servers[ticket.server], self._clock()
            self._set(server.name, busy=server.busy - 1, used=now)
            ticket.server = ""
            if self.queued or server.phase is not Phase.READY:
                self.settle()
            elif server.ttl is not None and now + server.ttl < self._alarm:
                self._wake_at(now + server.ttl)

    def lost(self, ticket: Ticket) -> Ticket:
        """A server did not take the request. Return a new ticket, ahead of everybody who came later."""
        name, number = ticket.server, ticket.number
        self._suspect(name)
        self.done(ticket)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        again = Ticket(number, ticket.route, ticket.priority, ticket.arrived, future, returned=ticket.returned + 1)
        self.waiting[ticket.route].put(again)
        if self._stopping:
            self.turn_away()
        return again

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return sum(len(queue) for queue in self.waiting.values())

    def view(self) -> View:
        """Return what is known now."""
        queues = tuple(_queue(route, queue, head) for route, queue in self.waiting.items() if (head := queue.head()))
        return View(now=self._clock(), servers=self.servers, queues=queues, rules=self._rules)

    # --- what people ask ----------------------------------------------------------------------------------------------

    def pin(self, name: str, *, pinned: bool) -> str:
        """Keep a server resident, or no longer; return why that cannot be."""
        if self.backends[name].driver.kind == "none":
            return f"{name} always runs: this gateway does not start it"
        self._set(name, pinned=pinned)
        self.settle()
        return ""

    def start(self, name: str) -> str:
        """Start a server by hand; return why that cannot be, "" when it is under way."""
        server, view = self.servers[name], self.view()
        if server.phase.resident:
            return ""
        if not fits_without(view, server, ()):
            return f"{name} does not fit beside what is loaded; stop something first"
        self._begin(Start(name))
        return ""

    def stop(self, name: str) -> str:
        """Stop a server by hand once it is idle; return why that cannot be."""
        server = self.servers[name]
        if server.pinned:
            return f"{name} is pinned"
        if server.phase is Phase.STARTING:
            return f"{name} is starting; stop it when it is ready"
        if server.phase in {Phase.READY, Phase.DRAINING}:
            self._set(name, dismissed=True)
            self._begin(Stop(name) if server.busy == 0 else Drain(name))
        return ""

    # --- what is decided ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Do everything that there is to do now, and set the alarm for the next moment that matters."""
        view = self.view()
        while not self._stopping and (step := next_step(view)) is not None:
            self._begin(step)
            view = self.view()
        self._wake_at(wake_at(view))

    def _wake_at(self, moment: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._alarm = inf if moment is None else moment
        if moment is not None:
            delay = max(0.0, moment - self._clock()) + 0.001
            self._timer = asyncio.get_running_loop().call_later(delay, self.settle)

    def _begin(self, step: Step) -> None:
        match step:
            case Send(route, name):
                self._send(self.waiting[route].pop(), name)
            case Refuse(route, why):
                ticket = self.waiting[route].pop()
                self._metrics.refused.labels(route, "unavailable").inc()
                ticket.ready.set_exception(Unavailable(self._explained(route, why), self._retry_after(route)))
            case Start(name):
                log.info("starting %s", name)
                self._set(name, phase=Phase.STARTING, since=self._clock())
                self._spawn(name, self._start(name))
            case Stop(name):
                log.info("stopping %s", name)
                self._set(name, phase=Phase.STOPPING, since=self._clock())
                self._spawn(name, self._stop(name))
            case Drain(name):
                log.info("draining %s: others have waited long enough", name)
                self._set(name, phase=Phase.DRAINING, since=self._clock())
            case Resume(name):
                self._set(name, phase=Phase.READY, since=self._clock())

    def _send(self, ticket: Ticket, name: str) -> None:
        server, now = self.servers[name], self._clock()
        self._set(name, busy=server.busy + 1, used=now)
        self._metrics.child(self._metrics.waited, ticket.route).observe(now - ticket.arrived)
        ticket.server = name
        ticket.ready.set_result(name)

    def _explained(self, route: str, why: str) -> str:
        reasons = dict.fromkeys(self.problems[n] for n in self.waiting[route].servers if n in self.problems)
        return f"{why}: {'; '.join(reasons)}" if reasons else why

    def _retry_after(self, route: str) -> float:
        moments = [self.servers[name].retry_at - self._clock() for name in self.waiting[route].servers]
        return max(1.0, min(moments, default=5.0))

    # --- what takes time ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Find what runs already and go on from there; load what is to be there from the start."""
        found = await self._control.survey(self.config.backends)
        for backend in self.config.backends:
            run = found.get(backend.name)
            if backend.driver.kind == "none":
                self._set(backend.name, phase=Phase.STARTING, since=self._clock(), pinned=True)
                self._spawn(backend.name, self._wait_ready(backend.name, loaded=False))
            elif run is None:
                self._set(backend.name, phase=Phase.STOPPING, since=self._clock())
                self._spawn(backend.name, self._find(backend.name))
            elif run is not Run.STOPPED:
                self._adopt(backend.name)
        for backend in self.config.backends:
            if backend.preload or backend.pinned:
                problem = self.start(backend.name)
                if problem:
                    log.warning("not loaded at start: %s", problem)
        self.settle()

    def turn_away(self) -> None:
        """The gateway is about to end: answer everybody who waits, and let nobody in any more."""
        self._stopping = True
        for queue in self.waiting.values():
            while (ticket := queue.head()) is not None:
                ticket.ready.set_exception(_stopping())

    async def close(self) -> None:
        """Stop waiting for anything. Servers go on running: the next gateway finds them."""
        self.turn_away()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def watch(self, every: float = 5.0) -> None:
        """Look again and again whether what is thought to run does."""
        while True:
            await asyncio.sleep(every)
            found = await self._control.survey([b for b in self.config.backends if b.driver.kind != "none"])
            for name, run in found.items():
                if self.servers[name].phase is Phase.READY and run is not Run.RUNNING:
                    self._suspect(name)
                elif self.servers[name].phase in {Phase.STOPPED, Phase.FAILED} and run is Run.RUNNING:
                    self._adopt(name)

    async def _find(self, name: str) -> None:
        """Find out whether it runs. Until then it may: its memory counts as taken."""
        run = await self._told(name)
        self._set(name, phase=Phase.STOPPED, since=self._clock())
        if run is not Run.STOPPED:
            self._adopt(name)
        elif self.backends[name].preload or self.servers[name].pinned:
            self.start(name)
        self.settle()

    async def _told(self, name: str) -> Run:
        """Ask its manager until that can tell what a server does."""
        while (run := (await self._control.survey([self.backends[name]])).get(name)) is None:
            await asyncio.sleep(FIND_EVERY)
        return run

    def _adopt(self, name: str) -> None:
        """Somebody else started it, or the gateway before this one. It stays if there is room."""
        room = fits_without(self.view(), self.servers[name], ())
        log.info("%s runs already: %s", name, "kept" if room else "stopped, there is no room")
        self._set(name, phase=Phase.STARTING if room else Phase.STOPPING, since=self._clock())
        self._spawn(name, self._wait_ready(name, loaded=False) if room else self._stop(name))

    async def _start(self, name: str) -> None:
        problem = await self._control.start(self.backends[name])
        if problem:
            await self._failed(name, problem)
        else:
            await self._wait_ready(name)

    async def _wait_ready(self, name: str, *, loaded: bool = True) -> None:
        begun = self._clock()
        problem = await self._control.wait_ready(self.backends[name], starting=loaded)
        if problem:
            await self._failed(name, problem)
            return
        self._failures.pop(name, None)
        self.problems.pop(name, None)
        self.words.pop(name, None)
        if loaded:
            self._loaded(name, self._clock() - begun)
        self._set(name, phase=Phase.READY, since=self._clock(), used=self._clock(), retry_at=0.0)
        self.settle()

    def _loaded(self, name: str, took: float) -> None:
        self._metrics.loads.labels(name).inc()
        self._metrics.load_seconds.labels(name).observe(took)
        self._set(name, start_cost=max(0.1, took))
        log.info("%s is ready after %.1f s", name, took)

    async def _failed(self, name: str, problem: str) -> None:
        """A start failed: tell whoever waits, stop what may be left of it, and leave it alone for a while."""
        log.warning("%s did not start: %s", name, problem)
        self.problems[name] = problem
        count = self._failures[name] = self._failures.get(name, 0) + 1
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** (count - 1))
        self._metrics.failures.labels(name).inc()
        self._set(name, phase=Phase.STOPPING, since=self._clock(), retry_at=self._clock() + delay)
        self.settle()
        self.words[name] = await self._control.words(self.backends[name])
        if self.words[name]:
            log.warning("%s said last:\n%s", name, self.words[name])
        await self._end(name)
        self._set(name, phase=Phase.FAILED, since=self._clock(), retry_at=self._clock() + delay)
        self.settle()

    async def _stop(self, name: str) -> None:
        """Stop and verify."""
        await self._end(name)
        self._metrics.evictions.labels(name).inc()
        self._set(name, phase=Phase.STOPPED, since=self._clock(), dismissed=False)
        self.settle()

    async def _end(self, name: str) -> None:
        """Return when a server has ended. Until then it keeps its memory in the books, and it is tried again."""
        while problem := await self._control.stop(self.backends[name]):
            log.error("%s cannot be stopped: %s", name, problem)
            self.problems[name] = problem
            self._set(name, retry_at=self._clock() + 2 * FIRST_RETRY)
            self.settle()
            await asyncio.sleep(FIRST_RETRY)

    def _suspect(self, name: str) -> None:
        """A server may be gone. It gets no more requests until it was looked at."""
        if self.servers[name].phase in {Phase.READY, Phase.DRAINING}:
            self._set(name, phase=Phase.STARTING, since=self._clock())
            self._spawn(name, self._look_at(name))

    async def _look_at(self, name: str) -> None:
        """If it runs it goes on once it is healthy; else the books say so, and it is started anew for whoever waits."""
        run = Run.RUNNING if self.backends[name].driver.kind == "none" else await self._told(name)
        if run is Run.RETRYING:
            await self._control.start(self.backends[name])  # now, and not when its manager thinks fit
        if run is not Run.STOPPED:
            await self._wait_ready(name, loaded=False)
            return
        log.warning("%s is gone", name)
        self.problems[name] = "it ended by itself"
        self._set(name, phase=Phase.STOPPING, since=self._clock())
        await self._stop(name)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A fault of the gateway's own: nobody waits for ever for what it was about, and its memory stays taken."""
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        name = task.get_name()
        log.error("a bug in the gateway", exc_info=error)
        self.problems[name] = f"a bug in the gateway: {error!r}"
        self._set(name, phase=Phase.STOPPING, since=self._clock(), retry_at=self._clock() + FIRST_RETRY)
        asyncio.get_running_loop().call_later(FIRST_RETRY, lambda: self._spawn(name, self._stop(name)))
        self.settle()

    def _set(self, name: str, **values: Any) -> None:
        self.servers[name] = replace(self.servers[name], **values)
        if "phase" in values:
            self._metrics.resident.labels(name).set(int(values["phase"].resident))


def _stopping() -> Unavailable:
    return Unavailable("the gateway is stopping", 2.0)


def _server(backend: Backend) -> Server:
    return Server(
        name=backend.name,
        memory=dict(backend.memory),
        slots=backend.slots,
        start_cost=max(1.0, backend.startup / 4),
        pinned=backend.pinned,
        ttl=backend.ttl,
        exclusive=frozenset(backend.exclusive),
    )


def _queue(route: str, waiting: Waiting, head: Ticket) -> Queue:
    return Queue(
        route=route,
        servers=waiting.servers,
        waiting=len(waiting),
        head=(head.priority, head.number),
        arrived=head.arrived,
    )
