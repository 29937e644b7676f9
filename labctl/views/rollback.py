"""What a host can go back to."""

from __future__ import annotations

from typing import Any, Final

from labctl.hosts.generations import Generation, Overview
from labctl.views.plan import printable
from labctl.views.table import table

_HEAD: Final = ("generation", "of", "lab", "units", "")


def render_generations(known: Overview) -> str:
    """Return a table, newest first; a sentence when there is nothing."""
    if not known.generations:
        return "no generation is kept there: one is after every apply that goes well"
    rows = [_cells(g, current=g.number == known.current) for g in reversed(known.generations)]
    return "\n".join(line.rstrip() for line in table([_HEAD, *rows]))


def generations_to_value(known: Overview) -> list[dict[str, Any]]:
    """Return the generations as plain values, newest first."""
    return [
        {
            "number": g.number,
            "at": g.at,
            "lab": g.lab,
            "lab_digest": g.lab_digest,
            "units": [u.name for u in g.tree.units],
            "current": g.number == known.current,
        }
        for g in reversed(known.generations)
    ]


def _cells(generation: Generation, *, current: bool) -> tuple[str, ...]:
    units = ", ".join(u.name for u in generation.tree.units)
    here = "the host as it is" if current else ""
    return tuple(printable(c) for c in (str(generation.number), generation.at, generation.lab, units, here))
