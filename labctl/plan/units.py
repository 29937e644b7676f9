"""Comparing one unit: what is wanted, what it was last started with, how it is doing now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from labctl.artefact import Artefact, Manager, Unit
from labctl.plan.digests import as_input, same_input
from labctl.plan.model import Action, Change, Kind, Reason, State
from labctl.plan.observed import SecretDigests, SeenHost, SeenUnit, UnitRecord, UnitState
from labctl.workload import Start

Verdict = tuple[Action, Reason]

_ABSENT = SeenUnit(state=UnitState.ABSENT)


def compare_unit(
    unit: Unit,
    host: SeenHost,
    artefacts: Mapping[str, Artefact],
    changes: Sequence[Change],
    secrets: SecretDigests | None,
    turns: frozenset[str] = frozenset(),
) -> Change:
    """Return the change of one wanted unit, given the changes of the host's files and images.

    ``turns`` are the exclusive groups of which a member is to run on the host.
    """
    seen, record = host.units.get(unit.name, _ABSENT), host.manifest.units.get(unit.name)
    causes = _causes(unit, seen, record, artefacts, changes, secrets)
    if _out_of_turn(unit, seen, turns):
        action, reason = Action.STOP, Reason.TURN
    else:
        action, reason = _verdict(unit, seen, record, causes, changes)
    return Change(
        host=unit.host,
        kind=Kind.UNIT,
        name=unit.name,
        action=action,
        reason=reason,
        because=causes if action.changes else (),
        before=_state(seen),
        after=State(
            unit=UnitState.STOPPED if action is Action.STOP else _wanted_state(unit, seen), digest=unit.fingerprint
        ),
        origin=unit.origin,
    )


def taking_turns(units: Iterable[Unit]) -> frozenset[str]:
    """Return the exclusive groups of which one of these units is the member that runs."""
    return frozenset(u.turns for u in units if u.turns is not None and u.start is Start.ALWAYS)


def _out_of_turn(unit: Unit, seen: SeenUnit, turns: frozenset[str]) -> bool:
    """Whether a unit runs while it is another one's turn. What runs in a cluster is stopped through its object."""
    resting = unit.start is Start.ON_DEMAND and unit.turns in turns
    return resting and seen.state.up and unit.manager is not Manager.KUBERNETES


def compare_leftover_unit(host: SeenHost, name: str) -> Change:
    """Return the change of a unit that labctl started and the lab no longer has."""
    seen = host.units.get(name, _ABSENT)
    return Change(
        host=host.host,
        kind=Kind.UNIT,
        name=name,
        action=Action.DELETE,
        reason=Reason.MISSING if seen.state is UnitState.ABSENT else Reason.NO_LONGER_WANTED,
        before=_state(seen),
    )


def _state(seen: SeenUnit) -> State | None:
    if seen.state is UnitState.ABSENT:
        return None
    word = UnitState.RUNNING if seen.state is UnitState.STARTING else seen.state
    return State(unit=word, digest=seen.fingerprint)


def _wanted_state(unit: Unit, seen: SeenUnit) -> str:
    if unit.start is Start.ONCE:
        return UnitState.FINISHED
    if unit.start is Start.ALWAYS or seen.state.up:
        return UnitState.RUNNING
    return UnitState.STOPPED


def _causes(
    unit: Unit,
    seen: SeenUnit,
    record: UnitRecord | None,
    artefacts: Mapping[str, Artefact],
    changes: Sequence[Change],
    secrets: SecretDigests | None,
) -> tuple[str, ...]:
    """Return the paths and images whose change restarts the unit, sorted."""
    touched = {c.name for c in changes if c.kind is not Kind.IMAGE and c.action in {Action.CREATE, Action.UPDATE}}
    rebuilt = {c.name for c in changes if c.kind is Kind.IMAGE and c.action in {Action.CREATE, Action.UPDATE}}
    causes = {path for path in unit.files if path in touched}
    if unit.manager in {Manager.SYSTEMD, Manager.SYSTEMD_USER} and unit.project in touched:
        causes.add(unit.project)
    if seen.image is not None and seen.image in rebuilt:
        causes.add(seen.image)
    if record is not None and record.fingerprint and not record.pending:
        causes |= {
            path
            for path in unit.files
            if path in artefacts and not same_input(record.inputs.get(path), as_input(artefacts[path], secrets))
        }
    return tuple(sorted(causes))


