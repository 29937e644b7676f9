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

from labctl.diagnostics import Diagnostic
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
TURNS: Final = "turns.json"
OWN: Final = (MANIFEST, KEY, AUDIT, LOCK, TURNS)
KEY_BYTES: Final = 32
LOCK_POLL: Final = 0.2
"""Seconds between two looks at a lock that somebody else holds."""
LOCK_WATCH: Final = 1.0
"""Seconds between two looks of a holder at its own lock."""
MACHINE_ID: Final = "/etc/machine-id"


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
    line = {"at": now(), **who(), **entry}
    site.shell.append(site.state(AUDIT), (json.dumps(line, ensure_ascii=False) + "\n").encode())


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock.

    Attributes:
        user, machine: who runs labctl, and where.
        since: ISO 8601.
        process: the process that works on the host for it, in the words of the host's shell: ``alive`` knows it.
        doing: what for.
        host: the machine that ``process`` belongs to; "" where that is not known.
    """

    user: str
    machine: str
    since: str
    process: str
    doing: str
    host: str = ""

    def __str__(self) -> str:
        pid = self.process.partition(".")[0]
        return f"{self.user}@{self.machine} (process {pid}), {self.doing} since {self.since}"


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock as it was found. A stale one was left behind by a process that has ended; the next apply takes it."""

    holder: Holder
    stale: bool


def read_lock(site: Site) -> Lock | None:
    """Return the host's lock, None when there is none."""
    content = site.shell.read(site.state(LOCK))
    found = _holder(content) if content is not None else None
    return None if found is None else Lock(found, stale=not _lives(site, found))


@contextlib.contextmanager
def locked(
    site: Site,
    doing: str,
    *,
    wait: float = 0,
    force: bool = False,
    note: Callable[[str], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[], None]]:
    """Hold the host's lock. A lock whose holder has died is taken over.

    Yields a check for the holder: HostError (LAB103) once somebody has broken the lock. It looks once a second at most.

    Args:
        site: the host.
        doing: what for, e.g. ``apply``.
        wait: seconds to wait for somebody else's lock.
        force: take the lock even from a living holder.
        note: is told, in words, what is waited for and whose lock is taken over.
        check: called while waiting; may raise to give up.

    Raises:
        HostError: LAB103, the lock is held.
    """
    site.shell.make_folders(site.state("").rstrip("/"))
    mine = _mine(site, doing)
    deadline, told = time.monotonic() + wait, False
    while (other := _take(site, mine, force=force, note=note)) is not None:
        if time.monotonic() >= deadline:
            raise HostError(held(f"`{site.host}`", other))
        if not told:
            note(f"waiting for the lock of {other}")
            told = True
        check()
        time.sleep(LOCK_POLL)
    try:
        yield _Watch(site, mine)
    finally:
        if site.shell.look([site.state("").rstrip("/")], digest=lambda *_: False):
            site.shell.swap(site.state(LOCK), mine, None)


class _Watch:
    """Tells the holder of a lock when it has been broken."""

    def __init__(self, site: Site, mine: bytes) -> None:
        self._site, self._mine, self._looked = site, mine, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._looked < LOCK_WATCH:
            return
        self._looked = time.monotonic()
        content = self._site.shell.read(self._site.state(LOCK))
        other = None if content in {None, self._mine} else _holder(content or b"")
        if other is not None:
            raise HostError(broken(f"`{self._site.host}`", other))


def _take(site: Site, mine: bytes, *, force: bool, note: Callable[[str], None]) -> Holder | None:
    """Try once; return who holds it when that failed."""
    path = site.state(LOCK)
    present = site.shell.read(path)
    other = _holder(present) if present is not None else None
    lives = other is not None and _lives(site, other)
    if lives and not force:
        return other
    if site.shell.swap(path, present, mine):
        if other is not None:
            _took(site, other, lives=lives, note=note)
        return None
    present = site.shell.read(path)
    return (_holder(present) if present else None) or Holder("somebody", "?", now(), "?", "starting")


def _took(site: Site, other: Holder, *, lives: bool, note: Callable[[str], None]) -> None:
    """Tell whose lock was taken, and write into the host's log what its holder could not: that it was cut off."""
    note(f"{'breaking the lock of' if lives else 'taking over the lock that was left behind by'} {other}")
    entry = {"at": other.since, "user": other.user, "machine": other.machine, "action": other.doing}
    if not lives:
        audit(site, {**entry, "result": "cut off"})


def _holder(content: bytes) -> Holder | None:
    """Read a lock; None when it is damaged, and so nobody's."""
    try:
        value = {"host": "", **json.loads(content)}
        return Holder(**{name: str(value[name]) for name in Holder.__slots__})
    except (ValueError, KeyError, TypeError):
        return None


def _lives(site: Site, found: Holder) -> bool:
    """Whether a lock's holder still works. One on another machine (a shared folder) cannot be asked: it does."""
    elsewhere = bool(found.host) and found.host != _machine(site)
    return elsewhere or site.shell.alive(found.process)


def _machine(site: Site) -> str:
    """Return what tells a host from all others, "" where nothing does."""
    with contextlib.suppress(OSError):
        return (site.shell.read(MACHINE_ID) or b"").decode(errors="replace").strip()
    return ""


def _mine(site: Site, doing: str) -> bytes:
    mine = {**who(), "since": now(), "process": site.shell.whoami(), "doing": doing, "host": _machine(site)}
    return json.dumps(mine).encode()


def held(where: str, other: object) -> Diagnostic:
    """Return LAB103: the lock of a place (a host, a namespace) is somebody else's."""
    return Diagnostic(
        code="LAB103",
        summary=f"{where} is locked by {other}",
        hint="wait for it with --wait; if nothing is running there any more, remove the lock with --break-lock",
    )


def broken(where: str, other: object) -> Diagnostic:
    """Return LAB103: somebody took the lock of a place from us."""
    return Diagnostic(
        code="LAB103",
        summary=f"the lock of {where} was broken by {other}",
        hint="nothing more was done there; run the same command again when that one has ended",
    )


def who() -> dict[str, str]:
    """Return who runs labctl, and on which machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return {"user": user, "machine": socket.gethostname()}


def now() -> str:
    """Return the time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
