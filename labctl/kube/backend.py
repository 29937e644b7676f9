"""A Kubernetes cluster as ``labctl.hosts.backend.Backend``: what ``fleet`` calls for roots with a ``cluster``."""

from __future__ import annotations

import getpass
import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from labctl.artefact import HostRoot, Object, Tree, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.applying import beyond
from labctl.hosts.backend import Order
from labctl.hosts.base import HostError, Outcome, Stopped
from labctl.hosts.events import HostDone, HostFailed, HostPhase, LogLine, Phase
from labctl.hosts.state import Lock
from labctl.kube import logs as pod_logs
from labctl.kube import problems, record
from labctl.kube.api import Api, ApiError, Unreachable
from labctl.kube.arrival import arrived
from labctl.kube.connect import NOT_YET, connect
from labctl.kube.execute import Executor
from labctl.kube.listing import cluster_of
from labctl.kube.lock import locked
from labctl.kube.lock import read as read_lock
from labctl.kube.observe import Known, Sight, look
from labctl.kube.prepare import Values, sent
from labctl.plan.diff import diff
from labctl.plan.model import Action, Change, Plan, moved
from labctl.plan.narrow import narrow
from labctl.plan.objects import object_name
from labctl.plan.observed import Observed, SecretDigests, SeenHost
from labctl.plan.wire import plan_to_json
from labctl.secrets import Secrets

PATIENCE: Final = 45
"""Seconds for which an apply waits for a server that went away in the middle of it."""

Stale = tuple[str, ...]
T = TypeVar("T")


class KubernetesBackend:
    """Looks after the clusters of a tree."""

    def observe(self, root: HostRoot, tree: Tree, secrets: Secrets | None) -> SeenHost:
        """Return what is there of the lab, and what the server would make of what is wanted."""
        return _seen(root, lambda api: look(api, root, tree, secrets))

    def units(self, root: HostRoot, tree: Tree) -> SeenHost:
        """Return how the cluster's units are doing."""
        return _seen(root, lambda api: look(api, root, tree, None, dry=False))

    def digests(self, root: HostRoot, tree: Tree, secrets: Secrets) -> SecretDigests:
        """Return the keyed digest that each Secret's values are to have; none when the cluster has no key yet."""
        try:
            notes = record.read(connect(cluster_of(root), root.host), cluster_of(root))
        except (HostError, ApiError, Unreachable):
            return {}
        return _digests(tree, secrets, notes.key)

    def apply(self, order: Order) -> tuple[Outcome, Stale]:
        """Carry out the plan's part under the lock of the lab's namespace."""
        root = order.root
        try:
            if order.plan.destroy and order.plan.hosts[root.host].to_come:
                return _nothing(order)
            api = connect(cluster_of(root), root.host) if order.plan.destroy or not root.after else arrived(order)
            api.patience, api.check = PATIENCE, order.check
            return _Applying(api, order).run()
        except HostError as error:
            return _refused(order, (error.diagnostic,)), ()
        except (ApiError, Unreachable) as error:
            return _refused(order, (problems.of_server(error),)), ()
        except Stopped:
            return Outcome(host=root.host, interrupted=True, skipped=_addresses(order)), ()

    def logs(self, root: HostRoot, unit: Unit, *, lines: int, follow: bool) -> Iterator[str]:
        """Yield a unit's last log lines and, when asked, those to come. HostError when it has no pod."""
        api = connect(cluster_of(root), root.host)
        try:
            yield from pod_logs.lines(api, cluster_of(root), unit, lines=lines, follow=follow)
        except (ApiError, Unreachable) as error:
            raise HostError(problems.of_server(error, api=api)) from error

    def log(self, root: HostRoot) -> bytes:
        """Return the log of applies."""
        return _asked(root, lambda api: "\n".join(record.read(api, cluster_of(root)).audit).encode())

    def lock(self, root: HostRoot) -> Lock | None:
        """Return the lock of the lab's namespace."""
        return _asked(root, lambda api: read_lock(api, cluster_of(root)))

    def note(self, root: HostRoot) -> bytes | None:
        """Return what was left in the cluster for the next command, None when nothing was."""
        return _asked(root, lambda api: record.note(api, cluster_of(root)))

    def leave_note(self, root: HostRoot, content: bytes | None) -> None:
        """Leave something in the cluster for the next command."""
        _asked(root, lambda api: record.leave_note(api, cluster_of(root), content))


backend: Final = KubernetesBackend()


