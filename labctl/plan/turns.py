"""Whose turn it is in the lab's exclusive groups: what lab.yaml says, and what somebody switched by hand since.

A switch holds until lab.yaml names another active member than it did then, or the switched one leaves the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from labctl.diagnostics import Diagnostic, Severity
from labctl.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An exclusive group as lab.yaml has it.

    Attributes:
        name: its key in ``groups``.
        members: its deployments.
        active: the one that apply runs; None when all of them are started on demand.
    """

    name: str
    members: tuple[str, ...]
    active: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What ``labctl switch`` leaves on the hosts of a group.

    Attributes:
        group, member: who runs instead.
        instead_of: what lab.yaml said then.
        at: when, ISO 8601; ``by``: who, as ``user@machine``.
    """

    group: str
    member: str
    instead_of: str
    at: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Turns:
    """Whose turn it is.

    Attributes:
        groups: as lab.yaml has them.
        switched: group → the switch that holds.
        over: groups with a switch that no longer holds; it is to be forgotten.
    """

    groups: tuple[Group, ...] = ()
    switched: Mapping[str, Turn] = field(default_factory=dict)
    over: tuple[str, ...] = ()

    @property
    def active(self) -> Mapping[str, str]:
        """Group → its active member, where that is not the one of lab.yaml."""
        return {name: turn.member for name, turn in self.switched.items()}

    def of(self, group: Group) -> str | None:
        """Return the member whose turn it is in a group."""
        return self.active.get(group.name, group.active)


def standing(groups: Sequence[Group], found: Iterable[Turn]) -> Turns:
    """Return whose turn it is.

    Args:
        groups: as lab.yaml has them.
        found: what the hosts remember; of several for one group the latest counts (a switch that was cut off).
    """
    latest: dict[str, Turn] = {}
    for turn in sorted(found, key=lambda t: (t.at, t.member)):
        latest[turn.group] = turn
    known = {group.name: group for group in groups}
    switched = {name: turn for name, turn in latest.items() if name in known and _holds(turn, known[name])}
    return Turns(tuple(groups), switched, tuple(sorted(latest.keys() - switched.keys())))


def _holds(turn: Turn, group: Group) -> bool:
    wanted = turn.member in group.members and turn.instead_of == group.active
    return wanted and turn.member != group.active


def switch(turns: Turns, group: Group, member: str, *, at: str, by: str) -> Turns:
    """Return whose turn it is after a switch; back to lab.yaml's own member when that is the one."""
    switched = {name: turn for name, turn in turns.switched.items() if name != group.name}
    if group.active is not None and member != group.active:
        turn = Turn(group=group.name, member=member, instead_of=group.active, at=at, by=by)
        switched[group.name] = turn
    return Turns(turns.groups, switched)


def notes(turns: Turns) -> Mapping[str, Diagnostic]:
    """Return by group what to say about its switch that holds."""
    return {name: _note(turn) for name, turn in sorted(turns.switched.items())}


def _note(turn: Turn) -> Diagnostic:
    return Diagnostic(
        code="LAB181",
        severity=Severity.NOTE,
        summary=f"group `{turn.group}` was switched by hand to `{turn.member}`; lab.yaml says `{turn.instead_of}`",
        detail=f"by {turn.by} at {turn.at}" if turn.by else "",
        path=("groups", turn.group),
        hint=f"to keep it, write `active: {turn.member}`; to go back: labctl switch {turn.group} {turn.instead_of}",
    )
