"""Steps that start, restart and stop units: exactly those that the plan names, each once its needs are healthy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import field
from typing import Final
from urllib.parse import urlsplit

from labctl.artefact import SYSTEM, Manager, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, LostError, Ref, Stopped, UnitManager
from labctl.hosts.events import LogLine
from labctl.hosts.health import await_healthy, refuse_taken_port
from labctl.hosts.settling import settle
from labctl.hosts.work import Work
from labctl.plan.ledger import confirm_unit, forget_units
from labctl.plan.model import Action, Change, Kind, Reason
from labctl.plan.observed import SeenUnit, UnitState
from labctl.plan.order import needs
from labctl.values import dataclass
from labctl.workload import Start

LAST_LINES: Final = 20
"""Log lines shown of a unit that failed."""


def validate(work: Work) -> None:
    """Let managers check changed files that no program of the host has checked; what they refuse is not activated."""
    changed = {c.name for c in work.todo(Kind.FILE) if c.action is not Action.DELETE}
    for name in sorted({u.manager for u in work.units.values()}):
        mine = [u for u in work.units.values() if u.manager == name]
        projects = sorted({u.project for u in mine} & changed)
        if not projects or work.managers[name].checks(projects):
            continue
        try:
            work.managers[name].validate(projects)
        except HostError as error:
            _refuse(work, {u.name for u in mine}, projects, error)


def _refuse(work: Work, names: set[str], projects: list[str], error: HostError) -> None:
    work.broken.update(projects)
    for change in work.todo(Kind.UNIT):
        if change.name in names:
            work.fail(change, error.diagnostic)


def remove_units(work: Work) -> None:
    """Stop units that the lab no longer has, before anything starts: they may hold ports and memory.

    What cannot be stopped is tried once more when the others have gone: a gateway starts servers as long as it runs.
    """
    gone = [c for c in reversed(work.todo(Kind.UNIT)) if c.action is Action.DELETE]
    for change in gone:
        _remove(work, change)
    for change in gone[:-1]:
        if change.address in work.failed:
            work.forgive(change)
            _remove(work, change)


def _remove(work: Work, change: Change) -> None:
    ref = work.old_ref(change.name)
    if ref is None or ref.record is None:
        return
    with work.making(change):
        work.manager(ref.record.manager).forget(ref)
        work.retired.add(ref.record.manager)
        work.save(forget_units(work.manifest, [change.name]))
    if ref.id == SYSTEM and change.address in work.failed:
        raise HostError(work.failed[change.address])  # what its services read must stay


def remove_again(work: Work) -> None:
    """Stop what somebody has started since it was removed: a gateway starts servers for as long as it runs."""
    for name in sorted(work.retired):
        gone = [(n, r) for n, r in work.initial_units.items() if r.manager == name and n not in work.manifest.units]
        refs = [Ref(name=n, id=r.id, project=r.project, group=r.group, record=r) for n, r in gone]
        seen = work.managers[name].observe(refs)
        for ref in refs:
            if seen[ref.name].state not in {UnitState.ABSENT, UnitState.STOPPED, UnitState.FINISHED}:
                work.managers[name].forget(ref)


def close_projects(work: Work) -> None:
    """Let managers put away projects of which no unit is left: networks, daemons."""
    left = {(u.manager, u.project) for u in work.units.values()}
    left |= {(r.manager, r.project) for r in work.manifest.units.values()}
    before = work.initial_units
    for name in sorted({r.manager for r in before.values()}):
        refs = [
            Ref(name=n, id=r.id, project=r.project, group=r.group, record=r)
            for n, r in sorted(before.items())
            if r.manager == name and (r.manager, r.project) not in left
        ]
        if refs:
            work.managers[name].finish(refs, data=work.data)


def run_units(work: Work) -> None:
    """Start, restart, create and enable what the plan says, in order; wait for health where somebody needs it."""
    running = _Run(work)
    running.settle()
    running.begin()
    running.stop_moving()
    for change in [c for c in running.changes if c.action is Action.STOP]:
        running.end_turn(change)
    for change in [c for c in running.changes if c.action is not Action.STOP]:
        running.activate(change)
    running.await_all()


@dataclass(slots=True)
class _Run:
    """Units on their way up."""

    work: Work
    waiting: dict[str, Change] = field(default_factory=dict)
    starting: dict[str, Change] = field(default_factory=dict)

    @property
    def changes(self) -> list[Change]:
        """The unit changes that are still to be made."""
        todo = self.work.todo(Kind.UNIT)
        return [c for c in todo if c.action is not Action.DELETE and c.address not in self.work.failed]

    def settle(self) -> None:
        """Count units that were still starting when they were looked at: others may wait for them."""
        starting = [c for c in self.work.changes if c.action is Action.NOOP and c.reason is Reason.STARTING]
        self.starting.update({c.name: c for c in starting if c.kind is Kind.UNIT})

    def begin(self) -> None:
        """Tell each manager once which units will be touched; a manager that cannot begin fails all its units."""
        units = [self.work.units[c.name] for c in self.changes]
        for name in sorted({u.manager for u in units}):
            mine = [u for u in units if u.manager == name]
            try:
                self.work.manager(name).begin([self.work.ref(u) for u in mine])
            except HostError as error:
                for change in [c for c in self.changes if c.name in {u.name for u in mine}]:
                    self.work.fail(change, error.diagnostic)

    def stop_moving(self) -> None:
        """Stop units whose port changes before any unit starts: another one may be about to take it."""
        for change in self.changes:
            unit, old = self.work.units[change.name], self.work.old_ref(change.name)
            if old is None or old.record is None or old.record.check is None or not change.action.runs:
                continue
            if old.record.manager is Manager.NIXOS:
                continue  # a new system stops what changes before it starts anything
            if unit.check is None or urlsplit(old.record.check).netloc != urlsplit(unit.check).netloc:
                self.work.step()
                self.work.managers[old.record.manager].stop(old)

    def end_turn(self, change: Change) -> None:
        """Stop a member of an exclusive group, and see that it is gone, before another member starts."""
        work, unit = self.work, self.work.units[change.name]
        manager, ref, old = work.managers[unit.manager], work.ref(unit), work.old_ref(unit.name)
        with work.making(change):
            if old is not None and old.record is not None and (old.record.manager, old.id) != (unit.manager, unit.id):
                work.managers[old.record.manager].forget(old)
            manager.stop(ref)
            if manager.observe([ref]).get(ref.name, SeenUnit(state=UnitState.ABSENT)).state.up:
                raise HostError(_still_up(unit))
            manager.create(ref)
            work.save(confirm_unit(work.manifest, unit, ref.group, work.artefacts, work.digests))

    def rivals(self, unit: Unit) -> set[str]:
        """Return the members of a unit's group that were to be stopped for it."""
        stopped = {c.name for c in self.work.todo(Kind.UNIT) if c.action is Action.STOP}
        return {n for n in stopped if unit.turns is not None and self.work.units[n].turns == unit.turns} - {unit.name}

    def activate(self, change: Change) -> None:
        """Make one unit's change, once everything that it needs is healthy."""
        work, unit = self.work, self.work.units[change.name]
        waited = [self.await_one(needed.name) for needed in needs(unit, work.units.values())]
        if any(waited):
            settle(work.site, work.check)
        needed_names = {n.name for n in needs(unit, work.units.values())}
        broken = sorted(work.broken & ({unit.project, *unit.files} | needed_names | self.rivals(unit)))
        if broken:
            work.skip(change, f"it needs `{broken[0]}`")
            return
        work.step()
        work.started(change)
        try:
            if change.action.runs or unit.start is not Start.ON_DEMAND:
                refuse_taken_port(work.site, work.managers[unit.manager], work.ref(unit), unit)
            self._act(change, unit)
        except LostError:
            raise
        except HostError as error:
            self._failed(change, error)
            return
        if change.action.runs or (change.action is Action.CREATE and unit.start is not Start.ON_DEMAND):
            self.waiting[change.name] = change
        else:
            self._done(change)

    def _act(self, change: Change, unit: Unit) -> None:
        work = self.work
        manager, ref, old = work.managers[unit.manager], work.ref(unit), work.old_ref(unit.name)
        if old is not None and old.record is not None and (old.record.manager, old.id) != (unit.manager, unit.id):
            work.managers[old.record.manager].forget(old)
        match change.action:
            case Action.CREATE if unit.start is Start.ON_DEMAND:
                manager.create(ref)
            case Action.CREATE | Action.START if unit.start is Start.ONCE:
                manager.start(ref, anew=True)
            case Action.UPDATE:
                manager.create(ref)
            case Action.CREATE | Action.START:
                manager.start(ref, anew=bool(change.because))
            case Action.REPLACE if unit.start is Start.ON_DEMAND and not _was_up(change):
                manager.create(ref)
            case _:
                manager.start(ref, anew=True)

    def await_all(self) -> None:
        """Wait for every unit that was started."""
        for name in list(self.waiting):
            self.await_one(name)

    def await_one(self, name: str) -> bool:
        """Wait for a unit, if it was started just now, here or by somebody else; tell whether it was."""
        change = self.waiting.pop(name, None) or self.starting.pop(name, None)
        if change is None:
            return False
        work, unit = self.work, self.work.units[name]
        manager, ref = work.managers[unit.manager], work.ref(unit)
        try:
            await_healthy(work.site, manager, ref, unit, work.emit, work.check)
        except LostError:
            raise
        except HostError as error:
            _show_log(work, manager, ref)
            self._failed(change, error)
        else:
            if change.action.changes:
                self._done(change)
        return True

    def _done(self, change: Change) -> None:
        work, unit = self.work, self.work.units[change.name]
        work.save(confirm_unit(work.manifest, unit, work.ref(unit).group, work.artefacts, work.digests))
        work.done.append(change.address)
        work.finished(change)

    def _failed(self, change: Change, error: HostError) -> None:
        self.work.fail(change, error.diagnostic)
        self.work.finished(change)


