"""Applying one host's part of a plan: under its lock, looked at again, and back to what it was where a unit fails."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import field, replace
from typing import Final

from labctl.artefact import HostRoot, SecretFile, Tree
from labctl.diagnostics import Diagnostic, Severity
from labctl.hosts.ansible import Courier
from labctl.hosts.backend import Order, backend_of
from labctl.hosts.base import Emit, HostError, Outcome, Site, Stopped
from labctl.hosts.connect import connect, managers_of
from labctl.hosts.disk import unless_full
from labctl.hosts.events import (
    Event,
    HostDone,
    HostFailed,
    HostPhase,
    Phase,
    RollbackDone,
    RollbackStarted,
)
from labctl.hosts.execute import SiteExecutor
from labctl.hosts.generations import Generation, Kept, numbers, read
from labctl.hosts.observe import SiteObserver
from labctl.hosts.order import Precedence, not_begun
from labctl.hosts.place import placer_of
from labctl.hosts.secret_files import secret_content
from labctl.hosts.state import ensure_key, keyed, locked, own_state_folder, read_key
from labctl.plan.diff import diff
from labctl.plan.model import Action, Kind, Plan, moved
from labctl.plan.narrow import narrow
from labctl.plan.observed import Observed, SecretDigests, SeenHost
from labctl.plan.wire import plan_to_json
from labctl.secrets import Secrets
from labctl.values import dataclass

AT_ONCE: Final = 8
"""Hosts worked on at the same time."""
TICK: Final = 0.2

Result = tuple[Outcome, tuple[str, ...]]
"""How it went on a host, and the addresses at which the plan no longer matched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How an apply goes about it.

    Attributes:
        exact: refuse a host on which anything has moved since the plan was made.
        wait_for_lock: seconds to wait for another apply.
        break_lock: take the lock from a living holder.
        force: take over fields of Kubernetes objects that other managers own.
        fail_fast: once a host has failed, the others stop after the step they are in.
        at_once: hosts worked on at the same time.
        doing: what it is called in the lock and in the log.
        generations: hosts that are to become what they were; the plan was made for these trees.
    """

    exact: bool = False
    wait_for_lock: float = 0
    break_lock: bool = False
    force: bool = False
    fail_fast: bool = False
    at_once: int = AT_ONCE
    doing: str = "apply"
    generations: Mapping[str, Generation] = field(default_factory=dict)


def digests_of(tree: Tree, secrets: Secrets, key: bytes) -> SecretDigests:
    """Return the keyed digest that each secret file of a host is to have."""
    files = [a for a in tree.artefacts if isinstance(a, SecretFile)]
    return {(f.host, f.path): keyed(key, hashlib.sha256(secret_content(f, secrets)).hexdigest()) for f in files}


def coming(plan: Plan) -> frozenset[str]:
    """Return the hosts to which files will have to be brought."""
    return frozenset(c.host for c in plan.todo if c.kind is Kind.FILE and c.action is not Action.DELETE)


@dataclass(slots=True)
class Applying:
    """One apply of a plan on all its hosts."""

    plan: Plan
    tree: Tree
    secrets: Secrets
    emit: Emit
    how: How
    courier: Courier
    precedence: Precedence
    stop: threading.Event = field(default_factory=threading.Event)
    failed: list[str] = field(default_factory=list)
    """Hosts that have failed."""

    def wait(self, futures: list[Future[Result]]) -> None:
        """Wait for all hosts; the first Ctrl-C asks them to stop after the step they are in."""
        try:
            while wait(futures, timeout=TICK).not_done:
                pass
        except KeyboardInterrupt:
            self.stop.set()
            wait(futures)

    def host(self, root: HostRoot) -> Result:
        """Apply one host under its lock. Returns its outcome and the addresses at which the plan was stale."""
        well = False
        try:
            outcome, stale = self._in_turn(root)
            well = outcome.ok
        finally:
            self.courier.leave(root.host)
            self.precedence.end(root.host, well=well)
        if not outcome.ok:
            self.failed.append(root.host)
        return outcome, stale

    def _in_turn(self, root: HostRoot) -> Result:
        """Apply one host once those before it are done."""
        try:
            culprit = self.precedence.wait(root.host, self._check)
        except Stopped:
            return self._halted(Outcome(host=root.host, interrupted=True, skipped=self._addresses(root.host))), ()
        if culprit is not None:
            return self._refused(root, (not_begun(root.host, culprit),)), ()
        return self._host(root)

    def _host(self, root: HostRoot) -> Result:
        if not self.plan.hosts[root.host].complete:
            return self._refused(root, self.plan.hosts[root.host].why), ()
        backend = backend_of(root)
        if backend is not None:
            outcome, stale = backend.apply(self._order(root))
            return self._halted(outcome), stale
        ended: list[Result] = []
        try:
            self._under_lock(root, ended)
        except HostError as error:
            # with an end already, the connection was lost before the lock was given back; it is known to be stale then
            return ended[0] if ended else (self._refused(root, (error.diagnostic,)), ())
        except OSError as error:
            return self._refused(root, (_no_access(root, error),)), ()
        except Stopped:
            return self._halted(Outcome(host=root.host, interrupted=True, skipped=self._addresses(root.host))), ()
        return ended[0]

    def _under_lock(self, root: HostRoot, ended: list[Result]) -> None:
        self._check()
        self.emit(HostPhase(host=root.host, phase=Phase.CONNECTING))
        site = connect(root)
        own_state_folder(site)
        with locked(
            site,
            "destroy" if self.plan.destroy else self.how.doing,
            wait=self.how.wait_for_lock,
            force=self.how.break_lock,
            note=lambda text: self.emit(HostPhase(host=root.host, phase=Phase.LOCKING, detail=text)),
            check=self._check,
        ) as still_mine:
            ended.append(self._locked(site, still_mine))

    def _order(self, root: HostRoot) -> Order:
        return Order(
            root=root,
            tree=self.tree.of_host(root.host),
            plan=self.plan,
            secrets=self.secrets,
            emit=self.emit,
            exact=self.how.exact,
            wait=self.how.wait_for_lock,
            break_lock=self.how.break_lock,
            force=self.how.force,
            check=self._check,
        )

    def _check(self) -> None:
        """Raise ``Stopped`` after Ctrl-C and, when that was asked for, once a host has failed."""
        if self.stop.is_set() or (self.how.fail_fast and self.failed):
            raise Stopped

    def _halted(self, outcome: Outcome) -> Outcome:
        """Tell a host that stopped because another one failed from one that was interrupted."""
        if not outcome.interrupted or self.stop.is_set() or not self.failed:
            return outcome
        summary = f"`{outcome.host}` was stopped because `{self.failed[0]}` failed"
        problem = Diagnostic(code="LAB155", summary=summary, hint="put that right and run the same command again")
        return replace(outcome, interrupted=False, diagnostics=(*outcome.diagnostics, problem))

    def _locked(self, site: Site, still_mine: Callable[[], None]) -> Result:
        self.emit(HostPhase(host=site.host, phase=Phase.LOOKING))
        part = self.tree.of_host(site.host)
        seen = self._look(site, part)
        if not seen.complete:
            return self._refused(site.root, seen.why), ()
        generation = self.how.generations.get(site.host)
        fresh = self._plan(seen, part, self._planned_digests(site, part, generation))
        stale = self._moved(site.host, fresh)
        if stale:
            return self._refused(site.root, (_stale(site.host, stale),)), stale
        executor = self._executor(site, part, generation, still_mine)
        last: list[HostDone | HostFailed] = []
        outcome = self._halted(executor.execute(fresh.changes, part, _without(self.emit, last)))
        if self._goes_back(outcome, generation):
            outcome = self._go_back(site, executor, outcome)
        for event in last:
            self.emit(replace(event, diagnostics=outcome.diagnostics) if isinstance(event, HostFailed) else event)
        return outcome, ()

    def _look(self, site: Site, part: Tree) -> SeenHost:
        return SiteObserver(site, managers_of(site), self.secrets.redactor()).observe(part)

    def _planned_digests(self, site: Site, part: Tree, generation: Generation | None) -> SecretDigests | None:
        """Return the digests that the plan was made with."""
        if generation is not None:
            return generation.secret_digests(site.host)
        if not self.plan.secrets_known:
            return None
        key = read_key(site)
        return digests_of(part, self.secrets, key) if key is not None and not self.plan.destroy else {}

    def _executor(
        self, site: Site, part: Tree, generation: Generation | None, still_mine: Callable[[], None]
    ) -> SiteExecutor:
        if generation is not None:
            digests = generation.secret_digests(site.host)
        elif not self.plan.destroy and any(isinstance(a, SecretFile) for a in part.artefacts):
            digests = digests_of(part, self.secrets, ensure_key(site))
        else:
            digests = {}
        return SiteExecutor(
            site=site,
            managers=managers_of(site),
            secrets=self.secrets,
            digests=digests,
            lab=self.plan.lab,
            lab_digest=generation.lab_digest if generation else self.plan.lab_digest,
            plan_digest=hashlib.sha256(plan_to_json(self.plan).encode()).hexdigest(),
            destroy=self.plan.destroy,
            data=self.plan.data,
            whole=not self.plan.only,
            doing=self.how.doing,
            placer=placer_of(site, self.courier),
            kept=None if generation is None else Kept.of(site, generation),
            generation=0 if generation is None else generation.number,
            check=_both(self._check, still_mine),
        )

    def _goes_back(self, outcome: Outcome, generation: Generation | None) -> bool:
        """Whether a unit failed, and not because somebody stopped it or while going back already."""
        units = {c.address for c in self.plan.of_host(outcome.host) if c.kind is Kind.UNIT}
        return not (outcome.interrupted or self.plan.destroy or generation) and not units.isdisjoint(outcome.failed)

    def _go_back(self, site: Site, executor: SiteExecutor, outcome: Outcome) -> Outcome:
        """Bring a host back to its last good generation, by the same means; say so in any case."""
        try:
            known = numbers(site)
            if not known:
                return _with(outcome, _nothing_to_go_back_to(site))
            return self._return_to(site, executor, outcome, read(site, known[-1]))
        except HostError as error:
            return _with(outcome, _stuck(site, (error.diagnostic,)))
        except OSError as error:
            return _with(outcome, _stuck(site, (_no_access(site.root, error),)))

    def _return_to(self, site: Site, executor: SiteExecutor, outcome: Outcome, generation: Generation) -> Outcome:
        because = tuple(sorted(outcome.failed))
        self.emit(RollbackStarted(host=site.host, to=generation.at, because=because))
        part, digests = tree_for(site.root, generation), generation.secret_digests(site.host)
        seen = self._look(site, part)
        if not seen.complete:
            return _with(outcome, _stuck(site, seen.why))
        back = replace(
            executor,
            digests=digests,
            lab_digest=generation.lab_digest,
            kept=Kept.of(site, generation),
            generation=generation.number,
        )
        changes = diff(part, Observed({site.host: seen}), digests).changes
        done = back.execute(changes, part, _without(self.emit, []))
        problems = (*done.diagnostics, *done.failed.values())
        self.emit(RollbackDone(host=site.host, to=generation.at, changes=len(done.done), problems=problems))
        if not done.ok:
            return _with(outcome, _stuck(site, problems))
        return replace(_with(outcome, _went_back(site, generation)), back_to=generation.number)

    def _plan(self, seen: SeenHost, part: Tree, digests: SecretDigests | None) -> Plan:
        observed = Observed({seen.host: seen})
        plan = diff(part, observed, digests, destroy=self.plan.destroy, data=self.plan.data)
        return narrow(plan, part, self.plan.only)

    def _moved(self, host: str, fresh: Plan) -> tuple[str, ...]:
        """Return the addresses at which there is something to do that was not planned (``exact``: or no longer)."""
        planned = replace(self.plan, changes=self.plan.of_host(host))
        return moved(planned, fresh) if self.how.exact else beyond(planned, fresh)

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


def tree_for(root: HostRoot, generation: Generation) -> Tree:
    """Return a generation's tree for a host as it is reached today."""
    kept = [item for item in generation.tree.items() if not isinstance(item, HostRoot)]
    return Tree.of([root, *kept])


