"""Who applied what, when, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from labctl.hosts.history import Entry
from labctl.views.plan import printable
from labctl.views.table import table

_HEAD: Final = ("when", "host", "who", "what", "how it ended")


def render_history(entries: Sequence[Entry]) -> str:
    """Return a table, oldest first; a sentence when there is nothing."""
    if not entries:
        return "nothing has been applied to these hosts yet"
    return "\n".join(table([_HEAD, *(_cells(entry) for entry in entries)]))


def history_to_value(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the entries as plain values."""
    return [asdict(entry) for entry in entries]


def _cells(entry: Entry) -> tuple[str, ...]:
    who, what = f"{entry.user}@{entry.machine}", f"{entry.action} {entry.lab}"
    cells = (entry.at, entry.host, who, what, _end(entry))
    return tuple(printable(cell.strip()) for cell in cells)


def _end(entry: Entry) -> str:
    changes = f"{entry.done} change{'' if entry.done == 1 else 's'}"
    failed = f"; failed: {', '.join(entry.failed[:3])}{' …' if len(entry.failed) > 3 else ''}" if entry.failed else ""
    return f"{entry.result}, {changes}{failed}"
