"""What the rest of ``labctl.hosts`` is written against: a connection to a host, and what manages its units.

``Shell`` is the only way to a host's files and programs. ``labctl.hosts.local`` implements it for this machine; another
connection implements the same few methods and gets observers, executors and managers for free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Protocol

from labctl.artefact import HostRoot, Manager, Tree, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.events import Event, HostDone, HostFailed
from labctl.plan.model import Change
from labctl.plan.observed import SeenFile, SeenHost, SeenUnit, UnitRecord, UnitState
from labctl.values import dataclass
from labctl.workload import Start

Emit = Callable[[Event], None]
"""Takes events as they happen. Called from the thread of the host that they belong to."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished program. ``code`` is 127 when there is no such program, 124 when it ran out of time."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.code == 0

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of what it printed, standard error last."""
        text = "\n".join(part.rstrip() for part in (self.out, self.err) if part.strip())
        return "\n".join(text.splitlines()[-lines:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A program of the host that tells whether definition files are right.

    Attributes:
        argv: the program; run without a shell.
        code, summary: of the diagnostic when it does not accept.
        timeout: seconds.
        names: if given, lines on standard error with one of these decide, and not the exit status.
        ignore: a line with one of these does not count.
    """

    argv: tuple[str, ...]
    code: str
    summary: str
    timeout: float = 120
    names: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


class HostError(Exception):
    """Something on a host did not work. Carries the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(f"{diagnostic.code}: {diagnostic.summary}")


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Ctrl-C was pressed; raised between steps, never inside one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Whom labctl's agent is on a host.

    Attributes:
        uid: effective user id.
        home: that user's home folder.
        process: a name that no other process, earlier or later, has.
        name: the host's own name.
        machine: ``x86_64``, ``aarch64``.
        python: its Python's version.
    """

    uid: int
    home: str
    process: str
    name: str
    machine: str
    python: str


class LostError(HostError):
    """There is no connection to the host (any more): nothing else can be done there."""