def one_at_a_time(emit: Emit) -> Emit:
    """Return an ``emit`` that many threads may call."""
    lock = threading.Lock()

    def emit_one(event: Event) -> None:
        with lock:
            emit(event)

    return emit_one


def _both(one: Callable[[], None], other: Callable[[], None]) -> Callable[[], None]:
    def check() -> None:
        one()
        other()

    return check


def _without(emit: Emit, last: list[HostDone | HostFailed]) -> Emit:
    """Return an ``emit`` that keeps back how a host ended."""

    def filtered(event: Event) -> None:
        if isinstance(event, HostDone | HostFailed):
            last.append(event)
        else:
            emit(event)

    return filtered


def _with(outcome: Outcome, *more: Diagnostic) -> Outcome:
    return replace(outcome, diagnostics=(*outcome.diagnostics, *more))


def _went_back(site: Site, generation: Generation) -> Diagnostic:
    summary = f"`{site.host}` is what it was again: generation {generation.number}, of {generation.at}"
    hint = "nothing of this apply is left there but downloaded models; put the cause right and apply again"
    return Diagnostic(code="LAB149", severity=Severity.WARNING, summary=summary, hint=hint)


def _nothing_to_go_back_to(site: Site) -> Diagnostic:
    summary = f"`{site.host}` stays as it is: no apply went well there before, so there is nothing to go back to"
    return Diagnostic(code="LAB154", severity=Severity.WARNING, summary=summary)


def _stuck(site: Site, why: Iterable[Diagnostic]) -> Diagnostic:
    return Diagnostic(
        code="LAB156",
        summary=f"`{site.host}` could not be brought back to what it was",
        detail="\n".join(f"{d.code}: {d.summary}" for d in why),
        hint="run `labctl rollback` for it, or put the cause right and apply again",
    )


def _stale(host: str, addresses: tuple[str, ...]) -> Diagnostic:
    return Diagnostic(
        code="LAB124",
        summary=f"`{host}` has changed since the plan was made",
        detail="\n".join(addresses),
        hint="make a new plan",
    )


def _no_access(root: HostRoot, error: OSError) -> Diagnostic:
    refused = Diagnostic(
        code="LAB101",
        summary=f"`{root.host}` cannot be worked on: {error.strerror or error}",
        detail=str(error.filename or ""),
        hint="run labctl as a user who may write there, or choose another folder for this host's root",
    )
    return unless_full(root.host, error, refused)
