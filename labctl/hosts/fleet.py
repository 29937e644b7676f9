"""All hosts of a tree at once: observe, apply, status, logs. What the use cases call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field

from labctl.artefact import HostRoot, Tree, Unit
from labctl.diagnostics import Diagnostic, ExitCode
from labctl.hosts.ansible import Courier
from labctl.hosts.applying import AT_ONCE, Applying, How, coming, digests_of, one_at_a_time
from labctl.hosts.backend import backend_of
from labctl.hosts.base import Emit, HostError, Outcome, Ref
from labctl.hosts.connect import connect, managers_of
from labctl.hosts.observe import SiteObserver
from labctl.hosts.order import Precedence, with_those_to_come
from labctl.hosts.state import read_key, read_manifest
from labctl.plan.model import Plan
from labctl.plan.observed import Observed, SecretDigests, SeenHost, SeenUnit, UnitState
from labctl.plan.order import predecessors
from labctl.secrets import Secrets
from labctl.values import dataclass
from labctl.workload import Start

__all__ = ["How", "Report", "UnitStatus", "apply", "logs", "observe", "secret_digests", "status"]


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

    One that does not answer because the roots before it have yet to bring it is there as empty.

    Args:
        tree: what is wanted.
        secrets: values that must not turn up in the old contents of files.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = pool.map(lambda root: _observe(root, tree, secrets), tree.roots.values())
        return with_those_to_come(tree, Observed({host.host: host for host in seen}))


def _observe(root: HostRoot, tree: Tree, secrets: Secrets | None) -> SeenHost:
    backend = backend_of(root)
    if backend is not None:
        return backend.observe(root, tree.of_host(root.host), secrets)
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
        backend = backend_of(root)
        if backend is not None:
            digests.update(backend.digests(root, tree.of_host(root.host), secrets))
            continue
        try:
            key = read_key(connect(root))
        except (HostError, OSError):
            continue
        if key is not None:
            digests.update(digests_of(tree.of_host(root.host), secrets, key))
    return digests


def apply(plan: Plan, tree: Tree, secrets: Secrets, emit: Emit, how: How | None = None) -> Report:
    """Carry out a plan, all hosts side by side; one that fails does not stop the others unless it is to.

    A root that comes after others is begun when they are done, and not at all when one of them was not. A destroy goes
    the other way round.

    Under each host's lock the host is looked at again. What is to be done must then be what was planned or, unless it
    is a saved plan, a part of it; otherwise that host is left alone and counts as stale. A host on which a unit fails
    goes back to what it was after the last apply that went well. Ctrl-C stops between two steps; a second one at once.

    Args:
        plan: from ``labctl.plan.diff``; a destroy plan removes.
        tree: the one that the plan was made for: its digest is compared.
        secrets: the values for secret files.
        emit: is told what happens, one call at a time.
        how: how to go about it.
    """
    if plan.tree_digest != tree.digest():
        return Report(stale=("the lab",))
    how = how or How()
    before = predecessors((r for r in tree.roots.values() if r.host in plan.hosts), backwards=plan.destroy)
    applying = Applying(plan, tree, secrets, one_at_a_time(emit), how, Courier(coming(plan)), Precedence(before))
    with ThreadPoolExecutor(how.at_once) as pool:
        # in this order nobody who waits keeps a thread from whom he waits for
        futures = {name: pool.submit(applying.host, tree.roots[name]) for name in before}
        applying.wait(list(futures.values()))
        results = {host: future.result() for host, future in futures.items()}
    stale = tuple(address for _, addresses in results.values() for address in addresses)
    return Report({host: outcome for host, (outcome, _) in results.items()}, stale)


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
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = pool.map(lambda root: _units(root, tree), tree.roots.values())
        observed = Observed({host.host: host for host in seen})
    rows = [_status(unit, observed.hosts[unit.host]) for unit in tree.units]
    return tuple(rows), tuple(d for host in observed.hosts.values() for d in host.why)


def _units(root: HostRoot, tree: Tree) -> SeenHost:
    backend = backend_of(root)
    return _observe(root, tree, None) if backend is None else backend.units(root, tree.of_host(root.host))


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
            backend = backend_of(tree.roots[unit.host])
            if backend is not None:
                return backend.logs(tree.roots[unit.host], unit, lines=lines, follow=follow)
            site = connect(tree.roots[unit.host])
            managers, record = managers_of(site), read_manifest(site).units.get(name)
            contents = {f.path: f.content for f in tree.files() if f.host == unit.host}
            manager = managers[unit.manager]
            group = manager.group(unit, contents.get(unit.project, b""))
            ref = Ref(name=name, id=unit.id, project=unit.project, group=group, unit=unit, record=record)
            return manager.logs(ref, lines=lines, follow=follow)
    raise KeyError(name)
