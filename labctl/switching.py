"""``labctl switch``: another member of an exclusive group gets its turn. No typer, no rich.

A switch is an apply of the lab as if its file named that member; what it may change is the group's members and nothing
else. The hosts remember it first, so that the apply after a switch that was cut off finishes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from labctl import operate
from labctl.diagnostics import Diagnostic, LabctlError
from labctl.hosts import fleet, turns
from labctl.hosts.applying import How
from labctl.hosts.base import HostError
from labctl.hosts.events import Event, RollbackDone
from labctl.hosts.fleet import Report
from labctl.hosts.state import now, who
from labctl.operate import Emit, Scope, Work
from labctl.plan import turns as decide
from labctl.plan.model import Change, Kind
from labctl.plan.observed import SeenUnit
from labctl.plan.turns import Group, Turn, Turns
from labctl.usecases import Loaded, with_active
from labctl.values import dataclass

SHOWN = 3
"""Changes that are named when there are others than the switch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberUnit:
    """A unit of a group's member, with its live state."""

    member: str
    host: str
    unit: str
    seen: SeenUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """An exclusive group as it stands.

    Attributes:
        group: as lab.yaml has it.
        member: whose turn it is; None when all are started on demand.
        turn: the switch that holds, None when lab.yaml decides.
        units: its members' units with their live states.
    """

    group: Group
    member: str | None
    turn: Turn | None
    units: tuple[MemberUnit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A switch that is about to be made. ``member`` may be the one that has its turn already."""

    group: Group
    member: str
    work: Work
    before: Turns
    after: Turns


def groups(loaded: Loaded, name: str = "") -> tuple[tuple[GroupStatus, ...], tuple[Diagnostic, ...]]:
    """Return all exclusive groups, or one, with who runs, and the problems of hosts that could not be asked."""
    stands, found = operate.as_it_stands(loaded)
    wanted = (_known(found, name),) if name else found.groups
    units = {unit: member for group in wanted for unit, member in units_of(stands, group).items()}
    hosts = sorted({u.host for u in operate.tree_of(stands).units if u.name in units})
    rows, problems = fleet.status(operate.tree_of(stands, hosts)) if hosts else ((), ())
    status = tuple(
        GroupStatus(
            group=group,
            member=found.of(group),
            turn=found.switched.get(group.name),
            units=tuple(
                MemberUnit(member=units[row.unit.name], host=row.host, unit=row.unit.name, seen=row.seen)
                for row in rows
                if units.get(row.unit.name) in group.members
            ),
        )
        for group in wanted
    )
    return status, operate.locate(loaded, problems)


def prepare(loaded: Loaded, name: str, member: str) -> Switch:
    """Plan a switch. LabctlError for unknown names, or when the lab has changes of its own that are not applied."""
    stands, before = operate.as_it_stands(loaded)
    group = _group(before, name, member)
    after = decide.switch(before, group, member, at=now(), by="{user}@{machine}".format(**who()))
    switched = with_active(loaded, after.active)
    hosts = sorted({u.host for u in operate.tree_of(stands).units if u.turns == name})
    scope, secrets = Scope(hosts=tuple(hosts)), operate.known_secrets(stands, operate.tree_of(stands, hosts))
    observed = operate.look(stands, scope, secrets)
    as_it_is = operate.plan_of(stands, before, scope, secrets, observed)
    _refuse_others(group, as_it_is, frozenset(units_of(stands, group)))
    clusters = any(root.cluster for root in operate.tree_of(stands, hosts).roots.values())
    # what a cluster was seen to be holds the server's word on the objects it was asked about: they are others now
    work = operate.plan_of(switched, after, scope, secrets, None if clusters else observed)
    return Switch(group=group, member=member, work=work, before=before, after=after)


def carry_out(switch: Switch, emit: Emit, how: How | None = None) -> Report:
    """Make a switch: stop who runs, see that it has gone, start the other one, wait until it is healthy.

    When hosts went back to how they were, they forget it, too. LabctlError when a host cannot remember it.
    """
    back: list[str] = []

    def watched(event: Event) -> None:
        if isinstance(event, RollbackDone) and not event.problems:
            back.append(event.host)
        emit(event)

    _remember(switch, switch.after)
    report = operate.apply(switch.work, watched, replace(how or How(), doing="switch"))
    if back:
        _remember(switch, switch.before)
    return report


def keep(switch: Switch) -> None:
    """Remember a switch for which nothing has to be done: that member runs already."""
    if switch.after.switched != switch.before.switched:
        _remember(switch, switch.after)


def units_of(loaded: Loaded, group: Group) -> Mapping[str, str]:
    """Return the units of a group's members: unit → deployment."""
    servers = loaded.need_placed().servers
    return {server.name: server.deployment for server in servers if server.deployment in group.members}


def _remember(switch: Switch, found: Turns) -> None:
    names = [switch.group.name]
    try:
        turns.write_turns(turns.roots_of(switch.work.tree, names), names, found.switched.values())
    except HostError as error:
        raise LabctlError([error.diagnostic]) from error
    except OSError as error:
        summary = f"the switch cannot be remembered: {error.strerror or error}"
        raise LabctlError([Diagnostic(code="LAB101", summary=summary, detail=str(error.filename or ""))]) from error


def _known(found: Turns, name: str) -> Group:
    known = {group.name: group for group in found.groups}
    if name not in known:
        raise LabctlError([_unknown("exclusive group", name, known)])
    return known[name]


def _group(found: Turns, name: str, member: str) -> Group:
    group = _known(found, name)
    if member not in group.members:
        raise LabctlError([_unknown(f"member of `{name}`", member, group.members)])
    if group.active is None:
        summary = f"the members of `{name}` are started on demand, by whoever wants them"
        hint = "ask the gateway for one; or let one run always: remove `start: on-demand`"
        raise LabctlError([Diagnostic(code="LAB183", summary=summary, path=("groups", name), hint=hint)])
    return group


def _unknown(what: str, name: str, known: Iterable[str]) -> Diagnostic:
    names = ", ".join(f"`{k}`" for k in known) or "none"
    return Diagnostic(code="LAB053", summary=f"there is no {what} called `{name}`", hint=f"known: {names}")


def _refuse_others(group: Group, work: Work, members: frozenset[str]) -> None:
    """A switch changes whose turn it is. Whatever else there is to do belongs to an apply that shows it."""
    if not work.plan.complete:
        raise LabctlError(work.plan.diagnostics)
    others = [c for c in work.plan.todo if not _of_group(c, members)]
    if others:
        named = ", ".join(f"`{c.address}`" for c in others[:SHOWN]) + (" …" if len(others) > SHOWN else "")
        raise LabctlError(
            [
                Diagnostic(
                    code="LAB182",
                    summary=f"there is more to do than to switch `{group.name}`: {named}",
                    hint="see it with `labctl plan`, do it with `labctl apply`; then switch",
                )
            ]
        )


def _of_group(change: Change, members: frozenset[str]) -> bool:
    return change.kind is Kind.UNIT and change.name in members
