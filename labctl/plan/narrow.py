"""Working on some units only: the part of a host's changes that concerns them and what they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from labctl.artefact import Tree
from labctl.plan.model import Action, Change, Kind, Plan
from labctl.plan.order import needs


def narrow(plan: Plan, tree: Tree, only: Iterable[str]) -> Plan:
    """Return the part of a plan about named units, what they wait for, and the files and images they are made of.

    Files and units that are no longer wanted stay, unless such a unit is named. Of a group that takes turns, whoever
    has to make way stops. In a cluster there is no telling objects apart: all of them, or none. A definition that
    several units share is written whole; the others are restarted by the next apply that is about them.

    Args:
        plan: everything.
        tree: what it was made for.
        only: names of units; none: the plan stays as it is.
    """
    names = tuple(sorted(set(only)))
    if not names:
        return plan
    changes = (c for host in plan.hosts for c in _of_host(plan.of_host(host), tree.of_host(host), names))
    return replace(plan, changes=tuple(changes), only=names)


def _of_host(changes: Sequence[Change], tree: Tree, only: Iterable[str]) -> list[Change]:
    chosen = _with_needs(tree, frozenset(only))
    paths = {path for unit in tree.units if unit.name in chosen for path in (unit.project, *unit.files)}
    mine = [unit for unit in tree.units if unit.name in chosen]
    here, groups = bool(mine), {unit.turns for unit in mine if unit.turns}
    rivals = {unit.name for unit in tree.units if unit.turns in groups}
    contexts = tuple(f"{image.context.rstrip('/')}/" for image in tree.images) if here else ()

    def wanted(change: Change) -> bool:
        match change.kind:
            case Kind.UNIT:
                return change.name in chosen or (change.action is Action.STOP and change.name in rivals)
            case Kind.IMAGE:
                return here and change.action is not Action.DELETE
            case Kind.FILE | Kind.SECRET | Kind.MODEL:
                return change.name in paths or change.name.startswith(contexts)
            case Kind.OBJECT:
                return here
            case Kind.HOST:
                return True

    return [change for change in changes if wanted(change)]


def _with_needs(tree: Tree, names: frozenset[str]) -> frozenset[str]:
    """Return names with those of every unit that has to be healthy before one of them starts."""
    found, todo = set(names), [unit for unit in tree.units if unit.name in names]
    while todo:
        for needed in needs(todo.pop(), tree.units):
            if needed.name not in found:
                found.add(needed.name)
                todo.append(needed)
    return frozenset(found)
