"""The state of one host's apply while it runs: the manifest on disk and what was done, failed or skipped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Final

from labctl.artefact import Artefact, SecretFile, Tree, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import Emit, HostError, LostError, Outcome, Ref, Site, Stopped, UnitManager
from labctl.hosts.disk import unless_full
from labctl.hosts.events import ChangeDone, ChangeStarted, HostPhase, LogLine, Phase
from labctl.hosts.generations import Kept
from labctl.hosts.observe import refs_of
from labctl.hosts.place import Placer
from labctl.hosts.secret_files import secret_content
from labctl.hosts.state import write_manifest
from labctl.hosts.watching import Watch, Watched
from labctl.plan.model import Change, Kind
from labctl.plan.observed import Manifest, SecretDigests, UnitRecord
from labctl.secrets import Redactor, Secrets
from labctl.values import dataclass

CRASH: Final = "LABCTL_TEST_CRASH"
"""Environment variable: die by SIGKILL just before the N-th step. For tests of what a power failure leaves behind."""


@dataclass(slots=True)
class Work:
    """One host's apply.

    Attributes:
        changes: what the plan says about this host.
        tree: this host's part of the tree.
        digests: keyed digests that secret files are to have.
        manifest: as it is on disk now.
        check: raises ``Stopped`` once Ctrl-C was pressed.
    """

    site: Site
    managers: Mapping[str, UnitManager]
    changes: Sequence[Change]
    tree: Tree
    secrets: Secrets
    digests: SecretDigests
    manifest: Manifest
    placer: Placer
    emit: Emit
    check: Callable[[], None]
    destroy: bool = False
    data: bool = False
    done: list[str] = field(default_factory=list)
    failed: dict[str, Diagnostic] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Paths, images and units that are not as they should be: what needs them is not started."""
    steps: int = 0
    groups: Mapping[str, str] = field(default_factory=dict)
    """What managers call the wanted units' projects, by unit."""
    kept: Kept | None = None
    """Where the contents of secret files are that a generation of the host has kept."""
    retired: set[str] = field(default_factory=set)
    """Managers that lost a unit."""
    redact: Redactor = field(default_factory=Redactor)
    """Masks the secrets' values in what other programs print."""
    initial: Manifest = Manifest()
    """The manifest as it was before."""

    def __post_init__(self) -> None:
        """Ask the managers once what they call the wanted units' projects; keep what the manifest said at first."""
        self.initial = self.manifest
        self.redact = self.secrets.redactor()
        self.groups = {ref.name: ref.group for ref in refs_of(self.tree, Manifest(), self.managers)}

    @property
    def artefacts(self) -> Mapping[str, Artefact]:
        """What the tree holds, by path."""
        return {a.path: a for a in self.tree.artefacts}

    @property
    def units(self) -> Mapping[str, Unit]:
        """The wanted units, by name."""
        return {} if self.destroy else {u.name: u for u in self.tree.units}

    @property
    def initial_units(self) -> Mapping[str, UnitRecord]:
        """The manifest's units as they were before."""
        return self.initial.units

    def secret(self, file: SecretFile) -> bytes:
        """Return what belongs into a secret file. HostError (LAB109) when that cannot be had."""
        if self.kept is not None:
            return self.kept.content(self.site, file.path)
        return secret_content(file, self.secrets)

    def todo(self, *kinds: Kind) -> list[Change]:
        """Return the changes of some kinds that do something, in the plan's order."""
        return [c for c in self.changes if c.kind in kinds and c.action.changes]

    def step(self) -> None:
        """Stand between two steps: the place to stop, and to be killed in tests."""
        self.check()
        self.point()

    def point(self) -> None:
        """Stand where the next step has to follow: the place to be killed in tests, and not to stop."""
        self.steps += 1
        if os.environ.get(CRASH) == str(self.steps):
            os.kill(os.getpid(), signal.SIGKILL)

    def manager(self, name: str) -> UnitManager:
        """Return a manager that tells of what takes long."""
        found = self.managers[name]
        if isinstance(found, Watched):
            found.attend(Watch(tell=self._heard, check=self.check, point=self.point))
        return found

    def _heard(self, unit: str, text: str) -> None:
        self.emit(LogLine(host=self.site.host, unit=unit, text=self.redact(text)))

    def save(self, manifest: Manifest) -> None:
        """Put a new manifest on disk, if it is one."""
        if manifest != self.manifest:
            write_manifest(self.site, manifest)
            self.manifest = manifest

    @contextmanager
    def making(self, change: Change) -> Iterator[None]:
        """Announce a change and say how it went. Its problems are recorded, not raised."""
        self.step()
        self.started(change)
        problem: Diagnostic | None = None
        try:
            yield
        except LostError:
            raise
        except HostError as error:
            problem = error.diagnostic
        except OSError as error:
            problem = _refused(change, error)
        if problem is None:
            self.done.append(change.address)
        else:
            self.fail(change, problem)
        self.finished(change)

    def phase(self, phase: Phase) -> None:
        """Say what is being done now."""
        self.emit(HostPhase(host=self.site.host, phase=phase))

    def started(self, change: Change) -> None:
        """Say that a change begins."""
        self.emit(ChangeStarted(host=change.host, address=change.address, kind=change.kind, action=change.action))

    def finished(self, change: Change) -> None:
        """Say how a change went."""
        problem = self.failed.get(change.address)
        self.emit(
            ChangeDone(
                host=change.host, address=change.address, kind=change.kind, action=change.action, problem=problem
            )
        )

    def clean(self, problem: Diagnostic) -> Diagnostic:
        """Return a problem without the values that another program may have put into its message."""
        return replace(problem, summary=self.redact(problem.summary), detail=self.redact(problem.detail))

    def fail(self, change: Change, problem: Diagnostic) -> None:
        """Record that a change could not be made."""
        self.failed[change.address] = self.clean(problem)
        self.broken.add(change.name)

    def forgive(self, change: Change) -> None:
        """Take back that a change could not be made: it is about to be tried again."""
        del self.failed[change.address]
        self.broken.discard(change.name)

    def skip(self, change: Change, because: str) -> None:
        """Record that a change is not tried."""
        self.skipped.append(change.address)
        self.broken.add(change.name)
        self.emit(LogLine(host=change.host, unit=change.name, text=f"not started: {because}"))

    def ref(self, unit: Unit) -> Ref:
        """Return a wanted unit as its manager knows it."""
        return Ref(
            name=unit.name,
            id=unit.id,
            project=unit.project,
            group=self.groups.get(unit.name, ""),
            unit=unit,
            record=self.manifest.units.get(unit.name),
        )

    def old_ref(self, name: str) -> Ref | None:
        """Return a recorded unit as its manager knows it, None when nothing is recorded."""
        record = self.manifest.units.get(name)
        if record is None:
            return None
        return Ref(name=name, id=record.id, project=record.project, group=record.group, record=record)

    def outcome(self, *, interrupted: bool, diagnostics: Sequence[Diagnostic] = ()) -> Outcome:
        """Return how it went; what was neither done nor failed counts as skipped."""
        known = {*self.done, *self.failed}
        left = tuple(c.address for c in self.changes if c.action.changes and c.address not in known)
        return Outcome(
            host=self.site.host,
            done=tuple(self.done),
            failed=dict(self.failed),
            skipped=left,
            interrupted=interrupted,
            diagnostics=tuple(self.clean(d) for d in diagnostics),
        )


def never_stops() -> None:
    """The ``check`` of work that nobody interrupts."""


def stop_when(asked: Callable[[], bool], then: Callable[[], None] = never_stops) -> Callable[[], None]:
    """Return a ``check`` that raises ``Stopped`` once ``asked`` says so, and otherwise goes on with another one."""

    def check() -> None:
        if asked():
            raise Stopped
        then()

    return check


def _refused(change: Change, error: OSError) -> Diagnostic:
    refused = Diagnostic(
        code="LAB107",
        summary=f"`{change.address}` could not be changed: {error.strerror or error}",
        detail=str(error.filename or ""),
        path=change.origin or None,
    )
    return unless_full(change.host, error, refused, change.origin or None)
