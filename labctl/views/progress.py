"""An apply as it happens: live rows on a terminal, plain lines otherwise, JSON lines for programs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO, cast

from labctl.diagnostics import Diagnostic
from labctl.hosts.events import (
    ChangeDone,
    ChangeStarted,
    Event,
    HostDone,
    HostFailed,
    HostPhase,
    HostStarted,
    LogLine,
    Phase,
    Progress,
    RollbackDone,
    RollbackStarted,
    Waiting,
)
from labctl.hosts.fleet import Report
from labctl.plan.model import Action, Kind
from labctl.quantity import format_size
from labctl.views.diagnostics import to_json
from labctl.views.plan import SYMBOLS, printable

_DONE: Final = {
    Action.CREATE: "created",
    Action.UPDATE: "updated",
    Action.DELETE: "deleted",
    Action.START: "started",
    Action.STOP: "stopped",
    Action.RESTART: "restarted",
    Action.REPLACE: "replaced",
}
_REPORT_EVERY: Final = 10.0
"""Seconds of waiting between two plain lines."""


Clock = Callable[[], str]
"""Returns the time, ISO 8601."""


class ProgressView(Protocol):
    """Takes events; used as a context manager around ``fleet.apply``."""

    def __call__(self, event: Event) -> None:
        """Show an event."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, leaving the terminal as it was."""
        ...


class View:
    """What all views share."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""


class JsonProgress(View):
    """One JSON object per line and event, with the event's name in ``event`` and the time in ``at``."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out, self._clock = out, clock

    def __call__(self, event: Event) -> None:
        """Write an event."""
        self._out.write(json_line(event_to_value(event, self._clock())) + "\n")
        self._out.flush()


class PlainProgress(View):
    """A line per change; waiting and downloads now and then."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._said: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write an event's line, if it is worth one."""
        text = None if self._too_soon(event) else line_of(event)
        if text is not None:
            self._err.write(text + "\n")
            self._err.flush()

    def _too_soon(self, event: Event) -> bool:
        match event:
            case Waiting(unit=unit, seconds=seconds):
                return self._hold(f"{event.host}/{unit}", seconds, _REPORT_EVERY)
            case Progress(path=path, done=done, total=total):
                step = (total or 10 << 30) / 10
                return done != total and self._hold(f"{event.host}:{path}", float(done), step)
            case _:
                return False

    def _hold(self, key: str, now: float, every: float) -> bool:
        last = self._said.get(key, 0.0)
        if now - last < every:
            return True
        self._said[key] = now
        return False


def progress_view(out: TextIO, err: TextIO, clock: Clock, *, as_json: bool, live: bool) -> ProgressView:
    """Return the view for these streams: JSON lines on ``out``, or live rows or plain lines on ``err``."""
    if as_json:
        return JsonProgress(out, clock)
    if not live:
        return PlainProgress(err)
    # rich is loaded for a terminal only
    return cast("ProgressView", importlib.import_module("labctl.views.live").LiveProgress(err))


def event_to_value(event: Event, at: str) -> dict[str, Any]:
    """Return an event as plain values."""
    values = {f.name: _plain(getattr(event, f.name)) for f in fields(event)}
    return {"event": type(event).__name__, "at": at, **values}


def _plain(value: object) -> Any:
    if isinstance(value, Diagnostic):
        return to_json([value])[0]
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def result_to_value(report: Report, at: str, **more: object) -> dict[str, Any]:
    """Return the last line of an apply: how it ended, by host. ``more`` is added."""
    hosts = {
        name: {
            "ok": outcome.ok,
            "done": list(outcome.done),
            "failed": {address: to_json([problem])[0] for address, problem in outcome.failed.items()},
            "skipped": list(outcome.skipped),
            "interrupted": outcome.interrupted,
            "diagnostics": to_json(outcome.diagnostics),
        }
        for name, outcome in report.outcomes.items()
    }
    end = {"ok": report.ok, "exit_code": report.exit_code, "stale": list(report.stale), "hosts": hosts}
    return {"event": "Result", "at": at, **end, **more}


def json_line(value: Mapping[str, object]) -> str:
    """Return a value on one line."""
    return json.dumps(value, ensure_ascii=False)


def line_of(event: Event) -> str | None:
    """Return an event as a line of text, None when it needs none."""
    match event:
        case HostPhase() | HostStarted() | HostDone() | HostFailed():
            return _of_host(event)
        case RollbackStarted() | RollbackDone():
            return _of_rollback(event)
        case ChangeStarted() | ChangeDone():
            return _of_change(event)
        case Waiting() | Progress() | LogLine():
            return _of_detail(event)


def _of_detail(event: Waiting | Progress | LogLine) -> str:
    match event:
        case Waiting(host=host, unit=unit, seconds=seconds, limit=limit):
            return f"  … {host}/{unit}: waiting until it is healthy, {seconds:.0f} s of at most {limit:.0f} s"
        case Progress(host=host, path=path, done=done, total=total):
            return f"  … {host}:{printable(path)}: {bytes_of(done, total)}"
        case LogLine(host=host, unit=unit, text=text):
            return f"    {host}{'/' if unit else ''}{unit} | {printable(text)}"


def _of_host(event: HostPhase | HostStarted | HostDone | HostFailed) -> str | None:
    match event:
        case HostPhase(host=host, phase=Phase.LOCKING, detail=detail):
            return f"{printable(host)}: {printable(detail)}"
        case HostPhase():
            return None
        case HostStarted(host=host, changes=changes):
            return f"{printable(host)}: {_count(changes, 'change')}"
        case HostDone(host=host, changes=changes):
            return f"{printable(host)}: done, {_count(changes, 'change')}"
        case HostFailed():
            return _failure(event)


def _of_rollback(event: RollbackStarted | RollbackDone) -> str:
    host = printable(event.host)
    if isinstance(event, RollbackStarted):
        because = f" because {', '.join(map(printable, event.because))} failed" if event.because else ""
        return f"{host}: going back to how it was applied at {event.to}{because}"
    if event.problems:
        why = "".join(f"\n  ✗ {printable(d.summary)} [{d.code}]" for d in event.problems)
        return f"{host}: could not be brought back to how it was applied at {event.to}{why}"
    return f"{host}: runs again as it was applied at {event.to}, {_count(event.changes, 'change')}"


def _of_change(event: ChangeStarted | ChangeDone) -> str | None:
    if isinstance(event, ChangeStarted):
        return None
    problem = event.problem
    if problem is None:
        return f"  {SYMBOLS[event.action]} {printable(event.address)} {done_word(event)}"
    return f"  ✗ {printable(event.address)}: {printable(problem.summary)} [{problem.code}]"


def done_word(event: ChangeDone) -> str:
    """Return what happened, in a word."""
    if event.kind is Kind.UNIT and event.action is Action.DELETE:
        return "stopped and removed"
    if event.kind is Kind.MODEL and event.action is Action.CREATE:
        return "fetched"
    return _DONE.get(event.action, str(event.action))


def _failure(event: HostFailed) -> str:
    how = "stopped" if event.interrupted else "failed"
    why = "".join(f"\n  ✗ {printable(d.summary)} [{d.code}]" for d in event.diagnostics)
    goes_on = f"; it goes on with {printable(event.next)}" if event.next else ""
    counts = f"{event.done} done, {event.failed} failed, {event.skipped} not tried"
    return f"{printable(event.host)}: {how}; {counts}{goes_on}{why}"


def bytes_of(done: int, total: int | None) -> str:
    """Return how much of a file has arrived."""
    if not total:
        return format_size(done)
    return f"{format_size(done)} of {format_size(total)} ({100 * done // total} %)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
