"""An apply on a terminal: rows that change in place. The only module that loads rich."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import TracebackType
from typing import Final, Self, TextIO

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
    Progress,
    RollbackDone,
    RollbackStarted,
    Waiting,
)
from labctl.plan.model import Action, Kind
from labctl.values import dataclass
from labctl.views.plan import printable
from labctl.views.progress import View, bytes_of, line_of

_DOING: Final = {
    Action.CREATE: "creating",
    Action.UPDATE: "updating",
    Action.DELETE: "removing",
    Action.START: "starting",
    Action.STOP: "stopping",
    Action.RESTART: "restarting",
    Action.REPLACE: "replacing",
}
_MOST: Final = 4
"""Things going on at once that are shown of a host."""


@dataclass(slots=True)
class _Row:
    """One host on the screen."""

    total: int = 0
    done: int = 0
    phase: str = ""
    now: Mapping[str, str] = field(default_factory=dict)
    """Address → what is going on there, the latest last."""
    end: str = ""
    """How it ended, "" while it has not."""


class LiveProgress(View):
    """Rows that change in place: per host a count, and what is going on right now. Log lines scroll above them."""

    def __init__(self, err: TextIO) -> None:
        self._console = Console(file=err, highlight=False)
        self._live = Live("", console=self._console, transient=True, refresh_per_second=8)
        self.rows: dict[str, _Row] = {}

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
        row = self.rows.setdefault(event.host, _Row())
        lasting = _move(row, event)
        if lasting is not None:
            self._console.print(Text(lasting))
        self._live.update(Text("\n".join(screen(self.rows)), no_wrap=True, overflow="ellipsis"))


def _move(row: _Row, event: Event) -> str | None:
    """Take an event into a row; return the line that stays on the screen."""
    match event:
        case HostPhase(phase=phase, detail=detail):
            row.phase = detail or str(phase)
        case HostStarted(changes=changes):
            row.total, row.phase = changes, ""
        case RollbackStarted():
            row.phase, row.end, row.total, row.done = "going back", "", 0, 0
        case HostDone() | HostFailed() | RollbackDone():
            row.now, row.end = {}, _ending(event)
        case _:
            _change(row, event)
    passing = isinstance(event, Waiting | Progress | HostStarted)
    return None if passing else line_of(event)


def _change(row: _Row, event: Event) -> None:
    """Take what happens to one thing into a row."""
    now = dict(row.now)
    match event:
        case ChangeStarted(address=address, kind=kind, action=action):
            fetched = kind is Kind.MODEL and action is Action.CREATE
            now[address] = "fetching" if fetched else _DOING.get(action, str(action))
        case ChangeDone(address=address):
            now.pop(address, None)
            row.done += 1
        case Waiting(unit=unit, seconds=seconds, limit=limit):
            now[f"{event.host}/{unit}"] = f"waiting until it is healthy, {seconds:.0f} of {limit:.0f} s"
        case Progress(path=path, done=done, total=total):
            address = f"{event.host} {path}" if path.startswith("image ") else f"{event.host}:{path}"
            now[address] = bytes_of(done, total)
        case _:
            pass
    row.now = now


def _ending(event: HostDone | HostFailed | RollbackDone) -> str:
    match event:
        case HostDone():
            return "✓ done"
        case RollbackDone(problems=problems):
            return "✗ could not go back" if problems else "↶ back at what it was"
        case HostFailed(interrupted=interrupted):
            return "■ stopped" if interrupted else "✗ failed"


def screen(rows: Mapping[str, _Row]) -> list[str]:
    """Return a line per host, and further ones where several things go on."""
    width = max((len(printable(host)) for host in rows), default=0)
    lines: list[str] = []
    for host, row in sorted(rows.items()):
        count = f"{row.done}/{row.total}" if row.total else ""
        going = [row.end] if row.end else _going(host, row) or [row.phase]
        head = f"{printable(host):<{width}}  {count:>5}  "
        lines += [f"{head if i == 0 else ' ' * len(head)}{words}".rstrip() for i, words in enumerate(going)]
    return lines


def _going(host: str, row: _Row) -> list[str]:
    shown = list(row.now.items())[-_MOST:]
    more = len(row.now) - len(shown)
    words = [f"{printable(address[len(host) :].lstrip('/: '))}  {what}" for address, what in shown]
    return [*words, f"… and {more} more"] if more else words
