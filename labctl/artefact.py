"""What a lab renders to: files, secret files, model files, images and units, by host; and the tree that holds them.

A ``Tree`` is a value. It is compared with what is observed on the hosts (``labctl.plan``) or written to a folder
(``labctl render``); nothing here touches a disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from labctl.diagnostics import DocPath
from labctl.values import dataclass
from labctl.workload import Health, SecretText, Start


class Format(StrEnum):
    """How a secret file's entries are written."""

    ENV = "env"
    """``NAME="value"`` lines, for compose ``env_file`` and systemd ``EnvironmentFile``."""
    RAW = "raw"
    """The one entry's value and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file with content that may be shown. ``path`` is relative to the host's root."""

    host: str
    path: str
    content: bytes
    mode: int = 0o644
    origin: DocPath = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFile:
    """A file whose values are only known when it is written. What is compared is a keyed digest, never the value."""

    host: str
    path: str
    entries: Mapping[str, SecretText]
    format: Format = Format.ENV
    mode: int = 0o600
    origin: DocPath = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model file to be present on a host: fetched once, verified, never shown."""

    host: str
    path: str
    url: str
    """``https://…``, ``hf://org/repo/file``, ``file:///…``."""
    size: int | None = None
    sha256: str | None = None
    origin: DocPath = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image that is built on the host, once, from files of the tree."""

    host: str
    reference: str
    context: str
    """Folder of the tree (relative to the host's root) that holds the Dockerfile."""
    origin: DocPath = ()


class Manager(StrEnum):
    """Who starts and stops units on a host."""

    COMPOSE = "compose"
    SYSTEMD = "systemd"
    SYSTEMD_USER = "systemd-user"
    SUPERVISOR = "supervisor"
    KUBERNETES = "kubernetes"
    NIXOS = "nixos"


SYSTEM: Final = "nixos-system"
"""``Unit.id`` of a NixOS host's system as a whole: starting it anew is building, activating and confirming it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """A Kubernetes object, applied through the API; ``path`` is its document in the rendered folder.

    Attributes:
        host: name of the cluster's root.
        value: the object as plain values: canonical quantities, nothing that the server fills in.
        content: the same as YAML text, with ``value`` of a Secret's keys left out.
        entries: of a Secret: key → text, known only when it is applied. Never rendered, compared by keyed digest.
        wave: objects of a lower wave are applied, and ready, before those of a higher one.
    """

    host: str
    path: str
    value: Mapping[str, Any]
    content: bytes
    entries: Mapping[str, SecretText] = field(default_factory=dict)
    wave: int = 0
    origin: DocPath = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Something that a manager runs.

    Attributes:
        name: the workload's name.
        id: how the manager calls it: a compose service, a systemd unit, a supervisor program.
        project: path (relative to the host's root) of the file that the manager loads: compose.yaml, supervisord.conf;
            of the unit file itself for systemd.
        fingerprint: digest of everything whose change must restart it: its rendered definition and the content of
            its configuration files (not of secrets: those count by their own digest).
        files: paths whose change restarts it, SecretFile and ModelFile paths among them.
        after: units of the same host that must be healthy before it starts.
        check: host-side URL or None: where the executor may ask for its health from outside.
        turns: the exclusive group in which it takes turns: one that is not ``ALWAYS`` is stopped where another one is.
        image: the container image that it runs and that has to be pulled; None when there is nothing to pull.
    """

    host: str
    name: str
    id: str
    manager: Manager
    project: str
    fingerprint: str
    files: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    health: Health | None = None
    check: str | None = None
    start: Start = Start.ALWAYS
    time_limit: int = 600
    """Seconds that a task may take (``Start.ONCE``)."""
    turns: str | None = None
    image: str | None = None
    origin: DocPath = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to log in to a host. What is None comes from ``~/.ssh/config`` and OpenSSH's own defaults."""

    user: str | None = None
    port: int | None = None
    identity: str | None = None
    jump: str | None = None
    sudo: bool | None = None
    """Become root by sudo; None: where the login is not root and the host's root folder is not its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A Kubernetes cluster: where a lab's ``Object`` artefacts go."""

    namespace: str
    context: str | None = None
    """Context of the kubeconfig."""
    lab: str = ""
    """The lab's name: what labctl's label on everything that it owns there says; the namespace when empty."""
    server: HostRoot | None = None
    """The machine whose k3s is its server, where labctl looks after that one, too: without a ``context``, the
    kubeconfig that k3s keeps there is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """How a NixOS host gets a new system.

    Attributes:
        confirm: seconds that labctl has, once the new system is active, to log in anew and confirm it. Then the host
            takes the old one back by itself.
        build: the machine that builds, as OpenSSH calls it (``user@address``); None: the host itself. Root of the host
            has to be able to log in there.
    """

    confirm: float = 60
    build: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoot:
    """Where a host's part of the tree lands.

    With ``cluster`` it is not a machine but a Kubernetes API: its ``Object`` artefacts are applied, its plain files are
    only rendered (``kustomization.yaml``).
    """

    host: str
    root: str
    """Absolute folder; ``~`` is the applying user's home. ``/`` for most targets."""
    state: str
    """Folder (relative to ``root``) for labctl's manifest, lock and audit log."""
    managers: tuple[Manager, ...] = ()
    address: str = "localhost"
    login: Login = Login()
    cluster: Cluster | None = None
    activation: Activation | None = None
    after: tuple[str, ...] = ()
    """Names of roots that are done before this one is begun: they may be what brings it. Destroyed after this one."""


Artefact = File | SecretFile | ModelFile
Item = Artefact | Object | Image | Unit | HostRoot
"""Whatever a target may return."""


class TreeError(ValueError):
    """Two artefacts claim one path, or a path leaves its root: a bug in a target, or a clash of user overrides."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything a lab renders to. Use ``Tree.of``; iteration is sorted, paths are unique per host."""

    artefacts: tuple[Artefact, ...] = ()
    images: tuple[Image, ...] = ()
    units: tuple[Unit, ...] = ()
    roots: Mapping[str, HostRoot] = field(default_factory=dict)
    objects: tuple[Object, ...] = ()

    @classmethod
    def of(cls, items: Iterable[Item]) -> Tree:
        """Sort and check; TreeError on a clash or an unsafe path."""
        artefacts: dict[tuple[str, str], Artefact] = {}
        images: dict[tuple[str, str], Image] = {}
        units: dict[tuple[str, str], Unit] = {}
        roots: dict[str, HostRoot] = {}
        objects: dict[tuple[str, str], Object] = {}
        for item in items:
            match item:
                case Object():
                    _check_path(item.path)
                    _add(objects, (item.host, item.path), item)
                case HostRoot():
                    roots[item.host] = item
                case Image():
                    images[item.host, item.reference] = item
                case Unit():
                    _add(units, (item.host, item.name), item)
                case _:
                    _check_path(item.path)
                    _add(artefacts, (item.host, item.path), item)
        return cls(
            tuple(artefacts[k] for k in sorted(artefacts)),
            tuple(images[k] for k in sorted(images)),
            tuple(units[k] for k in sorted(units)),
            {k: roots[k] for k in sorted(roots)},
            tuple(objects[k] for k in sorted(objects)),
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts that have a root, sorted."""
        return tuple(self.roots)

    def of_host(self, host: str) -> Tree:
        """Return the part of one host."""
        return Tree(
            tuple(a for a in self.artefacts if a.host == host),
            tuple(i for i in self.images if i.host == host),
            tuple(u for u in self.units if u.host == host),
            {k: v for k, v in self.roots.items() if k == host},
            tuple(o for o in self.objects if o.host == host),
        )

    def items(self) -> Iterator[Item]:
        """Everything that it holds, so that trees can be joined."""
        yield from (*self.artefacts, *self.objects, *self.images, *self.units, *self.roots.values())

    def files(self) -> Iterator[File]:
        """The artefacts whose content may be shown."""
        return (a for a in self.artefacts if isinstance(a, File))

    @property
    def secret_names(self) -> frozenset[str]:
        """Names of the secrets whose values its files and objects hold."""
        return frozenset(self.secret_origins)

    @property
    def secret_origins(self) -> Mapping[str, DocPath]:
        """Name of each secret → the part of lab.yaml that first asked for a file or object with its value."""
        found: dict[str, DocPath] = {}
        holders: list[SecretFile | Object] = [a for a in self.artefacts if isinstance(a, SecretFile)]
        for holder in (*holders, *self.objects):
            for name in (name for text in holder.entries.values() for name in text.names):
                found.setdefault(name, holder.origin or ("secrets",))
        return found

    def digest(self) -> str:
        """SHA-256 over everything that can be known without secrets."""
        lines = [_line(a) for a in self.artefacts]
        lines += [f"unit {u.host}:{u.name} {u.fingerprint} {u.start}" for u in self.units]
        lines += [f"image {i.host}:{i.reference}" for i in self.images]
        lines += [_object(o) for o in self.objects]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _line(artefact: Artefact) -> str:
    where = f"{artefact.host}:{artefact.path}"
    match artefact:
        case File():
            return f"file {where} {artefact.mode:o} {artefact.digest}"
        case SecretFile():
            entries = {name: _parts(text) for name, text in artefact.entries.items()}
            return f"secret {where} {artefact.mode:o} {artefact.format} {json.dumps(entries)}"
        case ModelFile():
            return f"model {where} {artefact.url} {artefact.sha256}"


def _object(item: Object) -> str:
    entries = {name: _parts(text) for name, text in item.entries.items()}
    return f"object {item.host}:{item.path} {item.wave} {item.digest} {json.dumps(entries)}"


def _parts(text: SecretText) -> list[str | dict[str, str]]:
    return [part if isinstance(part, str) else {"secret": part.name} for part in text.parts]


K = tuple[str, str]
V = TypeVar("V")


def _add(known: dict[K, V], key: K, item: V) -> None:
    if known.setdefault(key, item) is not item:
        message = f"two artefacts for {key[0]}:{key[1]}"
        raise TreeError(message)


def _check_path(path: str) -> None:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != path or path in {"", "."}:
        message = f"unsafe path {path!r}"
        raise TreeError(message)
