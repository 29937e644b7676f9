"""The use case of ``labctl lock``: read what is new or changed, keep the rest, forget what the lab no longer has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from labctl.diagnostics import Diagnostic, DocPath, Severity
from labctl.lockfile import Lock, Locked, key, read_lock, write_lock
from labctl.lockread import lock_model
from labctl.model.lab import Lab
from labctl.placed import PlacedHost
from labctl.usecases import Loaded
from labctl.values import dataclass
from labctl.vram.metadata.errors import MetadataError
from labctl.vram.metadata.sources import HUB, Access


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
    lab, old = placed.lab, read_lock(loaded.path)
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
            entries[name] = lock_model(name, model, access, lambda n, s: _where(lab, placed.hosts, n, s))
            read.append(name)
        except MetadataError as error:
            problems.append(_problem(name, error, fatal=model.ollama is None))
    write_lock(loaded.path, Lock(models=entries))
    return LockReport(
        read=tuple(read),
        kept=tuple(n for n in entries if n not in read),
        removed=tuple(n for n in old.models if n not in entries),
        diagnostics=loaded.document.locate_all(problems) if loaded.document else tuple(problems),
    )


def _problem(name: str, error: MetadataError, *, fatal: bool) -> Diagnostic:
    path: DocPath = ("models", name)
    return Diagnostic(
        code="LAB146",
        severity=Severity.ERROR if fatal else Severity.NOTE,
        summary=f"the facts of `{name}` could not be read: {error}",
        path=path,
        hint=error.hint or "its entry is left out; the built-in catalogue is used where it knows the model",
    )


def _where(lab: Lab, hosts: Mapping[str, PlacedHost], name: str, source: str) -> Access | None:
    """Return how to reach a file of a host that serves the model: directly on this machine, else over SSH."""
    if source.startswith("/") and Path(source).exists():
        return Access()
    users = [d for d in lab.deployments.values() if name in d.model_names]
    for host in (hosts[p.host] for d in users for p in d.on):
        block = lab.hosts[host.name]
        folder = "" if source.startswith("/") else f"{host.places.models}/"
        if not block.is_local:
            target = f"{block.ssh.user}@{block.address}" if block.ssh.user else block.address
            return _over_ssh(target, block.ssh.port, folder)
        if (Path(folder) / source).exists():
            return Access(run=lambda command, f=folder: _run(["sh", "-c", f"cd {f or '/'} && {command}"]))  # type: ignore[misc]
    return None


def _over_ssh(target: str, port: int | None, folder: str) -> Access:
    """Return access to files in a folder of another machine; host keys are verified as ssh is configured to."""
    options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *(["-p", str(port)] if port else [])]
    go = f"cd '{folder}' && " if folder else ""
    return replace(Access(), run=lambda command: _run(["ssh", *options, "--", target, go + command]))


def _run(argv: list[str]) -> bytes:
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(done.returncode, lines[-1] if lines else f"`{argv[0]}` failed")
    return done.stdout
