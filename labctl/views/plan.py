"""A plan for people: what would change, why, and what that restarts. Readable without colour."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from labctl.plan.model import Action, Change, Kind, Plan, Reason
from labctl.quantity import format_size
from labctl.values import dataclass

SYMBOLS: Final = {
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.DELETE: "-",
    Action.START: "▸",
    Action.STOP: "▪",
    Action.RESTART: "↻",
    Action.REPLACE: "↻",
    Action.NOOP: "=",
    Action.UNKNOWN: "?",
}
REASONS: Final = {
    Reason.IN_PLACE: "as wanted",
    Reason.NEW: "new",
    Reason.CONTENT_CHANGED: "its content changed in the lab",
    Reason.MODE_CHANGED: "its permissions changed in the lab",
    Reason.DEFINITION_CHANGED: "its definition changed",
    Reason.DEPENDENCY_CHANGED: "changed",
    Reason.SECRET_ROTATED: "a secret's value changed",
    Reason.SOURCE_CHANGED: "it comes from somewhere else now",
    Reason.NO_LONGER_WANTED: "no longer in the lab",
    Reason.INTERRUPTED: "an earlier apply did not finish",
    Reason.DRIFTED: "edited by hand",
    Reason.MODE_DRIFTED: "its permissions were changed by hand",
    Reason.MISSING: "removed by hand",
    Reason.FOREIGN: "there is one that labctl did not make; a copy is kept",
    Reason.STOPPED: "it was stopped",
    Reason.FAILED: "it has failed",
    Reason.UNHEALTHY: "it runs but does not answer",
    Reason.STARTING: "still starting",
    Reason.ON_DEMAND: "runs on demand",
    Reason.TURN: "another one of its group runs now",
    Reason.NOT_ENABLED: "it would not come back after a reboot",
    Reason.UNRECORDED: "it runs, but labctl did not start it",
    Reason.MODEL_MISSING: "removed by hand",
    Reason.MODEL_CORRUPT: "damaged: its size or SHA-256 is wrong",
    Reason.KEPT: "no longer in the lab, kept: models are data (destroy --data)",
    Reason.UNREACHABLE: "could not be looked at",
    Reason.REFUSED: "the API server does not take it",
}
_OF_OBJECTS: Final = {
    Reason.DRIFTED: "changed{by} since labctl applied it",
    Reason.FOREIGN: "there is one that labctl did not make{by}: it is taken over",
    Reason.DEFINITION_CHANGED: "it cannot be changed in place: deleted and made again",
    Reason.FAILED: "it has failed: deleted and made again",
    Reason.UNHEALTHY: "as wanted, but not ready",
    Reason.KEPT: "no longer in the lab, kept: it may hold data (destroy --data)",
}
_COLOURS: Final = {
    Action.CREATE: "\x1b[32m",
    Action.START: "\x1b[32m",
    Action.UPDATE: "\x1b[33m",
    Action.RESTART: "\x1b[33m",
    Action.REPLACE: "\x1b[33m",
    Action.DELETE: "\x1b[31m",
    Action.STOP: "\x1b[31m",
    Action.UNKNOWN: "\x1b[35m",
}
_RESET: Final = "\x1b[0m"
_CONTEXT: Final = 3
_BRIEF: Final = 12
"""Lines of a file's difference that are shown without ``--diff``."""
_PAST: Final = ("create", "update", "delete", "start", "stop", "restart", "replace")


def render_plan(plan: Plan, *, diff: bool = False, unchanged: bool = False, colour: bool = False) -> str:
    """Return the plan as text, without a final line end.

    Args:
        plan: what to show.
        diff: whole differences of files; otherwise their first lines, and nothing of new and deleted ones.
        unchanged: name what stays as it is, too.
        colour: colour the lines by what happens.
    """
    view = _View(diff, unchanged, colour)
    parts = [*view.drift(plan.drift), *view.hosts(plan), summary(plan)]
    return "\n".join(parts)