def _still_up(unit: Unit) -> Diagnostic:
    return Diagnostic(
        code="LAB180",
        summary=f"`{unit.name}` still runs after it was stopped: nothing else of `{unit.turns}` was started",
        path=unit.origin or None,
        hint=f"see why: labctl logs {unit.name}",
    )


def _was_up(change: Change) -> bool:
    return change.before is not None and change.before.unit in {"running", "starting", "unhealthy"}


def _show_log(work: Work, manager: UnitManager, ref: Ref) -> None:
    try:
        lines: Iterator[str] = manager.logs(ref, lines=LAST_LINES, follow=False)
        for line in itertools.islice(lines, LAST_LINES * 2):
            work.emit(LogLine(host=work.site.host, unit=ref.name, text=work.redact(line)))
    except (HostError, OSError, Stopped):
        return


def adopt_units(work: Work) -> None:
    """Record running units that are as wanted but unknown, as after a lost manifest: they are ours by their label."""
    for change in work.changes:
        known = change.name in work.manifest.units or change.name not in work.units
        if change.kind is Kind.UNIT and change.action is Action.NOOP and not known:
            unit = work.units[change.name]
            work.save(confirm_unit(work.manifest, unit, work.ref(unit).group, work.artefacts, work.digests))


def nothing_left(work: Work) -> None:
    """HostError (LAB117) when something of what was destroyed still runs."""
    records = work.initial_units
    for name in sorted({r.manager for r in records.values()}):
        refs = [
            Ref(name=n, id=r.id, project=r.project, group=r.group, record=r)
            for n, r in sorted(records.items())
            if r.manager == name
        ]
        left = work.managers[name].leftovers(refs)
        if left:
            summary = f"not everything has gone from `{work.site.host}`: {', '.join(left)}"
            raise HostError(Diagnostic(code="LAB117", summary=summary))
