"""What is known about the hosts: the manifest of what labctl owns there, and what was seen just now.

The manifest is the record of ownership: only what it lists is ever deleted. It also remembers what every unit was last
started with, so that a unit still has to be restarted when an apply was killed after writing its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from labctl.artefact import Manager
from labctl.diagnostics import Diagnostic
from labctl.values import dataclass


class EntryKind(StrEnum):
    """What a path of the manifest is."""

    FILE = "file"
    SECRET = "secret"  # noqa: S105 - a kind of file
    MODEL = "model"
    OBJECT = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path that labctl owns.

    Attributes:
        digest: SHA-256 of the content; of a secret file keyed with the host's own key, so that it says nothing.
        mode: permission bits.
        previous: digests that the path may still have because the write was announced but not confirmed.
        shape: of a secret file: a digest of its names and literal parts, comparable without any value.
        size: bytes, of a model file.
        mtime: nanoseconds, of a model file: while size and mtime stay, it is not hashed again.
    """

    kind: EntryKind
    digest: str
    mode: int = 0o644
    previous: tuple[str, ...] = ()
    shape: str = ""
    size: int | None = None
    mtime: int | None = None

    @property
    def confirmed(self) -> bool:
        """Whether the write of this path is known to have happened."""
        return not self.previous


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRecord:
    """What a unit was last started with.

    Attributes:
        manager, id, project: as in ``Unit``; what is needed to stop it when the lab no longer has it.
        fingerprint: its definition when it was started; "" when it never was.
        inputs: digest of each of its files when it was started.
        pending: an action on it was announced and not confirmed.
        group: what its manager calls the whole (a compose project's name), "" where there is none.
        check: the URL that told its health.
    """

    manager: Manager
    id: str
    project: str
    fingerprint: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    pending: bool = False
    group: str = ""
    check: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that labctl owns on one host.

    Attributes:
        lab: name of the lab that owns it.
        lab_digest: digest of the lab that was last applied.
        entries: by path, relative to the host's root.
        units: by workload name.
        images: built images: reference → digest of the build context.
        folders: folders that labctl made, relative to the root.
        generation: number of the generation that the host is as of the last apply; 0 while one is under way, and after
            one that failed.
    """

    lab: str = ""
    lab_digest: str = ""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    units: Mapping[str, UnitRecord] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    generation: int = 0


class FileType(StrEnum):
    """What a path turned out to be."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"
    """A symbolic link, a device, a socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFile:
    """One path as it is on a host. An absent path has no ``SeenFile``."""

    type: FileType = FileType.FILE
    digest: str | None = None
    mode: int = 0o644
    size: int = 0
    mtime: int = 0
    text: str | None = None
    """The content, only where it differs from what is wanted, is short UTF-8 text and holds no secret."""


class UnitState(StrEnum):
    """How a unit is doing."""

    RUNNING = "running"
    STARTING = "starting"
    UNHEALTHY = "unhealthy"
    STOPPED = "stopped"
    FINISHED = "finished"
    """A task that ran to its end with exit status 0. Nothing but a task is ever seen so."""
    FAILED = "failed"
    ABSENT = "absent"
    """Its manager does not know it (yet)."""

    @property
    def up(self) -> bool:
        """Whether a process of it exists."""
        return self in {UnitState.RUNNING, UnitState.STARTING, UnitState.UNHEALTHY}


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenUnit:
    """One unit as its manager reports it.

    Attributes:
        state: how it is doing.
        fingerprint: what the running thing says it was made from (a container's label); None when it cannot say.
        image: the container image it runs.
        enabled: whether it comes back after a reboot; None when its manager has no such notion.
        detail: a few words for humans, e.g. ``exit status 1``.
        since: seconds that it has been in this state, where known.
        restarts: how often its manager has brought it back since it was started.
    """

    state: UnitState
    fingerprint: str | None = None
    image: str | None = None
    enabled: bool | None = None
    detail: str = ""
    since: float | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """A Kubernetes object as it is, and what the API server says that applying the wanted one would make of it.

    Attributes:
        exists: it is there.
        digest: of the content that labctl applied last, as noted on the object; "" when labctl never did.
        same: applying the wanted one would change nothing.
        text: what is there, secret values masked; ``after``: what would be, None when the server was not asked.
        replace: it cannot be changed in place: it has to be deleted and made again.
        refused: the server does not take the wanted one; why stands in the host's problems.
        rotated: it differs only because a secret that it uses has another value.
        managers: who else changed what labctl had applied.
        secret: of a Secret: keyed digest of the values that are there; ``applied_secret``: of those that labctl wrote.
        state: how a workload is doing, with ``detail``.
        revision: its version.
    """

    exists: bool = True
    digest: str = ""
    same: bool = False
    text: str | None = None
    after: str | None = None
    replace: bool = False
    refused: bool = False
    rotated: bool = False
    managers: tuple[str, ...] = ()
    secret: str | None = None
    applied_secret: str | None = None
    state: UnitState | None = None
    detail: str = ""
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenGpu:
    """One card that its driver shows. ``memory`` in bytes; ``uuid``, ``name`` and ``driver`` are "" where unknown."""

    vendor: str
    name: str = ""
    uuid: str = ""
    memory: int | None = None
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a host is.

    Attributes:
        arch: ``x86_64``, ``aarch64``, as the kernel calls it.
        system, kernel: for people.
        memory: bytes of RAM that the kernel has.
        features: flags of the processor, as the kernel calls them.
        gpus: cards that a driver shows.
        bus: graphics cards on the PCI bus by vendor, with or without a driver.
        groups: numeric ids of ``video`` and ``render``, where there are such groups.
        free: bytes free on the file systems of folders.
    """

    arch: str = ""
    system: str = ""
    kernel: str = ""
    memory: int = 0
    cores: int = 0
    features: frozenset[str] = frozenset()
    gpus: tuple[SeenGpu, ...] = ()
    bus: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    free: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenHost:
    """One host. When ``complete`` is False, nothing but ``why`` is to be relied on."""

    host: str
    complete: bool = True
    silent: bool = False
    """Nothing answers there: it is down, or not there yet."""
    to_come: bool = False
    """It is not there yet, and the roots that it comes after bring it: it is taken as empty, and looked at in apply."""
    why: tuple[Diagnostic, ...] = ()
    manifest: Manifest = Manifest()
    files: Mapping[str, SeenFile] = field(default_factory=dict)
    units: Mapping[str, SeenUnit] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    """Reference → digest of the build context ("" when not built by labctl)."""
    objects: Mapping[str, SeenObject] = field(default_factory=dict)
    """A cluster's: the wanted objects and those that carry labctl's label, by their name in plans."""
    facts: Facts | None = None
    """What the host is, where it was asked."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All hosts of a tree, as seen."""

    hosts: Mapping[str, SeenHost] = field(default_factory=dict)


SecretDigests = Mapping[tuple[str, str], str]
"""(host, path) → keyed digest that the secret file is to have."""
