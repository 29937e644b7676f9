"""Waiting for objects to be ready: a question per kind and tick, and the reason when one is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from labctl.artefact import Object, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Emit
from labctl.hosts.events import LogLine, Waiting
from labctl.kube.api import Api, ApiError, Value
from labctl.kube.prepare import LAB
from labctl.kube.ready import WAITED, WORKLOADS, Doing, doing
from labctl.kube.why import Why, why
from labctl.plan.observed import UnitState
from labctl.values import dataclass

LIMIT: Final = 600
"""Seconds that something may take to become ready when nothing says otherwise."""
LIMITS: Final = {"Namespace": 30, "CustomResourceDefinition": 60, "PersistentVolumeClaim": 120}
MARGIN: Final = 10
"""Seconds that the cluster's own verdict may be late."""
FIRST_TICK: Final = 0.25
TICK: Final = 1.0
LOOK_AFTER: Final = 4.0
"""Seconds after which it is asked why something is not ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Something that is waited for: its plan name, its address, the label's value by which it is listed."""

    name: str
    path: str
    limit: float
    origin: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """Waits for objects of one cluster."""

    api: Api
    host: str
    owner: str
    emit: Emit
    check: Callable[[], None]
    redact: Callable[[str], str]

    def wait(self, things: Iterable[Awaited]) -> dict[str, Diagnostic]:
        """Wait until everything is ready or will not be; return what is not, by name, with the reason."""
        left = {thing.name: thing for thing in things}
        failed: dict[str, Diagnostic] = {}
        begun, tick, next_look = time.monotonic(), FIRST_TICK, LOOK_AFTER
        told: dict[str, str] = {}
        while left:
            self.check()
            waited = time.monotonic() - begun
            looks = waited >= next_look
            next_look = waited + LOOK_AFTER if looks else next_look
            for name, live in self._look(left.values()).items():
                thing = left[name]
                problem = self._judge(thing, live, waited, looks=looks, told=told)
                if problem is not None:
                    failed[name] = problem
                if problem is not None or self._settled(live):
                    del left[name]
            if left:
                time.sleep(tick)
                tick = min(tick * 1.5, TICK)
        return failed

    def _look(self, things: Iterable[Awaited]) -> dict[str, Value | None]:
        """Return the things as they are: one list per kind and namespace, or the thing itself when it is alone."""
        folders: dict[str, list[Awaited]] = {}
        for thing in things:
            folders.setdefault(thing.path.rpartition("/")[0], []).append(thing)
        found: dict[str, Value | None] = {}
        for folder, some in folders.items():
            if len(some) == 1:
                found[some[0].name] = self.api.get(some[0].path)
                continue
            listed = {i["metadata"]["name"]: i for i in self.api.items(folder, f"{LAB}={self.owner}")}
            for thing in some:
                item = listed.get(thing.path.rpartition("/")[2])
                kind = thing.name.partition("/")[0]
                found[thing.name] = None if item is None else {"kind": kind, **item}
        return found

    def _settled(self, live: Value | None) -> bool:
        return live is not None and (self._doing(live).settled or self._unbound(live))

    def _doing(self, live: Value) -> Doing:
        state = doing(live)
        if live.get("kind") == "HelmChart" and state.settled:
            return self._installed(live)
        return state

    def _installed(self, chart: Value) -> Doing:
        """Return how the installation of a chart goes: its Job's state."""
        job = chart["status"]["jobName"]
        there = self.api.get(f"/apis/batch/v1/namespaces/{chart['metadata']['namespace']}/jobs/{job}")
        return Doing(UnitState.RUNNING) if there is None else doing(there)

    def _unbound(self, live: Value) -> bool:
        """Whether a claim waits for its first pod, as claims of local storage do."""
        if live.get("kind") != "PersistentVolumeClaim" or doing(live).state is not UnitState.STARTING:
            return False
        name = (live.get("spec") or {}).get("storageClassName")
        if not name:
            return True
        try:
            found = self.api.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}")
        except ApiError:
            return True
        return found is None or found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _judge(
        self, thing: Awaited, live: Value | None, waited: float, *, looks: bool, told: dict[str, str]
    ) -> Diagnostic | None:
        """Return why a thing will not be ready, None when it is or still may be."""
        if live is None:
            return _not_ready(thing, "it is gone: somebody deleted it", Why(), waited)
        state = self._doing(live)
        if state.settled or self._unbound(live):
            return None
        workload = live.get("kind") in WORKLOADS
        found = why(self.api, live, waited) if looks and workload else Why()
        late = waited >= thing.limit
        if late or found.hopeless or state.state is UnitState.FAILED:
            full = why(self.api, live, waited, logs=True) if workload else found
            return self._give_up(thing, state, full if full.text or full.lines else found, waited)
        unit = thing.name.rpartition("/")[2]
        self.emit(Waiting(host=self.host, unit=unit, seconds=waited, limit=thing.limit))
        if found.text and told.get(thing.name) != found.text:
            told[thing.name] = found.text
            self.emit(LogLine(host=self.host, unit=unit, text=self.redact(found.text)))
        return None

    def _give_up(self, thing: Awaited, state: Doing, found: Why, waited: float) -> Diagnostic:
        unit = thing.name.rpartition("/")[2]
        for line in found.lines:
            self.emit(LogLine(host=self.host, unit=unit, text=self.redact(line)))
        problem = _not_ready(thing, state.detail, found, waited)
        return replace(problem, summary=self.redact(problem.summary), detail=self.redact(problem.detail))


def awaited(name: str, item: Object, path: str, unit: Unit | None) -> Awaited | None:
    """Return what is waited for of an applied object, None when it simply is."""
    kind = str(item.value["kind"])
    if kind not in WAITED:
        return None
    return Awaited(name=name, path=path, limit=_limit(kind, item.value, unit), origin=item.origin)


def _limit(kind: str, value: Mapping[str, object], unit: Unit | None) -> float:
    spec = value.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    own = spec.get("progressDeadlineSeconds") or spec.get("activeDeadlineSeconds")
    if isinstance(own, int):
        return own + MARGIN
    if unit is not None and kind == "Job":
        return unit.time_limit + MARGIN
    if unit is not None and unit.health is not None:
        health = unit.health
        return max(60, health.start_period + health.retries * (health.interval + health.timeout) + MARGIN)
    return LIMITS.get(kind, LIMIT)


def _not_ready(thing: Awaited, state: str, found: Why, waited: float) -> Diagnostic:
    detail = "\n".join(part for part in (state, found.text, *found.lines) if part)
    return Diagnostic(
        code="LAB178",
        summary=f"`{thing.name}` is not ready after {waited:.0f} s",
        detail=detail,
        path=thing.origin or None,
        hint="`labctl logs` shows its log; `kubectl describe` shows its pods' events",
    )