class Shell(Protocol):
    """A connection to a host. Paths are absolute on the host. OSError where the operating system refuses."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        """Run a program without a shell; ``env`` adds to its environment; never raises for what the program does."""
        ...

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """Run a program and yield its lines until it ends or the iterator is closed."""
        ...

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None when there is no such file."""
        ...

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Replace a file in one step: whole or not at all, on disk when this returns; an old file's owner stays."""
        ...

    def append(self, path: str, content: bytes) -> None:
        """Add to a file's end, making it with mode 0600 when it is not there."""
        ...

    def look(self, paths: Iterable[str], *, digest: Callable[[str, SeenFile], bool]) -> Mapping[str, SeenFile]:
        """Look at many paths at once. Absent ones are left out; ``digest`` says which contents to hash."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files (and links, never what they point to). One that is not there is fine."""
        ...

    def make_folders(self, path: str) -> tuple[str, ...]:
        """Make a folder and its parents; return those that were made, outermost first."""
        ...

    def remove_empty(self, path: str) -> bool:
        """Remove a folder when it is empty; tell whether it is gone."""
        ...

    def swap(self, path: str, expected: bytes | None, content: bytes | None) -> bool:
        """Replace a small file if it still has the expected content (None: absent); tell whether it had."""
        ...

    def alive(self, process: str) -> bool:
        """Whether the process that called itself ``whoami`` still runs."""
        ...

    def whoami(self) -> str:
        """Return a name of this process that no other process, earlier or later, has."""
        ...

    def me(self) -> Me:
        """Return who works on the host: user, home folder, the host's own name."""
        ...

    def facts(self, folder: str) -> Mapping[str, Any]:
        """Return what the host is (``labctl.agent.facts``), and the space on the file system of a folder."""
        ...

    def call(
        self,
        operation: str,
        values: Mapping[str, Any],
        *,
        body: bytes = b"",
        event: Callable[[Mapping[str, Any]], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> Mapping[str, Any]:
        """Carry out an operation of the agent that takes long and tells of its progress: see ``labctl.agent``.

        OSError as everywhere; ``labctl.agent.call.Refusal`` for what the operation itself refuses.
        """
        ...

    def probe(self, url: str, timeout: float) -> int | None:
        """Ask a URL from the host; return the HTTP status, None when nothing answers."""
        ...

    def free_bytes(self, path: str) -> int:
        """Return how many bytes can still be written below a folder, or below its nearest existing parent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One host with its connection."""

    root: HostRoot
    shell: Shell
    folder: str
    """The root as an absolute path on the host."""

    @property
    def host(self) -> str:
        """The host's name."""
        return self.root.host

    def at(self, path: str) -> str:
        """Return a tree path as an absolute path on the host."""
        return f"{self.folder.rstrip('/')}/{path}"

    def state(self, name: str) -> str:
        """Return the path of one of labctl's own files."""
        return self.at(f"{self.root.state.strip('/')}/{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """What a manager needs to know about a unit, wanted or recorded."""

    name: str
    id: str
    project: str
    group: str = ""
    unit: Unit | None = None
    """The wanted unit; None when the lab has it no longer."""
    record: UnitRecord | None = None


def finished(ref: Ref, seen: SeenUnit, *well: str) -> SeenUnit:
    """Return a task that has stopped, with one of these details, as finished; everything else as it was seen."""
    task = ref.unit is not None and ref.unit.start is Start.ONCE
    return replace(seen, state=UnitState.FINISHED) if task and seen.detail in well else seen


class UnitManager(Protocol):
    """Starts, stops and reports units of one kind on one host. HostError when something does not work."""

    manager: Manager

    def missing(self) -> Diagnostic | None:
        """Return why this manager cannot be used here, None when it can."""
        ...

    def group(self, unit: Unit, definition: bytes) -> str:
        """Return what the manager calls the whole that a unit belongs to, from its project file's content."""
        ...

    def observe(self, refs: Sequence[Ref]) -> Mapping[str, SeenUnit]:
        """Return the state of units, by name, asking the manager once."""
        ...

    def validate(self, projects: Sequence[str]) -> None:
        """Check definition files (tree paths) before anything is activated."""
        ...

    def checks(self, projects: Sequence[str]) -> Sequence[Check]:
        """Return the programs of the host that ``validate`` would run, for whoever runs them there."""
        ...

    def begin(self, refs: Sequence[Ref]) -> None:
        """Let the manager know of changed definitions; start the manager itself if it has to be. No unit changes."""
        ...

    def start(self, ref: Ref, *, anew: bool) -> None:
        """Start a unit, replacing what runs when ``anew``. Returns when it was asked, not when it is healthy."""
        ...

    def create(self, ref: Ref) -> None:
        """Make a stopped unit known in its present definition, and whether it starts with the host; start nothing."""
        ...

    def stop(self, ref: Ref) -> None:
        """Stop a unit and wait until it has."""
        ...

    def forget(self, ref: Ref) -> None:
        """Stop a unit and make its manager forget it."""
        ...

    def finish(self, refs: Sequence[Ref], *, data: bool) -> None:
        """Nothing of these projects is wanted any more: leave nothing behind, with ``data`` no volumes and logs."""
        ...

    def settle(self) -> None:
        """Definition files of removed units are gone now."""
        ...

    def leftovers(self, projects: Sequence[Ref]) -> tuple[str, ...]:
        """Return what of these projects still runs, for humans."""
        ...

    def logs(self, ref: Ref, *, lines: int, follow: bool) -> Iterator[str]:
        """Yield a unit's last log lines and, when asked, those to come."""
        ...


class Observer(Protocol):
    """Looks at one host."""

    def observe(self, tree: Tree) -> SeenHost:
        """Return what is there of the tree and of what labctl owns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it went on one host.

    Attributes:
        done: addresses of the changes that were made.
        failed: address → what went wrong.
        skipped: addresses that were not tried, because of a failure or a stop.
        interrupted: Ctrl-C was pressed before everything was done.
        diagnostics: what concerns the host as a whole.
        back_to: a unit failed, and the host is what it was again: the number of that generation.
    """

    host: str
    done: tuple[str, ...] = ()
    failed: Mapping[str, Diagnostic] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    interrupted: bool = False
    diagnostics: tuple[Diagnostic, ...] = ()
    back_to: int | None = None

    @property
    def ok(self) -> bool:
        """Everything was done."""
        return not (self.failed or self.skipped or self.interrupted or any(d.is_error for d in self.diagnostics))

    @property
    def last_event(self) -> HostDone | HostFailed:
        """The event that tells how it went."""
        if self.ok:
            return HostDone(host=self.host, changes=len(self.done))
        return HostFailed(
            host=self.host,
            done=len(self.done),
            failed=len(self.failed),
            skipped=len(self.skipped),
            diagnostics=self.diagnostics,
            interrupted=self.interrupted,
            next=self.skipped[0] if self.interrupted and self.skipped else "",
        )


class Executor(Protocol):
    """Carries out one host's part of a plan."""

    def execute(self, changes: Sequence[Change], tree: Tree, emit: Emit) -> Outcome:
        """Do the changes, in the order of the plan's phases."""
        ...
