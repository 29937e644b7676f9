"""An apply on a terminal: rows that change in place. The only module that loads rich."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from labctl.hosts.events import (
    ChangeDone,
    ChangeStarted,
    Event,
    HostDone,
    HostFailed,
    HostPhase,
    HostStarted,
    LogLine,
    Progress,
    RollbackDone,
    RollbackStarted,
    Waiting,
)
from labctl.values import dataclass
from labctl.views.plan import printable
from labctl.views.progress import View, bytes_of, line_of


@dataclass(slots=True)
class _Row:
    """One host on the screen."""

    total: int = 0
    done: int = 0
    now: Mapping[str, str] = field(default_factory=dict)
    """Address → what is going on there."""


class LiveProgress(View):
    """Rows that change in place: per host a count, and what is going on right now. Log lines scroll above them."""

    def __init__(self, err: TextIO) -> None:
        self._console = Console(file=err, highlight=False)
        self._live = Live("", console=self._console, transient=True, refresh_per_second=8)
        self._rows: dict[str, _Row] = {}

    def __enter__(self) -> Self:
        """Take the screen."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the screen back."""
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        row = self._rows.setdefault(event.host, _Row())
        lasting = _move(row, event)
        if lasting is not None:
            self._console.print(Text(lasting))
        self._live.update(Text("\n".join(_screen(self._rows))))


def _move(row: _Row, event: Event) -> str | None:
    """Take an event into a row; return the line that stays on the screen."""
    now = dict(row.now)
    match event:
        case HostStarted(changes=changes):
            row.total = changes
        case ChangeStarted(address=address, action=action):
            now[address] = str(action)
        case ChangeDone(address=address):
            now.pop(address, None)
            row.done += 1
        case Waiting(unit=unit, seconds=seconds, limit=limit):
            now[f"{event.host}/{unit}"] = f"waiting until it is healthy, {seconds:.0f} of {limit:.0f} s"
        case Progress(path=path, done=done, total=total):
            now[f"{event.host}:{path}"] = bytes_of(done, total)
        case HostPhase() | LogLine() | RollbackStarted() | RollbackDone() | HostDone() | HostFailed():
            pass
    row.now = now
    return None if isinstance(event, Waiting | Progress | HostStarted) else line_of(event)


def _screen(rows: Mapping[str, _Row]) -> list[str]:
    lines: list[str] = []
    for host, row in sorted(rows.items()):
        if row.done < row.total:
            lines.append(f"{printable(host)}  {row.done}/{row.total}")
            lines += [f"  {printable(address)}  {what}" for address, what in sorted(row.now.items())]
    return lines
