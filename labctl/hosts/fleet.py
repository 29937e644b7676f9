"""All hosts of a tree at once: observe, apply, status, logs. What the use cases call."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import field, replace
from typing import Final

from labctl.artefact import HostRoot, SecretFile, Tree, Unit
from labctl.diagnostics import Diagnostic, ExitCode
from labctl.hosts.base import Emit, HostError, Outcome, Ref, Site, Stopped
from labctl.hosts.connect import connect, managers_of
from labctl.hosts.secret_files import secret_content
from labctl.hosts.events import Event, HostFailed, HostPhase, Phase
from labctl.hosts.execute import SiteExecutor
from labctl.hosts.observe import SiteObserver
from labctl.hosts.state import ensure_key, keyed, locked, own_state_folder, read_key, read_manifest
from labctl.hosts.work import stop_when
from labctl.plan.diff import diff
from labctl.plan.model import Plan, moved
from labctl.plan.observed import Observed, SecretDigests, SeenHost, SeenUnit, UnitState
from labctl.plan.wire import plan_to_json
from labctl.secrets import Secrets
from labctl.values import dataclass
from labctl.workload import Start

AT_ONCE: Final = 8
"""Hosts worked on at the same time."""
TICK: Final = 0.2


@dataclass(frozen=True, slots=True)
class Report:
    """How an apply or destroy went, by host."""

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    """Addresses at which the plan no longer matched."""

    @property
    def ok(self) -> bool:
        """Everything was done everywhere."""
        return not self.stale and all(o.ok for o in self.outcomes.values())

    @property
    def exit_code(self) -> int:
        """One of ``ExitCode``: interrupted, stale, partial, error, ok, in this order."""
        if any(o.interrupted for o in self.outcomes.values()):
            return ExitCode.INTERRUPTED
        if self.stale:
            return ExitCode.STALE
        if self.ok:
            return ExitCode.OK
        done = any(o.done or o.ok for o in self.outcomes.values())
        return ExitCode.PARTIAL if done or any(o.failed for o in self.outcomes.values()) else ExitCode.ERROR

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Every problem, by host."""
        found = [(*o.diagnostics, *o.failed.values()) for o in self.outcomes.values()]
        return tuple(dict.fromkeys(d for some in found for d in some))