def summary(plan: Plan) -> str:
    """Return e.g. ``2 to create, 1 to update, 1 to restart; 14 unchanged``."""
    counts = plan.counts()
    parts = [f"{counts[Action(word)]} to {word}" for word in _PAST if Action(word) in counts]
    same = counts.get(Action.NOOP, 0)
    text = f"{', '.join(parts)}; {same} unchanged" if parts else f"no changes; {same} as wanted"
    unknown = counts.get(Action.UNKNOWN, 0)
    return f"{text}; {unknown} host{'s' if unknown > 1 else ''} not seen" if unknown else text


def explain(change: Change) -> str:
    """Return why a change is made, in a few words."""
    if change.reason is Reason.DEPENDENCY_CHANGED and change.because:
        return f"{_listed(change.because)} changed"
    if change.reason is Reason.FOREIGN and change.kind is Kind.IMAGE:
        return "there is one that labctl did not build"
    if change.action is Action.DELETE and change.reason is Reason.MISSING:
        return "already gone; only to be forgotten"
    if change.kind is Kind.OBJECT and change.reason in _OF_OBJECTS:
        by = f" by {_listed([f'`{m}`' for m in change.because])}" if change.because else ""
        return _OF_OBJECTS[change.reason].format(by=by)
    if change.kind is Kind.UNIT and change.reason is Reason.DRIFTED:
        return "its compose file was edited by hand; compose replaces it if that concerns it"
    return REASONS[change.reason]


@dataclass(frozen=True, slots=True)
class _View:
    diff: bool
    unchanged: bool
    colour: bool

    def drift(self, changes: Sequence[Change]) -> Iterator[str]:
        """Say first what somebody changed on the hosts: it may have been meant."""
        if not changes:
            return
        yield "changed on the hosts since the last apply:"
        for change in changes:
            yield f"  ! {printable(change.address)}: {explain(change)}"
        yield ""

    def hosts(self, plan: Plan) -> Iterator[str]:
        for host, group in groupby(plan.changes, key=lambda c: c.host):
            changes = [c for c in group if self.unchanged or c.action is not Action.NOOP or c.reason is Reason.KEPT]
            if not changes:
                continue
            yield printable(host)
            width = min(60, max(len(_title(c)) for c in changes))
            for change in changes:
                yield from self.change(change, width)
            yield ""

    def change(self, change: Change, width: int) -> Iterator[str]:
        what = f"{SYMBOLS[change.action]} {change.action:<7} {change.kind:<6} {_title(change):<{width}}"
        line = f"  {what}  {explain(change)}"
        if change.restarts:
            line += f" → restarts {_listed(change.restarts)}"
        yield self.paint(change.action, line.rstrip())
        if change.kind in {Kind.FILE, Kind.OBJECT} and change.action.changes:
            yield from self.difference(change)

    def difference(self, change: Change) -> Iterator[str]:
        lines = list(unified(change)) if self.diff or change.action is Action.UPDATE else []
        shown = lines if self.diff else lines[:_BRIEF]
        yield from (f"      {printable(line)}" for line in shown)
        if len(lines) > len(shown):
            yield f"      … {len(lines) - len(shown)} more lines (--diff)"

    def paint(self, action: Action, text: str) -> str:
        colour = _COLOURS.get(action) if self.colour else None
        return f"{colour}{text}{_RESET}" if colour else text


def unified(change: Change) -> Iterator[str]:
    """Yield the unified difference of a file's text, without file names; nothing for what may not be shown."""
    before = change.before.text if change.before else ""
    after = change.after.text if change.after else ""
    if before is None or after is None:
        return
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=_CONTEXT, lineterm="")
    yield from (line for line in lines if not line.startswith(("---", "+++")))


def printable(text: str) -> str:
    """Replace what would move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() else "\t" if c == "\t" else "�" for c in text)


def _title(change: Change) -> str:
    size = change.after.size if change.kind is Kind.MODEL and change.after else None
    return printable(change.name) + (f" ({format_size(size)})" if size is not None else "")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(n) for n in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
