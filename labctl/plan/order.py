"""The order in which units start: after what they need, by name among equals."""

from __future__ import annotations

from collections.abc import Iterable

from labctl.artefact import Unit


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