class _Applying:
    """One apply to one cluster."""

    def __init__(self, api: Api, order: Order) -> None:
        self.api, self.order, self.root = api, order, order.root
        self.cluster = cluster_of(order.root)
        self.redact = order.secrets.redactor()
        self.before: Stale = ()
        self.existed = True

    def run(self) -> tuple[Outcome, Stale]:
        """Make sure of the namespace, take the lock, look again, and do it."""
        order = self.order
        if not order.plan.destroy:
            self._namespace()
        elif not self._exists():
            return _nothing(self.order)
        with locked(
            self.api,
            self.cluster,
            "destroy" if order.plan.destroy else "apply",
            wait=order.wait,
            force=order.break_lock,
            note=lambda text: order.emit(HostPhase(host=self.root.host, phase=Phase.LOCKING, detail=text)),
            check=self.api.check,
        ) as held:
            return self._locked(held)

    def _exists(self) -> bool:
        return self.api.get(f"/api/v1/namespaces/{self.cluster.namespace}") is not None

    def _namespace(self) -> None:
        """Make the lab's namespace when it is not there: the lock lies in it."""
        item = next((o for o in self.order.tree.objects if self._is_own(o)), None)
        try:
            self.existed = self._exists()
        except ApiError as error:
            if error.code != 403:
                raise
        if item is None or self.existed:
            return
        path = f"/api/v1/namespaces/{self.cluster.namespace}"
        sight = Sight(root=self.root, tree=self.order.tree, kinds={}, record=record.Record(), values=Values())
        executor = self._executor(sight, (), self.api.check)
        try:
            executor.patch(path, sent(item, self.cluster, Values(), None, keep=False))
        except ApiError as error:
            raise HostError(problems.of_object(error, object_name(item, self.root), item)) from error
        self.before = (f"{self.root.host}:{object_name(item, self.root)}",)

    def _is_own(self, item: Object) -> bool:
        return bool(item.value["kind"] == "Namespace" and item.value["metadata"]["name"] == self.cluster.namespace)

    def _locked(self, held: Callable[[], None]) -> tuple[Outcome, Stale]:
        order = self.order
        order.emit(HostPhase(host=self.root.host, phase=Phase.LOOKING))
        sight = look(self.api, self.root, order.tree, order.secrets, known=self._known(), dry=not order.plan.destroy)
        problem = self._refusal(sight)
        if problem:
            return _refused(order, problem), ()
        fresh = self._plan(sight)
        stale = self._moved(fresh)
        if stale:
            return _refused(order, (_stale(self.root.host, stale),)), stale
        if not order.plan.destroy and any(o.entries for o in order.tree.objects):
            key = record.ensure_key(self.api, self.cluster, sight.record.key)
            sight = replace(sight, values=replace(sight.values, key=key))
        return self._execute(sight, fresh, held), ()

    def _known(self) -> Known:
        """Return what the plan tried on the server, if nothing was refused: it need not be tried again."""
        plan = self.order.plan
        if not self.existed or any(d.is_error for d in plan.hosts[self.root.host].why):
            return Known()
        planned = plan.of_host(self.root.host)
        changed = {c.name: c.before.revision for c in planned if c.action is Action.UPDATE and c.before is not None}
        return Known(
            new=frozenset(c.name for c in planned if c.action is Action.CREATE),
            changed={name: revision for name, revision in changed.items() if revision},
        )

    def _refusal(self, sight: Sight) -> tuple[Diagnostic, ...]:
        """Return what stops this apply before it begins; conflicts do not when they are to be forced."""
        problem = tuple(d for d in sight.why if d.is_error)
        return tuple(d for d in problem if not (self.order.force and d.code == problems.CONFLICT))

    def _plan(self, sight: Sight) -> Plan:
        plan = self.order.plan
        digests = _digests(self.order.tree, self.order.secrets, sight.record.key)
        known = None if plan.destroy or not plan.secrets_known else digests
        observed = Observed({self.root.host: sight.host()})
        fresh = diff(self.order.tree, observed, known, destroy=plan.destroy, data=plan.data)
        return narrow(fresh, self.order.tree, plan.only)

    def _moved(self, fresh: Plan) -> Stale:
        """Return the addresses at which there is something to do that was not planned (``exact``: or no longer)."""
        own = set(self.before)
        planned = replace(self.order.plan, changes=tuple(c for c in self._planned() if c.address not in own))
        now = replace(fresh, changes=tuple(c for c in fresh.changes if c.address not in own))
        return moved(planned, now) if self.order.exact else beyond(planned, now)

    def _planned(self) -> tuple[Change, ...]:
        return self.order.plan.of_host(self.root.host)

    def _execute(self, sight: Sight, fresh: Plan, held: Callable[[], None]) -> Outcome:
        executor = self._executor(sight, fresh.changes, held)
        outcome = executor.run()
        outcome = replace(outcome, done=(*self.before, *outcome.done))
        self._close(sight, executor, outcome)
        self.order.emit(outcome.last_event)
        return outcome

    def _executor(self, sight: Sight, changes: Sequence[Change], held: Callable[[], None]) -> Executor:
        stop = self.api.check

        def check() -> None:
            stop()
            held()

        self.api.check = check
        return Executor(
            api=self.api,
            sight=sight,
            values=sight.values,
            changes=changes,
            emit=self.order.emit,
            check=check,
            redact=self.redact,
            force=self.order.force,
            manifest=sight.host().manifest,
        )

    def _close(self, sight: Sight, executor: Executor, outcome: Outcome) -> None:
        """Keep the ledger and a line of the log, or remove both after a complete destroy."""
        plan = self.order.plan
        if plan.destroy and outcome.ok:
            record.remove(self.api, self.cluster)
            return
        result = "done" if outcome.ok else "interrupted" if outcome.interrupted else "failed"
        entry = {
            "action": "destroy" if plan.destroy else "apply",
            "lab": plan.lab,
            "plan": hashlib.sha256(plan_to_json(plan).encode()).hexdigest(),
            "result": result,
            "done": len(outcome.done),
            "failed": sorted(outcome.failed),
            "user": _user(),
            "machine": socket.gethostname(),
        }
        manifest = replace(executor.manifest, lab=plan.lab, lab_digest=plan.lab_digest)
        try:
            record.write(self.api, self.cluster, manifest, (*sight.record.audit, record.line(entry)))
        except (ApiError, Unreachable) as error:
            text = f"labctl's own notes could not be written: {error}"
            self.order.emit(LogLine(host=self.root.host, unit="", text=self.redact(text)))


