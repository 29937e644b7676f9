"""The order in which units start, and in which roots are worked on: after what they need, by name among equals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

from labctl.artefact import HostRoot, Unit


def needs(unit: Unit, units: Iterable[Unit]) -> tuple[Unit, ...]:
    """Return the units that ``unit`` waits for, by name; ``after`` may name a workload or its manager's id."""
    wanted = frozenset(unit.after)
    return tuple(sorted((u for u in units if u is not unit and {u.name, u.id} & wanted), key=lambda u: u.name))


def start_order(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """Return the units of one host so that each comes after everything in its ``after``.

    By depth and then by name: whatever needs nothing starts first, so that slow starts overlap. Total and stable. A
    circle, which rendering refuses, is cut where it is met.
    """
    everything = sorted(units, key=lambda u: u.name)
    depths: dict[str, int] = {}

    def depth(unit: Unit, above: frozenset[str]) -> int:
        if unit.name not in depths:
            below = [n for n in needs(unit, everything) if n.name not in above]
            depths[unit.name] = max((depth(n, above | {unit.name}) + 1 for n in below), default=0)
        return depths[unit.name]

    return tuple(sorted(everything, key=lambda u: (depth(u, frozenset({u.name})), u.name)))


def predecessors(roots: Iterable[HostRoot], *, backwards: bool = False) -> Mapping[str, frozenset[str]]:
    """Return, for each root, those of the others that have to be done before it, in an order in which that works.

    Roots that are not given are left out: nobody waits for them. CycleError when roots wait for each other, which no
    target asks for.
    """
    known = {root.host: root for root in roots}
    found: dict[str, set[str]] = {name: set() for name in known}
    for root in known.values():
        for other in known.keys() & set(root.after):
            first, then = (root.host, other) if backwards else (other, root.host)
            found[then].add(first)
    order = TopologicalSorter({name: sorted(found[name]) for name in sorted(found)})
    return {name: frozenset(found[name]) for name in order.static_order()}
