"""Waiting until a unit is ready, and telling a slow start from a failure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from labctl.artefact import SYSTEM, Manager, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Emit, HostError, Ref, Site, UnitManager
from labctl.hosts.events import Waiting
from labctl.plan.observed import SeenUnit, UnitState
from labctl.workload import Start

POLL: Final = 0.25
"""Seconds between two looks at a starting unit."""
REPORT: Final = 1.0
"""Seconds between two ``Waiting`` events."""
STEADY: Final = 1.0
"""Seconds that a unit without a health check has to run before it counts as started."""
GIVE_UP: Final = 4.0
"""Seconds that a unit may be down while its manager is still trying to start it."""
ENDS: Final = 2
"""Times that a unit may end by itself while it is waited for: what is brought back again and again does not load."""
DEFAULT_LIMIT: Final = 60.0
"""Seconds to wait for a unit without a health check."""
PORT_PATIENCE: Final = 2.0
"""Seconds to wait for an answer from a port that should be free; a free one refuses at once."""
PROBES: Final = 16
"""Health URLs asked at the same time."""


def limit_of(unit: Unit) -> float:
    """Return how many seconds a unit may take: a task for its run, else the start period and then all retries."""
    health = unit.health
    if unit.start is Start.ONCE:
        return float(unit.time_limit)
    if health is None:
        return DEFAULT_LIMIT
    return float(health.start_period + health.retries * (health.interval + health.timeout))


def await_healthy(
    site: Site, manager: UnitManager, ref: Ref, unit: Unit, emit: Emit, check: Callable[[], None]
) -> None:
    """Return when the unit is healthy, or a task has ended well. HostError (LAB110) when it fails or takes too long."""
    started, goal = time.monotonic(), "done" if unit.start is Start.ONCE else "healthy"
    limit, reported = limit_of(unit), 0.0
    up_since: float | None = None
    down_since: float | None = None
    restarts: int | None = None
    while True:
        check()
        seen = manager.observe([ref]).get(ref.name, SeenUnit(state=UnitState.ABSENT))
        now = time.monotonic()
        up_since = (up_since or now) if _askable(unit, seen) else None
        down_since = None if seen.state.up else (down_since or now)
        if seen.state is UnitState.FINISHED:
            return
        if unit.start is not Start.ONCE and up_since is not None and ready(site, unit, now - up_since):
            return
        restarts = seen.restarts if restarts is None else min(restarts, seen.restarts)
        if seen.restarts - restarts >= ENDS:
            raise HostError(_failed(unit, f"it ended {ENDS} times", seen.detail))
        if down_since is not None and now - down_since >= GIVE_UP:
            raise HostError(_failed(unit, f"it is {seen.state}", seen.detail))
        if now - started >= limit:
            raise HostError(_failed(unit, f"it is not {goal} after {limit:.0f} s", _how(unit, seen)))
        if now - started - reported >= REPORT:
            reported = now - started
            emit(Waiting(host=site.host, unit=unit.name, seconds=reported, limit=limit))
        time.sleep(POLL)


def _askable(unit: Unit, seen: SeenUnit) -> bool:
    """Whether an answer would be its own. A new container need not wait for Docker's own first look, after 15 s."""
    if seen.state is UnitState.STARTING:
        return unit.manager is Manager.COMPOSE and unit.check is not None
    return seen.state is UnitState.RUNNING


def refuse_taken_port(site: Site, manager: UnitManager, ref: Ref, unit: Unit) -> None:
    """HostError (LAB123) when something else answers at the health address of a unit that does not run."""
    if unit.check is None or site.shell.probe(unit.check, PORT_PATIENCE) is None:
        return
    if manager.observe([ref]).get(ref.name, SeenUnit(state=UnitState.ABSENT)).state.up:
        return
    address = urlsplit(unit.check).netloc
    raise HostError(
        Diagnostic(
            code="LAB123",
            summary=f"`{unit.name}` is to serve at {address}, and another program answers there already",
            path=unit.origin or None,
            hint="end that program, or change `port`",
        )
    )


def ready(site: Site, unit: Unit, running: float) -> bool:
    """Ask a running unit once. Without anything to ask, it has to have run for a moment; a system was confirmed."""
    timeout = unit.health.timeout if unit.health else 5
    if unit.check is not None:
        status = site.shell.probe(unit.check, timeout)
        return status is not None and 200 <= status < 300
    if unit.health is not None and unit.health.command and unit.manager is not Manager.COMPOSE:
        return site.shell.run(unit.health.command, timeout=timeout, cwd=site.folder).ok
    return unit.id == SYSTEM or running >= STEADY


def probe_running(site: Site, units: Sequence[Unit], seen: Mapping[str, SeenUnit]) -> Mapping[str, SeenUnit]:
    """Return the units as they answer: a starting container that does runs; what runs and does not is not healthy."""
    asked = [u for u in units if u.check is not None and u.name in seen and _askable(u, seen[u.name])]
    if not asked:
        return seen
    with ThreadPoolExecutor(PROBES) as pool:
        answers = list(pool.map(lambda u: _answers(site, u), asked))
    return {**seen, **{u.name: _asked(u, seen[u.name], answers=a) for u, a in zip(asked, answers, strict=True)}}


def _asked(unit: Unit, seen: SeenUnit, *, answers: bool) -> SeenUnit:
    if answers:
        return replace(seen, state=UnitState.RUNNING)
    return _silent(unit, seen) if seen.state is UnitState.RUNNING else seen


def _answers(site: Site, unit: Unit) -> bool:
    attempts = max(1, unit.health.retries if unit.health else 3)
    for attempt in range(attempts):
        if attempt:
            time.sleep(POLL)
        if ready(site, unit, STEADY):
            return True
    return False


def _silent(unit: Unit, seen: SeenUnit) -> SeenUnit:
    young = seen.since is not None and seen.since < limit_of(unit)
    state = UnitState.STARTING if young else UnitState.UNHEALTHY
    return replace(seen, state=state, detail=f"{unit.check} does not answer")


def _how(unit: Unit, seen: SeenUnit) -> str:
    asked = f"\nasked: {unit.check}" if unit.check else ""
    return f"{seen.state}: {seen.detail}{asked}"


def _failed(unit: Unit, what: str, detail: str) -> Diagnostic:
    return Diagnostic(
        code="LAB110",
        summary=f"`{unit.name}` did not {'finish' if unit.start is Start.ONCE else 'start'}: {what}",
        detail=detail,
        path=unit.origin or None,
        hint=f"see its log: labctl logs {unit.name}",
    )
