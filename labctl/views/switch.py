"""The exclusive groups of a lab, and whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from labctl.plan.observed import UnitState
from labctl.switching import GroupStatus
from labctl.views.plan import printable
from labctl.views.table import table


def render_groups(groups: Sequence[GroupStatus]) -> str:
    """Return every group with its members; a sentence when there is none."""
    if not groups:
        return "this lab has no exclusive groups"
    return "\n\n".join("\n".join(_group(found)) for found in groups)


def _group(found: GroupStatus) -> Iterator[str]:
    if found.turn is not None:
        said = f"  switched to `{found.turn.member}` by {found.turn.by} at {found.turn.at}"
        yield printable(f"{found.group.name}{said}; lab.yaml says `{found.turn.instead_of}`")
    else:
        yield printable(f"{found.group.name}" + ("" if found.member else "  started on demand"))
    yield from table([("  ", member, state(found, member)) for member in found.group.members])


def state(found: GroupStatus, member: str) -> str:
    """Return how a member is doing, in a few words."""
    states = [row.seen.state for row in found.units if row.member == member]
    mine = member == found.member
    words = ", ".join(dict.fromkeys(str(s) for s in states)) or "not placed"
    wrong = mine and any(s is not UnitState.RUNNING for s in states)
    return f"{'● ' if mine else '  '}{words}{'  (it is its turn)' if wrong else ''}"


def groups_to_value(groups: Sequence[GroupStatus]) -> list[dict[str, Any]]:
    """Return the groups as plain values."""
    return [
        {
            "group": found.group.name,
            "active": found.member,
            "lab_says": found.group.active,
            "switched": None if found.turn is None else {"by": found.turn.by, "at": found.turn.at},
            "members": [
                {
                    "name": member,
                    "units": [
                        {"host": row.host, "unit": row.unit, "state": str(row.seen.state)}
                        for row in found.units
                        if row.member == member
                    ],
                }
                for member in found.group.members
            ],
        }
        for found in groups
    ]
