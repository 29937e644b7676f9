"""The plan as a value: what would change, why, and what that restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Final

from labctl.diagnostics import Diagnostic, DocPath, Span
from labctl.values import dataclass

FORMAT_VERSION: Final = 1
"""Of the JSON form. A higher one is refused."""


class Kind(StrEnum):
    """What a change is about."""

    FILE = "file"
    SECRET = "secret"  # noqa: S105 - a kind of change
    MODEL = "model"
    IMAGE = "image"
    UNIT = "unit"
    OBJECT = "object"
    HOST = "host"


class Action(StrEnum):
    """What would be done. ``noop`` is said explicitly: it was looked at and is as wanted."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    REPLACE = "replace"
    NOOP = "noop"
    UNKNOWN = "unknown"

    @property
    def changes(self) -> bool:
        """Whether something would be done."""
        return self not in {Action.NOOP, Action.UNKNOWN}

    @property
    def runs(self) -> bool:
        """Whether the unit runs anew afterwards."""
        return self in {Action.START, Action.RESTART, Action.REPLACE}


class Reason(StrEnum):
    """Why. Each is a sentence fragment in ``labctl.views.plan``."""

    IN_PLACE = "in-place"
    NEW = "new"
    CONTENT_CHANGED = "content-changed"
    MODE_CHANGED = "mode-changed"
    DEFINITION_CHANGED = "definition-changed"
    DEPENDENCY_CHANGED = "dependency-changed"
    SECRET_ROTATED = "secret-rotated"  # noqa: S105 - a reason
    SOURCE_CHANGED = "source-changed"
    NO_LONGER_WANTED = "no-longer-wanted"
    INTERRUPTED = "interrupted"
    DRIFTED = "drifted"
    MODE_DRIFTED = "mode-drifted"
    MISSING = "missing"
    FOREIGN = "foreign"
    STOPPED = "stopped"
    FAILED = "failed"
    UNHEALTHY = "unhealthy"
    STARTING = "starting"
    ON_DEMAND = "on-demand"
    NOT_ENABLED = "not-enabled"
    TURN = "turn"
    UNRECORDED = "unrecorded"
    MODEL_MISSING = "model-missing"
    MODEL_CORRUPT = "model-corrupt"
    KEPT = "kept"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


DRIFT: Final = frozenset(
    {
        Reason.DRIFTED,
        Reason.MODE_DRIFTED,
        Reason.MISSING,
        Reason.STOPPED,
        Reason.FAILED,
        Reason.UNHEALTHY,
        Reason.NOT_ENABLED,
        Reason.MODEL_MISSING,
        Reason.MODEL_CORRUPT,
    }
)
"""Reasons that lie with the host, not with the lab: somebody or something changed what labctl had left there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One side of a change. Secret files have a keyed digest and never a text."""

    digest: str | None = None
    mode: int | None = None
    text: str | None = None
    size: int | None = None
    unit: str | None = None
    """A unit's state in one word."""
    revision: str | None = None
    """The version of a Kubernetes object that was looked at: while it stays, so does what was found out about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing on one host.

    Attributes:
        host: its host.
        name: the path (relative to the host's root), the image's reference, the unit's name or ``Kind/name``.
        because: the paths or images that caused a restart; of an object: who else changed it.
        before, after: None when it was, or will be, absent.
        restarts: units that this change restarts (files) - the other direction of ``because``.
        origin: the part of lab.yaml that asked for it; ``span`` its place, once the document has located it.
    """

    host: str
    kind: Kind
    name: str
    action: Action
    reason: Reason
    because: tuple[str, ...] = ()
    before: State | None = None
    after: State | None = None
    restarts: tuple[str, ...] = ()
    origin: DocPath = ()
    span: Span | None = None

    @property
    def address(self) -> str:
        """``host:path`` of a file, ``host/unit`` of a unit, ``host image reference`` of an image."""
        match self.kind:
            case Kind.UNIT:
                return f"{self.host}/{self.name}"
            case Kind.IMAGE:
                return f"{self.host} image {self.name}"
            case Kind.HOST:
                return self.host
            case _:
                return f"{self.host}:{self.name}"

    @property
    def is_drift(self) -> bool:
        """Whether the cause lies on the host and not in the lab."""
        return self.reason in DRIFT and self.action is not Action.DELETE


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """What is known about one host of the plan.

    Attributes:
        complete: it was seen.
        to_come: it was planned as empty: it comes with this apply, and is looked at then.
        why: what there is to say about it.
    """

    complete: bool = True
    to_come: bool = False
    why: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What apply would do.

    Attributes:
        lab: name of the lab; ``lab_digest``: of its document; ``tree_digest``: of what it renders to.
        destroy: the plan removes everything; ``data``: models and volumes, too.
        only: names of the units that it is about; empty: everything.
        secrets_known: secret files were compared by value, not only by their names.
        changes: in the order of hosts and, within a host, of execution. No-ops among them.
    """

    lab: str = ""
    lab_digest: str = ""
    tree_digest: str = ""
    hosts: Mapping[str, HostPlan] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    destroy: bool = False
    data: bool = False
    only: tuple[str, ...] = ()
    secrets_known: bool = True
    format_version: int = FORMAT_VERSION

    @property
    def complete(self) -> bool:
        """Every host was seen."""
        return all(h.complete for h in self.hosts.values())

    @property
    def errored(self) -> bool:
        """A host has a problem that stops apply there."""
        return any(d.is_error for h in self.hosts.values() for d in h.why)

    @property
    def applyable(self) -> bool:
        """There is something to do on at least one host that was seen."""
        return any(c.action.changes for c in self.changes)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What there is to say about the hosts."""
        return tuple(d for h in self.hosts.values() for d in h.why)

    def of_host(self, host: str) -> tuple[Change, ...]:
        """Return the changes of one host."""
        return tuple(c for c in self.changes if c.host == host)

    @property
    def todo(self) -> tuple[Change, ...]:
        """The changes that do something."""
        return tuple(c for c in self.changes if c.action.changes)

    @property
    def drift(self) -> tuple[Change, ...]:
        """The changes whose cause lies on a host."""
        return tuple(c for c in self.changes if c.is_drift)

    def counts(self) -> Mapping[Action, int]:
        """How many changes there are of each action, in the order of ``Action``."""
        return {a: n for a in Action if (n := sum(c.action is a for c in self.changes))}


def moved(planned: Plan, fresh: Plan) -> tuple[str, ...]:
    """Return the addresses at which a saved plan is no longer what would be planned now, sorted.

    Compares actions, reasons and digests, on hosts that the saved plan covers; not texts and not document places.
    """
    old, new = _essence(planned.changes, planned), _essence(fresh.changes, planned)
    return tuple(sorted({address for address, _ in old ^ new}))


def _essence(changes: Iterable[Change], plan: Plan) -> frozenset[tuple[str, object]]:
    return frozenset(
        (c.address, (c.action, c.reason, c.because, _core(c.before), _core(c.after)))
        for c in changes
        if c.host in plan.hosts
    )


def _core(state: State | None) -> tuple[object, ...] | None:
    if state is None:
        return None
    return state.digest, state.mode, state.unit
