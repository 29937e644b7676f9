"""Carrying out a cluster's part of a plan: waves of objects, each ready before the next; then what is no longer wanted.

A workload that ran and whose new definition does not become ready gets its previous one back, and nothing is pruned:
what that one needs is still there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, replace
from itertools import groupby
from typing import Any, Final

from labctl.artefact import Object, Tree
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Emit, HostError, Outcome, Stopped
from labctl.hosts.events import ChangeDone, ChangeStarted, HostPhase, HostStarted, LogLine, Phase
from labctl.kube import fields, listing, problems
from labctl.kube.api import APPLY, Api, ApiError, Unreachable, Value
from labctl.kube.observe import Sight, keeps
from labctl.kube.prepare import Values, owner, sent
from labctl.kube.remove import Remover
from labctl.kube.waiting import Awaited, Waiter, awaited
from labctl.kube.why import pods_of
from labctl.plan.model import Action, Change
from labctl.plan.objects import object_name
from labctl.plan.observed import Manifest, UnitState
from labctl.secrets import Redactor
from labctl.values import dataclass

ROLLED_BACK: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet"})


@dataclass(slots=True, kw_only=True)
class Executor:
    """One apply to one cluster, under its lock.

    Attributes:
        sight: what was seen just now; ``values`` the secret values with the cluster's key.
        changes: what is to be done.
        force: take over fields that other managers own.
        check: raises ``Stopped`` or ``HostError`` between two objects.
        manifest: the ledger, as it becomes.
    """

    api: Api
    sight: Sight
    values: Values
    changes: Sequence[Change]
    emit: Emit
    check: Callable[[], None]
    redact: Redactor
    force: bool = False
    manifest: Manifest = Manifest()
    done: list[str] = field(default_factory=list)
    failed: dict[str, Diagnostic] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    at: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start with the addresses that are known; kinds that come with an earlier wave are added."""
        self.at = dict(self.sight.at)

    @property
    def host(self) -> str:
        """The root's name."""
        return self.sight.root.host

    @property
    def tree(self) -> Tree:
        """What is wanted."""
        return self.sight.tree

    def run(self) -> Outcome:
        """Do everything; what went wrong is in the outcome."""
        self.emit(HostStarted(host=self.host, changes=len([c for c in self.changes if c.action.changes])))
        interrupted = False
        try:
            self._waves()
            if not self.failed:
                self._prune()
        except Stopped:
            interrupted = True
        except HostError as error:
            self.diagnostics.append(error.diagnostic)
        except (ApiError, Unreachable) as error:
            self.diagnostics.append(problems.of_server(error, api=self.api))
        return self.outcome(interrupted=interrupted)

    def outcome(self, *, interrupted: bool) -> Outcome:
        """Return how it went; what was neither done nor failed counts as skipped."""
        known = {*self.done, *self.failed}
        left = tuple(c.address for c in self.changes if c.action.changes and c.address not in known)
        clean = tuple(self._clean(d) for d in self.diagnostics)
        return Outcome(
            host=self.host,
            done=tuple(self.done),
            failed=dict(self.failed),
            skipped=left,
            interrupted=interrupted,
            diagnostics=clean,
        )

    def _waves(self) -> None:
        """Apply wave after wave; a wave that does not become ready is the last."""
        items = {object_name(o, self.sight.root): o for o in self.tree.objects}
        wanted = [(items[c.name], c) for c in self.changes if c.name in items and c.action is not Action.DELETE]
        wanted.sort(key=lambda pair: pair[0].wave)
        last = max((item.wave for item, change in wanted if change.action.changes), default=None)
        for wave, group in groupby(wanted, key=lambda pair: pair[0].wave):
            if last is None or wave > last:
                return
            self._wave(list(group))
            if self.failed:
                return

    def _wave(self, group: list[tuple[Object, Change]]) -> None:
        todo = [(item, change) for item, change in group if change.action.changes]
        if todo:
            self.emit(HostPhase(host=self.host, phase=Phase.WRITING, detail=f"wave {todo[0][0].wave}"))
        ending = [(item, change) for item, change in todo if self._ends(item, change)]
        self.api.each(lambda pair: self._make(*pair), ending)
        gone = self._wait(w for item, change in ending for w in self._awaited(item, change))
        for _, change in ending:
            if change.name in gone:
                self._fail(change, gone[change.name])
        if self.failed:  # what was to end still holds its card
            return
        self.api.each(lambda pair: self._make(*pair), [pair for pair in todo if pair not in ending])
        begun = {change.name for _, change in todo if change.address not in self.failed}
        unsettled = {n for _, c in group if (n := c.name) not in begun and self._starting(n)}
        waits = [w for item, change in group if change.name in begun | unsettled for w in self._awaited(item, change)]
        late = self._wait(waits)
        for item, change in todo:
            if change.address not in self.failed:
                self._finish(item, change, late.pop(change.name, None))
        self.diagnostics += late.values()
        for problem in late.values():
            self.failed.setdefault(f"{self.host}:{problem.summary}", problem)

    def _ends(self, item: Object, change: Change) -> bool:
        """Whether a change stops what runs, and so makes room for others."""
        live = self.sight.live.get(change.name) or {}
        wanted = (item.value.get("spec") or {}).get("replicas")
        return wanted == 0 and bool((live.get("spec") or {}).get("replicas"))

    def _starting(self, name: str) -> bool:
        seen = self.sight.seen.get(name)
        return seen is not None and seen.state is UnitState.STARTING

    def _awaited(self, item: Object, change: Change) -> list[Awaited]:
        unit = next((u for u in self.tree.units if u.id == change.name), None)
        found = awaited(change.name, item, self.at[change.name], unit)
        return [] if found is None else [found]

    def _wait(self, things: Iterable[Awaited]) -> dict[str, Diagnostic]:
        waiting = list(things)
        if waiting:
            self.emit(HostPhase(host=self.host, phase=Phase.STARTING))
        return Waiter(
            api=self.api,
            host=self.host,
            owner=owner(self.sight.cluster),
            emit=self.emit,
            check=self.check,
            redact=self.redact,
        ).wait(waiting)

    def _make(self, item: Object, change: Change) -> None:
        """Apply one object; a problem is recorded, not raised."""
        self.check()
        self.emit(ChangeStarted(host=self.host, address=change.address, kind=change.kind, action=change.action))
        path = self.at.get(change.name)
        try:
            if path is None:
                path = self._late_kind(item, change)
            if change.action is Action.REPLACE:
                self._remover().away(path, self.sight.live.get(change.name))
            live = self.sight.live.get(change.name) if change.action is not Action.REPLACE else None
            body = sent(item, self.sight.cluster, self.values, live, keep=keeps(item, self.tree))
            self.patch(path, body)
        except ApiError as error:
            self._fail(change, problems.of_object(error, change.name, item))
        except HostError as error:
            self._fail(change, error.diagnostic)

    def _late_kind(self, item: Object, change: Change) -> str:
        """Return the address of an object whose kind came with an earlier wave."""
        found = listing.address(self.api, item)
        if found is None:
            raise HostError(problems.no_kind(item, change.name))
        self.at[change.name] = found
        return found

    def patch(self, path: str, body: Any, *, force: bool = False) -> Value:
        """Apply an object."""
        query = {"fieldManager": fields.MANAGER} | ({"force": "true"} if force or self.force else {})
        return self.api.call("PATCH", path, query, body, APPLY).value

    def _finish(self, item: Object, change: Change, problem: Diagnostic | None) -> None:
        """Say how a change ended; a workload that does not become ready gets its previous definition back."""
        if problem is None:
            self.done.append(change.address)
            new = listing.entries(self.sight.root, self.tree, [change.name])
            self.manifest = replace(self.manifest, entries={**self.manifest.entries, **new})
            self._said(change, None)
            return
        self._fail(change, self._went_back(item, change, problem))

    def _went_back(self, item: Object, change: Change, problem: Diagnostic) -> Diagnostic:
        """Apply a workload's previous definition, and wait for it; return the problem with what came of it."""
        live = self.sight.live.get(change.name)
        before = fields.applied(live) if live is not None else None
        if before is None or change.action is not Action.UPDATE or item.value["kind"] not in ROLLED_BACK:
            return problem
        self.emit(LogLine(host=self.host, unit="", text=f"{change.name} is not ready: its previous definition again"))
        try:
            after = self.patch(self.at[change.name], before, force=True)
            self._unstick(after)
            late = self._wait(self._awaited(item, change))
        except (ApiError, Unreachable) as error:
            text = f"going back to its previous definition failed: {error}"
            return replace(problem, detail=f"{problem.detail}\n{text}")
        state = "is not ready either" if late else "runs again"
        return replace(
            problem,
            code="LAB200",
            summary=f"{problem.summary}: its previous definition {state}",
        )

    def _unstick(self, live: Value) -> None:
        """Delete the pods that a stateful set would wait for although their definition is gone."""
        if live.get("kind") != "StatefulSet":
            return
        for pod in pods_of(self.api, live):
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())
            if not ready:
                meta = pod["metadata"]
                self._remover().delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", pod)

    def _prune(self) -> None:
        """Remove what is no longer wanted."""
        gone = [c for c in self.changes if c.action is Action.DELETE]
        if not gone:
            return
        self.emit(HostPhase(host=self.host, phase=Phase.REMOVING))
        results = self._remover().all(gone, self.sight.live, self.at, self._started)
        for change in gone:
            problem = results.get(change.name)
            if problem is not None:
                self._fail(change, problem)
                continue
            self.done.append(change.address)
            self.manifest = listing.without(self.manifest, [change.name])
            self._said(change, None)

    def _started(self, change: Change) -> None:
        self.emit(ChangeStarted(host=self.host, address=change.address, kind=change.kind, action=change.action))

    def _remover(self) -> Remover:
        return Remover(api=self.api, check=self.check)

    def _fail(self, change: Change, problem: Diagnostic) -> None:
        self.failed[change.address] = self._clean(problem)
        self._said(change, self.failed[change.address])

    def _said(self, change: Change, problem: Diagnostic | None) -> None:
        self.emit(
            ChangeDone(host=self.host, address=change.address, kind=change.kind, action=change.action, problem=problem)
        )

    def _clean(self, problem: Diagnostic) -> Diagnostic:
        return replace(problem, summary=self.redact(problem.summary), detail=self.redact(problem.detail))