def _nothing(order: Order) -> tuple[Outcome, Stale]:
    """Return that there is nothing of the lab."""
    outcome = Outcome(host=order.root.host, done=_addresses(order))
    order.emit(HostDone(host=order.root.host, changes=len(outcome.done)))
    return outcome, ()


def _seen(root: HostRoot, ask: Callable[[Api], Sight]) -> SeenHost:
    """Return what was seen; incomplete, with the reason, when it could not be."""
    try:
        api = connect(cluster_of(root), root.host)
    except HostError as error:
        silent = error.diagnostic.code == NOT_YET
        return SeenHost(host=root.host, complete=False, silent=silent, why=(error.diagnostic,))
    silent = False
    try:
        return ask(api).host()
    except HostError as error:
        problem = error.diagnostic
    except (ApiError, Unreachable) as error:
        problem, silent = problems.of_server(error, api=api), isinstance(error, Unreachable) and not error.tls
    return SeenHost(host=root.host, complete=False, silent=silent, why=(problem,))


def _asked(root: HostRoot, ask: Callable[[Api], T]) -> T:
    """Return an answer of the cluster; HostError, in words, when there is none."""
    api = connect(cluster_of(root), root.host)
    try:
        return ask(api)
    except ApiError as error:
        raise HostError(problems.of_object(error, f"namespace {cluster_of(root).namespace}")) from error
    except Unreachable as error:
        raise HostError(problems.of_server(error, api=api)) from error


def _digests(tree: Tree, secrets: Secrets, key: bytes | None) -> SecretDigests:
    values = Values.of(tree.objects, secrets, key)
    found = {(o.host, o.path): values.digest(o) for o in tree.objects if o.entries}
    return {where: digest for where, digest in found.items() if digest is not None}


def _refused(order: Order, why: tuple[Diagnostic, ...]) -> Outcome:
    skipped = _addresses(order)
    order.emit(HostFailed(host=order.root.host, done=0, failed=0, skipped=len(skipped), diagnostics=why))
    return Outcome(host=order.root.host, skipped=skipped, diagnostics=why)


def _addresses(order: Order) -> Stale:
    return tuple(c.address for c in order.plan.of_host(order.root.host) if c.action.changes)


def _stale(host: str, addresses: Stale) -> Diagnostic:
    return Diagnostic(
        code="LAB124",
        summary=f"`{host}` has changed since the plan was made",
        detail="\n".join(addresses),
        hint="make a new plan",
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
