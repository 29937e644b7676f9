"""labctl's own files on a host: the manifest, the key for secret digests, the audit log, the lock."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import hmac
import json
import secrets as random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from labctl.diagnostics import Diagnostic, Severity
from labctl.hosts.base import HostError, Site
from labctl.plan.observed import Manifest
from labctl.plan.wire import WireError, manifest_from_json, manifest_to_json
from labctl.values import dataclass

MANIFEST: Final = "manifest.json"
KEY: Final = "key"
AUDIT: Final = "audit.jsonl"
LOCK: Final = "lock"
BACKUP: Final = "backup"
GENERATED: Final = "secrets/generated.env"
OWN: Final = (MANIFEST, KEY, AUDIT, LOCK)
KEY_BYTES: Final = 32
LOCK_POLL: Final = 0.2
"""Seconds between two looks at a lock that somebody else holds."""


def read_manifest(site: Site) -> Manifest:
    """Return the host's manifest, an empty one when there is none. HostError (LAB102) when it cannot be read."""
    try:
        text = site.shell.read(site.state(MANIFEST))
        return Manifest() if text is None else manifest_from_json(text)
    except (OSError, WireError) as error:
        raise HostError(
            Diagnostic(
                code="LAB102",
                summary=f"the record of what labctl owns on `{site.host}` cannot be read",
                detail=f"{site.state(MANIFEST)}: {error}",
                hint="restore the file from a backup; without it, labctl does not know what it may delete",
            )
        ) from error


def own_state_folder(site: Site) -> None:
    """Make the folder of labctl's own files where it is missing, and remember which folders that made."""
    made = site.shell.make_folders(site.state("").rstrip("/"))
    if made:
        write_manifest(site, Manifest(folders=made))


def write_manifest(site: Site, manifest: Manifest) -> None:
    """Replace the manifest in one step."""
    site.shell.make_folders(site.state("").rstrip("/"))
    site.shell.write(site.state(MANIFEST), manifest_to_json(manifest).encode(), 0o644)


def read_key(site: Site) -> bytes | None:
    """Return the host's key for secret digests, None when it has none yet."""
    with contextlib.suppress(PermissionError):
        return site.shell.read(site.state(KEY))
    return None


def ensure_key(site: Site) -> bytes:
    """Return the host's key, making one when it has none."""
    key = read_key(site)
    if key is None:
        site.shell.make_folders(site.state("").rstrip("/"))
        key = random.token_hex(KEY_BYTES).encode()
        site.shell.write(site.state(KEY), key, 0o600)
    return key


def keyed(key: bytes, sha256: str) -> str:
    """Return the digest that stands for a secret file: says nothing without the key, which stays on the host."""
    return hmac.new(key, sha256.encode(), hashlib.sha256).hexdigest()


def audit(site: Site, entry: Mapping[str, object]) -> None:
    """Add one JSON line to the host's log of applies, with the time, the user and the machine."""
    line = {"at": _now(), **_who(), **entry}
    site.shell.append(site.state(AUDIT), (json.dumps(line, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock."""

    user: str
    machine: str
    since: str
    process: str
    doing: str

    def __str__(self) -> str:
        pid = self.process.partition(".")[0]
        return f"{self.user}@{self.machine} (process {pid}), {self.doing} since {self.since}"


def holder(site: Site) -> Holder | None:
    """Return who holds the host's lock, None when nobody does or the holder has died."""
    content = site.shell.read(site.state(LOCK))
    return None if content is None else _living(site, content)


@contextlib.contextmanager
def locked(
    site: Site,
    doing: str,
    *,
    wait: float = 0,
    force: bool = False,
    note: Callable[[str], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the host's lock. A lock whose holder has died is taken over.

    Args:
        site: the host.
        doing: what for, e.g. ``apply``.
        wait: seconds to wait for somebody else's lock.
        force: take the lock even from a living holder.
        note: is told what is waited for.
        check: called while waiting; may raise to give up.

    Raises:
        HostError: LAB103, the lock is held.
    """
    site.shell.make_folders(site.state("").rstrip("/"))
    mine = _mine(site, doing)
    deadline, told = time.monotonic() + wait, False
    while (other := _take(site, mine, force=force)) is not None:
        if time.monotonic() >= deadline:
            raise HostError(_held(site, other))
        if not told:
            note(f"waiting for the lock of {other}")
            told = True
        check()
        time.sleep(LOCK_POLL)
    try:
        yield
    finally:
        if site.shell.look([site.state("").rstrip("/")], digest=lambda *_: False):
            site.shell.swap(site.state(LOCK), mine, None)


def _take(site: Site, mine: bytes, *, force: bool) -> Holder | None:
    """Try once; return who holds it when that failed."""
    path = site.state(LOCK)
    present = site.shell.read(path)
    other = _living(site, present) if present is not None else None
    if other is not None and not force:
        return other
    if site.shell.swap(path, present, mine):
        return None
    present = site.shell.read(path)
    return (_living(site, present) if present else None) or Holder("somebody", "?", _now(), "?", "starting")


def _living(site: Site, content: bytes) -> Holder | None:
    try:
        value = json.loads(content)
        found = Holder(**{name: str(value[name]) for name in Holder.__slots__})
    except (ValueError, KeyError, TypeError):
        return None
    elsewhere = found.machine != socket.gethostname()
    return found if elsewhere or site.shell.alive(found.process) else None


def _mine(site: Site, doing: str) -> bytes:
    return json.dumps({**_who(), "since": _now(), "process": site.shell.whoami(), "doing": doing}).encode()


def _held(site: Site, other: Holder) -> Diagnostic:
    return Diagnostic(
        code="LAB103",
        severity=Severity.ERROR,
        summary=f"`{site.host}` is locked by {other}",
        hint="wait for it with --wait; if nothing is running there any more, remove the lock with --break-lock",
    )


def _who() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return {"user": user, "machine": socket.gethostname()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
