"""Who applied what to which host, when, and how it ended; and who is at it now: read from the hosts' own files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from labctl.artefact import HostRoot
from labctl.diagnostics import Diagnostic
from labctl.hosts.backend import backend_of
from labctl.hosts.base import HostError
from labctl.hosts.connect import connect
from labctl.hosts.state import AUDIT, Lock, read_lock
from labctl.values import dataclass

AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a host's log.

    Attributes:
        at: ISO 8601; ``user``, ``machine``: who ran labctl, and where.
        action: ``apply``, ``destroy``, ``rollback``, ``switch``.
        lab: the lab's name; ``plan``: digest of the plan.
        result: ``done``, ``failed``, ``interrupted``.
        done: how many changes were made; ``failed``: addresses of those that could not be.
    """

    host: str
    at: str
    user: str = "?"
    machine: str = "?"
    action: str = "?"
    lab: str = ""
    plan: str = ""
    result: str = "?"
    done: int = 0
    failed: tuple[str, ...] = ()


def history(roots: Iterable[HostRoot], last: int) -> tuple[tuple[Entry, ...], tuple[Diagnostic, ...]]:
    """Return the last entries of all hosts and clusters, oldest first, and why some could not be asked."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(_read, roots))
    entries = sorted((e for entries, _ in found for e in entries), key=lambda e: (e.at, e.host))
    return tuple(entries[-last:]), tuple(p for _, problems in found for p in problems)


def locks(roots: Iterable[HostRoot]) -> Mapping[str, Lock]:
    """Return the locks that there are, by host, stale ones among them. Hosts that cannot be asked have none."""
    asked = list(roots)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip((root.host for root in asked), pool.map(_lock, asked), strict=True))
    return {host: lock for host, lock in found.items() if lock is not None}


def _lock(root: HostRoot) -> Lock | None:
    backend = backend_of(root)
    with contextlib.suppress(HostError, OSError):
        return read_lock(connect(root)) if backend is None else backend.lock(root)
    return None


def _read(root: HostRoot) -> tuple[tuple[Entry, ...], tuple[Diagnostic, ...]]:
    backend = backend_of(root)
    try:
        if backend is not None:
            return tuple(parse(root.host, backend.log(root))), ()
        site = connect(root)
        content = site.shell.read(site.state(AUDIT)) or b""
    except HostError as error:
        return (), (error.diagnostic,)
    except OSError as error:
        summary = f"the log of `{root.host}` cannot be read: {error.strerror or error}"
        return (), (Diagnostic(code="LAB101", summary=summary, detail=str(error.filename or "")),)
    return tuple(parse(root.host, content)), ()


def parse(host: str, content: bytes) -> Iterable[Entry]:
    """Yield the entries of a log. What a power failure cut off is left out; what a later version adds is ignored."""
    for line in content.decode("utf-8", "replace").splitlines():
        try:
            value: dict[str, Any] = json.loads(line)
            texts = {name: str(value[name]) for name in _TEXTS if name in value}
            failed = tuple(str(address) for address in value.get("failed", ()))
            yield Entry(host=host, done=int(value.get("done", 0)), failed=failed, **texts)
        except (ValueError, TypeError, AttributeError):
            continue


_TEXTS: Final = ("at", "user", "machine", "action", "lab", "plan", "result")
