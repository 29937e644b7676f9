"""What was declared beside what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from labctl.hosts.fleet import UnitStatus
from labctl.hosts.state import Lock
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


def render_status(rows: Sequence[UnitStatus], locks: Mapping[str, Lock] | None = None) -> str:
    """Return a table of all units, without a final line end, and who holds a lock; a sentence when there is no unit."""
    held = [_held(host, lock) for host, lock in (locks or {}).items()]
    if not rows:
        return "\n".join(["this lab has no units", *held])
    table = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    wrong = [row for row in rows if not is_fine(row)]
    count = f"{len(rows)} unit{'' if len(rows) == 1 else 's'}"
    last = f"{count}, all as wanted" if not wrong else f"{len(wrong)} of {len(rows)} units need attention"
    return "\n".join([*lines, "", *held, last])


def _held(host: str, lock: Lock) -> str:
    if lock.stale:
        return f"{printable(host)}: a lock was left behind by {printable(str(lock.holder))}; the next apply takes it"
    return f"{printable(host)}: locked by {printable(str(lock.holder))}"


def locks_to_value(locks: Mapping[str, Lock]) -> list[dict[str, Any]]:
    """Return the locks as plain values."""
    return [{"for": host, "stale": lock.stale, **asdict(lock.holder)} for host, lock in locks.items()]


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