def _verdict(
    unit: Unit, seen: SeenUnit, record: UnitRecord | None, causes: tuple[str, ...], changes: Sequence[Change]
) -> Verdict:
    if record is not None and _moved(unit, record):
        return Action.REPLACE, Reason.DEFINITION_CHANGED
    stale = _staleness(unit, seen, record, causes, changes)
    if unit.start is Start.ONCE:
        return _task(seen, record, stale)
    if seen.state.up:
        return _running(unit, seen, stale, changes)
    if unit.start is Start.ON_DEMAND:
        return _resting(seen, record, stale)
    return _down(seen, record, stale)


def _moved(unit: Unit, record: UnitRecord) -> bool:
    return (record.manager, record.id) != (unit.manager, unit.id)


def _staleness(
    unit: Unit, seen: SeenUnit, record: UnitRecord | None, causes: tuple[str, ...], changes: Sequence[Change]
) -> Reason | None:
    """Return why what runs (or was created) is not what the lab says, None when it is."""
    made_from = seen.fingerprint if seen.fingerprint is not None else record.fingerprint if record else ""
    if not made_from:
        return Reason.INTERRUPTED if record else Reason.UNRECORDED
    if made_from != unit.fingerprint:
        return Reason.DEFINITION_CHANGED
    if record is not None and record.pending:
        return Reason.INTERRUPTED
    if not causes:
        return None
    rotated = {c.name for c in changes if c.reason is Reason.SECRET_ROTATED}
    return Reason.SECRET_ROTATED if rotated >= set(causes) else Reason.DEPENDENCY_CHANGED


def _running(unit: Unit, seen: SeenUnit, stale: Reason | None, changes: Sequence[Change]) -> Verdict:
    if stale is not None:
        return (Action.REPLACE if unit.manager is Manager.COMPOSE else Action.RESTART), stale
    if unit.start is Start.ON_DEMAND:
        return Action.NOOP, Reason.ON_DEMAND
    if seen.state is UnitState.UNHEALTHY:
        return Action.RESTART, Reason.UNHEALTHY
    if seen.enabled is False:
        return Action.UPDATE, Reason.NOT_ENABLED
    if unit.manager is Manager.COMPOSE and _drifted(unit.project, changes):
        return Action.UPDATE, Reason.DRIFTED
    return Action.NOOP, Reason.STARTING if seen.state is UnitState.STARTING else Reason.IN_PLACE


def _task(seen: SeenUnit, record: UnitRecord | None, stale: Reason | None) -> Verdict:
    """Return what becomes of a task: one that ended well with this definition is never run again, wherever it went."""
    if stale is not None:
        return (Action.CREATE, Reason.NEW) if record is None else (Action.START, stale)
    if seen.state is UnitState.FAILED:
        return Action.START, Reason.FAILED
    return Action.NOOP, Reason.STARTING if seen.state.up else Reason.IN_PLACE


def _drifted(path: str, changes: Sequence[Change]) -> bool:
    return any(c.name == path and c.reason in {Reason.DRIFTED, Reason.MISSING} for c in changes)


def _resting(seen: SeenUnit, record: UnitRecord | None, stale: Reason | None) -> Verdict:
    if record is None:
        return Action.CREATE, Reason.NEW
    if seen.state is UnitState.ABSENT:
        return Action.CREATE, Reason.INTERRUPTED if record.pending else Reason.MISSING
    if stale is not None:
        return Action.UPDATE, stale
    return Action.NOOP, Reason.ON_DEMAND


def _down(seen: SeenUnit, record: UnitRecord | None, stale: Reason | None) -> Verdict:
    if record is None:
        return Action.CREATE, Reason.NEW
    if not record.fingerprint or record.pending:
        return Action.START, Reason.INTERRUPTED
    if stale is not None:
        return Action.START, stale
    match seen.state:
        case UnitState.FAILED:
            return Action.START, Reason.FAILED
        case UnitState.ABSENT:
            return Action.START, Reason.MISSING
        case _:
            return Action.START, Reason.STOPPED