def observe(tree: Tree, secrets: Secrets | None = None) -> Observed:
    """Look at every host of the tree. Hosts that cannot be looked at are there, incomplete, with the reason.

    Args:
        tree: what is wanted.
        secrets: values that must not turn up in the old contents of files.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = pool.map(lambda root: _observe(root, tree, secrets), tree.roots.values())
        return Observed({host.host: host for host in seen})


def _observe(root: HostRoot, tree: Tree, secrets: Secrets | None) -> SeenHost:
    try:
        site = connect(root)
    except HostError as error:
        return SeenHost(host=root.host, complete=False, why=(error.diagnostic,))
    redactor = secrets.redactor() if secrets is not None else None
    return SiteObserver(site, managers_of(site), redactor).observe(tree.of_host(root.host))


def secret_digests(tree: Tree, secrets: Secrets) -> SecretDigests:
    """Return the keyed digest that each secret file is to have. A host without a key yet has none: all is new there."""
    digests: dict[tuple[str, str], str] = {}
    for root in tree.roots.values():
        try:
            key = read_key(connect(root))
        except (HostError, OSError):
            continue
        if key is not None:
            digests.update(_digests(tree.of_host(root.host), secrets, key))
    return digests


def _digests(tree: Tree, secrets: Secrets, key: bytes) -> SecretDigests:
    files = [a for a in tree.artefacts if isinstance(a, SecretFile)]
    return {(f.host, f.path): keyed(key, hashlib.sha256(secret_content(f, secrets)).hexdigest()) for f in files}


def apply(
    plan: Plan,
    tree: Tree,
    secrets: Secrets,
    emit: Emit,
    *,
    exact: bool = False,
    wait_for_lock: float = 0,
    break_lock: bool = False,
) -> Report:
    """Carry out a plan, all hosts side by side; one that fails does not stop the others.

    Under each host's lock the host is looked at again. What is to be done must then be what was planned or, unless
    ``exact`` (a saved plan), a part of it; otherwise that host is left alone and counts as stale. Ctrl-C stops between
    two steps; a second one at once.

    Args:
        plan: from ``labctl.plan.diff``; a destroy plan removes.
        tree: the one that the plan was made for: its digest is compared.
        secrets: the values for secret files.
        emit: is told what happens, one call at a time.
        exact: refuse a host on which anything has moved since the plan was made.
        wait_for_lock: seconds to wait for another apply.
        break_lock: take the lock from a living holder.
    """
    if plan.tree_digest != tree.digest():
        return Report(stale=("the lab",))
    applying = _Applying(plan, tree, secrets, _one_at_a_time(emit), exact, wait_for_lock, break_lock)
    hosts = [root for root in tree.roots.values() if root.host in plan.hosts]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {root.host: pool.submit(applying.host, root) for root in hosts}
        applying.wait(list(futures.values()))
        results = {host: future.result() for host, future in futures.items()}
    stale = tuple(address for _, addresses in results.values() for address in addresses)
    return Report({host: outcome for host, (outcome, _) in results.items()}, stale)


@dataclass(slots=True)
class _Applying:
    """One call of ``apply``."""

    plan: Plan
    tree: Tree
    secrets: Secrets
    emit: Emit
    exact: bool
    wait_for_lock: float
    break_lock: bool
    stop: threading.Event = field(default_factory=threading.Event)

    def wait(self, futures: list[Future[tuple[Outcome, tuple[str, ...]]]]) -> None:
        """Wait for all hosts; the first Ctrl-C asks them to stop after the step they are in."""
        try:
            while wait(futures, timeout=TICK).not_done:
                pass
        except KeyboardInterrupt:
            self.stop.set()
            wait(futures)

    def host(self, root: HostRoot) -> tuple[Outcome, tuple[str, ...]]:
        """Apply one host under its lock. Returns its outcome and the addresses at which the plan was stale."""
        if not self.plan.hosts[root.host].complete:
            return self._refused(root, self.plan.hosts[root.host].why), ()
        try:
            site = connect(root)
            own_state_folder(site)
            with locked(
                site,
                "destroy" if self.plan.destroy else "apply",
                wait=self.wait_for_lock,
                force=self.break_lock,
                note=lambda text: self.emit(HostPhase(host=root.host, phase=Phase.LOCKING, detail=text)),
                check=stop_when(self.stop.is_set),
            ) as still_mine:
                return self._locked(site, still_mine)
        except HostError as error:
            return self._refused(root, (error.diagnostic,)), ()
        except OSError as error:
            return self._refused(root, (_no_access(root, error),)), ()
        except Stopped:
            return Outcome(host=root.host, interrupted=True, skipped=self._addresses(root.host)), ()

    def _locked(self, site: Site, still_mine: Callable[[], None]) -> tuple[Outcome, tuple[str, ...]]:
        part, managers = self.tree.of_host(site.host), managers_of(site)
        seen = SiteObserver(site, managers, self.secrets.redactor()).observe(part)
        if not seen.complete:
            return self._refused(site.root, seen.why), ()
        key = read_key(site)
        known = self.plan.secrets_known
        digests = _digests(part, self.secrets, key) if key is not None and not self.plan.destroy else {}
        fresh = self._plan(seen, part, digests if known else None)
        stale = self._moved(site.host, fresh)
        if stale:
            return self._refused(site.root, (_stale(site.host, stale),)), stale
        if not self.plan.destroy and any(isinstance(a, SecretFile) for a in part.artefacts):
            digests = _digests(part, self.secrets, ensure_key(site))
        executor = SiteExecutor(
            site=site,
            managers=managers,
            secrets=self.secrets,
            digests=digests,
            lab=self.plan.lab,
            lab_digest=self.plan.lab_digest,
            plan_digest=hashlib.sha256(plan_to_json(self.plan).encode()).hexdigest(),
            destroy=self.plan.destroy,
            data=self.plan.data,
            check=stop_when(self.stop.is_set, still_mine),
        )
        return executor.execute(fresh.changes, part, self.emit), ()

    def _plan(self, seen: SeenHost, part: Tree, digests: SecretDigests | None) -> Plan:
        observed = Observed({seen.host: seen})
        return diff(part, observed, digests, destroy=self.plan.destroy, data=self.plan.data)

    def _moved(self, host: str, fresh: Plan) -> tuple[str, ...]:
        """Return the addresses at which there is something to do that was not planned (``exact``: or no longer)."""
        planned = replace(self.plan, changes=self.plan.of_host(host))
        return moved(planned, fresh) if self.exact else beyond(planned, fresh)

    def _refused(self, root: HostRoot, why: tuple[Diagnostic, ...]) -> Outcome:
        skipped = self._addresses(root.host)
        self.emit(HostFailed(host=root.host, done=0, failed=0, skipped=len(skipped), diagnostics=why))
        return Outcome(host=root.host, skipped=skipped, diagnostics=why)

    def _addresses(self, host: str) -> tuple[str, ...]:
        return tuple(c.address for c in self.plan.of_host(host) if c.action.changes)


def beyond(planned: Plan, fresh: Plan) -> tuple[str, ...]:
    """Return the addresses at which ``fresh`` does something that ``planned`` does not, sorted."""
    known = {(c.address, c.action) for c in planned.todo}
    return tuple(sorted({c.address for c in fresh.todo if (c.address, c.action) not in known}))


def _one_at_a_time(emit: Emit) -> Emit:
    lock = threading.Lock()

    def emit_one(event: Event) -> None:
        with lock:
            emit(event)

    return emit_one


def _stale(host: str, addresses: tuple[str, ...]) -> Diagnostic:
    return Diagnostic(
        code="LAB124",
        summary=f"`{host}` has changed since the plan was made",
        detail="\n".join(addresses),
        hint="make a new plan",
    )


def _no_access(root: HostRoot, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="LAB101",
        summary=f"`{root.host}` cannot be worked on: {error.strerror or error}",
        detail=str(error.filename or ""),
        hint="run labctl as a user who may write there, or choose another folder for this host's root",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitStatus:
    """A unit as declared and as it is.

    ``current`` tells whether it runs from its present definition; None when nothing runs or nobody knows.
    """

    host: str
    unit: Unit
    seen: SeenUnit
    current: bool | None


def status(tree: Tree) -> tuple[tuple[UnitStatus, ...], tuple[Diagnostic, ...]]:
    """Return every declared unit with its live state, sorted, and the problems of hosts that could not be asked."""
    observed = observe(tree)
    rows = [_status(unit, observed.hosts[unit.host]) for unit in tree.units]
    return tuple(rows), tuple(d for host in observed.hosts.values() for d in host.why)


def _status(unit: Unit, host: SeenHost) -> UnitStatus:
    seen = host.units.get(unit.name, SeenUnit(state=UnitState.ABSENT))
    record = host.manifest.units.get(unit.name)
    runs_from = seen.fingerprint or (record.fingerprint if record else None)
    lives = seen.state.up or unit.start is Start.ONCE
    current = runs_from == unit.fingerprint if lives and runs_from else None
    return UnitStatus(host=unit.host, unit=unit, seen=seen, current=current)


def logs(tree: Tree, name: str, *, lines: int = 100, follow: bool = False) -> Iterator[str]:
    """Yield a unit's last log lines and, with ``follow``, those to come. KeyError for a name that no unit has."""
    for unit in tree.units:
        if unit.name == name:
            site = connect(tree.roots[unit.host])
            managers, record = managers_of(site), read_manifest(site).units.get(name)
            contents = {f.path: f.content for f in tree.files() if f.host == unit.host}
            manager = managers[unit.manager]
            group = manager.group(unit, contents.get(unit.project, b""))
            ref = Ref(name=name, id=unit.id, project=unit.project, group=group, unit=unit, record=record)
            return manager.logs(ref, lines=lines, follow=follow)
    raise KeyError(name)
