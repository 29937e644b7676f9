"""What happens while a plan is carried out. Views subscribe; nothing here is for humans or machines alone."""

from __future__ import annotations

from enum import StrEnum

from labctl.diagnostics import Diagnostic
from labctl.plan.model import Action, Kind
from labctl.values import dataclass


class Phase(StrEnum):
    """What is being done on a host. Not every apply has every phase."""

    CONNECTING = "connecting"
    LOCKING = "locking"
    LOOKING = "looking"
    FETCHING = "fetching"
    WRITING = "writing"
    CHECKING = "checking"
    STARTING = "starting"
    REMOVING = "removing"
    RECORDING = "recording"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPhase:
    """A host has come to a phase. ``detail`` says more to people, e.g. whose lock is waited for."""

    host: str
    phase: Phase
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStarted:
    """Work on a host begins. ``changes`` is how many there are to do."""

    host: str
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeStarted:
    """A change is being made."""

    host: str
    address: str
    kind: Kind
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDone:
    """A change was made, or could not be (``problem``)."""

    host: str
    address: str
    kind: Kind
    action: Action
    problem: Diagnostic | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A unit was started and is not healthy yet, after so many seconds of at most ``limit``."""

    host: str
    unit: str
    seconds: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Bytes of a file that is being fetched. ``total`` is None when nobody knows."""

    host: str
    path: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line worth seeing: of a failed unit's log, of an image's build, of labctl itself (``unit`` is then "")."""

    host: str
    unit: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackStarted:
    """A host goes back to its last good generation; what follows are that one's changes.

    Attributes:
        because: addresses that failed; empty when somebody asked for it.
        to: when that generation was applied, ISO 8601.
    """

    host: str
    to: str
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackDone:
    """A host is back at its last good generation, or could not be brought there (``problems``)."""

    host: str
    to: str
    changes: int
    problems: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDone:
    """All changes of a host were made."""

    host: str
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFailed:
    """A host is left with undone changes. ``next`` is the address at which the next apply goes on, "" for none."""

    host: str
    done: int
    failed: int
    skipped: int
    diagnostics: tuple[Diagnostic, ...] = ()
    interrupted: bool = False
    next: str = ""


Event = (
    HostPhase
    | HostStarted
    | ChangeStarted
    | ChangeDone
    | Waiting
    | Progress
    | LogLine
    | RollbackStarted
    | RollbackDone
    | HostDone
    | HostFailed
)
