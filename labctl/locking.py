"""The use case of ``labctl lock``: read what is new or changed, keep the rest, forget what the lab no longer has."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from labctl.diagnostics import Diagnostic, DocPath, LabctlError, Severity
from labctl.lockfile import Lock, Locked, key, read_lock, write_lock
from labctl.lockread import Place, lock_model
from labctl.model.host import Host
from labctl.resolve.lab import PlacedLab
from labctl.usecases import Loaded
from labctl.values import dataclass
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.sources import HUB, Access

_TIMEOUT: Final = 60
"""Seconds that one command on another machine may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockReport:
    """What ``labctl lock`` did, by model."""

    read: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every model is locked that can be."""
        return not any(d.is_error for d in self.diagnostics)


def lock_lab(loaded: Loaded, *, update: bool, say: Callable[[str], None]) -> LockReport:
    """Lock a lab's models; with ``update`` also those that are locked already. One failure does not stop the others."""
    placed = loaded.need_placed()
    lab, old = placed.lab, _old_lock(loaded.path)
    models = {n: m for n, m in lab.models.items() if m.tiny is None}
    access = Access(hub=os.environ.get("HF_ENDPOINT", HUB), token=os.environ.get("HF_TOKEN", ""))
    entries: dict[str, Locked] = {}
    read: list[str] = []
    problems: list[Diagnostic] = []
    for name, model in models.items():
        if not update and name in old.models and old.models[name].source == key(model):
            entries[name] = old.models[name]
            continue
        say(f"reading {name}: {model.source}")
        try:
            entries[name] = lock_model(model, access, partial(_find, placed, name))
            read.append(name)
        except MetadataError as error:
            problems.append(_problem(name, error, fatal=model.ollama is None))
            if name in old.valid(models):
                entries[name] = old.models[name]
    write_lock(loaded.path, Lock(models=entries))
    return LockReport(
        read=tuple(read),
        kept=tuple(n for n in entries if n not in read),
        removed=tuple(n for n in old.models if n not in entries),
        diagnostics=loaded.document.locate_all(problems) if loaded.document else tuple(problems),
    )


def _old_lock(folder: Path) -> Lock:
    """Return the lock that there is; a damaged one counts as none, since it is about to be made anew."""
    try:
        return read_lock(folder)
    except LabctlError:
        return Lock()


def _problem(name: str, error: MetadataError, *, fatal: bool) -> Diagnostic:
    path: DocPath = ("models", name)
    return Diagnostic(
        code="LAB146",
        severity=Severity.ERROR if fatal else Severity.NOTE,
        summary=f"the facts of `{name}` could not be read: {error}",
        path=path,
        hint=error.hint or "its entry is left out; the built-in catalogue is used where it knows the model",
    )


def _find(placed: PlacedLab, model: str, path: str) -> Place | None:
    """Return where a file of a host is: on this machine, else over SSH on the first host that serves the model."""
    hosts = {s.host.name: s.host for s in placed.servers if model in {m.name for m in s.models}}
    for name, host in sorted(hosts.items()):
        block = placed.lab.hosts[name]
        folder = Path(host.places.root).expanduser() / host.places.models
        if not block.is_local:
            return Place(path if path.startswith("/") else f"{folder}/{path}", Access(run=partial(_over_ssh, block)))
        if (folder / path).exists():
            return Place(str(folder / path), Access())
    return None


def _over_ssh(host: Host, command: str) -> bytes:
    """Run a command on another machine; host keys are verified as ssh is configured to."""
    ssh = host.ssh
    target = f"{ssh.user}@{host.address}" if ssh.user else host.address
    given = (("-p", ssh.port), ("-i", ssh.identity), ("-J", ssh.jump))
    options = [text for flag, value in given if value is not None for text in (flag, str(value))]
    return _run(["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *options, "--", target, command])


def _run(argv: list[str]) -> bytes:
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"`{argv[0]}` did not answer within {_TIMEOUT} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(done.returncode, lines[-1] if lines else f"`{argv[0]}` failed")
    return done.stdout
