"""What was declared beside what runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from labctl.hosts.fleet import UnitStatus
from labctl.plan.observed import UnitState
from labctl.views.plan import printable
from labctl.workload import Start

_MARKS: Final = {
    UnitState.RUNNING: "●",
    UnitState.STARTING: "◐",
    UnitState.UNHEALTHY: "✗",
    UnitState.STOPPED: "○",
    UnitState.FINISHED: "✓",
    UnitState.FAILED: "✗",
    UnitState.ABSENT: "·",
}
_WANTED: Final = {Start.ALWAYS: "running", Start.ON_DEMAND: "on demand", Start.ONCE: "finished"}
_HEAD: Final = ("", "unit", "host", "state", "wanted", "runs from", "detail")


def render_status(rows: Sequence[UnitStatus]) -> str:
    """Return a table of all units, without a final line end; a sentence when there is none."""
    if not rows:
        return "this lab has no units"
    table = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    wrong = [row for row in rows if not is_fine(row)]
    count = f"{len(rows)} unit{'' if len(rows) == 1 else 's'}"
    last = f"{count}, all as wanted" if not wrong else f"{len(wrong)} of {len(rows)} units need attention"
    return "\n".join([*lines, "", last])


def status_to_value(rows: Sequence[UnitStatus]) -> list[dict[str, Any]]:
    """Return the table as plain values."""
    return [
        {
            "host": row.host,
            "unit": row.unit.name,
            "manager": str(row.unit.manager),
            "wanted": str(row.unit.start),
            "state": str(row.seen.state),
            "current": row.current,
            "ok": is_fine(row),
            "detail": row.seen.detail,
            "since": row.seen.since,
        }
        for row in rows
    ]


def is_fine(row: UnitStatus) -> bool:
    """Whether a unit is as the lab wants it: up and current, resting where it runs on demand, a task done."""
    if row.seen.state is UnitState.RUNNING:
        return row.current is not False
    if row.unit.start is Start.ONCE:
        return row.seen.state is UnitState.FINISHED or (not row.seen.state.up and row.current is True)
    return row.unit.start is Start.ON_DEMAND and row.seen.state in {UnitState.STOPPED, UnitState.STARTING}


def _cells(row: UnitStatus) -> tuple[str, ...]:
    current = {True: "this lab", False: "an older one", None: "-"}[row.current]
    return (
        _MARKS[row.seen.state],
        row.unit.name,
        row.host,
        str(row.seen.state),
        _WANTED[row.unit.start],
        current,
        printable(row.seen.detail),
    )
