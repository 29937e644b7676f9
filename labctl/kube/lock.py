"""One apply at a time in a cluster's namespace, by a Lease that its holder renews.

A holder that no longer renews has died; one on this machine whose process is gone has, too. The Lease says who, from
where, since when and for what.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import secrets as random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from labctl.artefact import Cluster
from labctl.hosts.base import HostError
from labctl.hosts.local import LocalShell
from labctl.hosts.state import Holder, Lock, broken, held
from labctl.kube.api import Api, ApiError, Unreachable, Value, segment
from labctl.kube.fields import MANAGER
from labctl.kube.record import OWN, base

DURATION: Final = 60
"""Seconds after which a lock that is not renewed is nobody's."""
RENEWED: Final = 15
POLL: Final = 1.0
_WHO: Final = "labctl.dev/holder"
_HELD: Final[set[str]] = set()
"""Locks that this process holds: one that it could not give back is not among them."""


@contextlib.contextmanager
def locked(
    api: Api,
    cluster: Cluster,
    doing: str,
    *,
    wait: float = 0,
    force: bool = False,
    note: Callable[[str], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a cluster's namespace.

    Yields a check for the holder: HostError (LAB103) once somebody has broken the lock.

    Args:
        api: the server.
        cluster: where on it.
        doing: what for, e.g. ``apply``.
        wait: seconds to wait for somebody else's lock.
        force: take the lock even from a living holder.
        note: is told, in words, what is waited for and whose lock is taken over.
        check: called while waiting; may raise to give up.

    Raises:
        HostError: LAB103, the lock is held.
    """
    lease = _Lease(api, cluster, doing)
    deadline, told = time.monotonic() + wait, False
    while (other := lease.take(force=force, note=note)) is not None:
        if time.monotonic() >= deadline:
            raise HostError(held(_where(cluster), other))
        if not told:
            note(f"waiting for the lock of {other}")
            told = True
        check()
        time.sleep(POLL)
    lease.keep()
    try:
        yield lease.check
    finally:
        lease.release()


def read(api: Api, cluster: Cluster) -> Lock | None:
    """Return the lock of a cluster's namespace, None when nobody has it."""
    lease = _Lease(api, cluster, "")
    there = api.get(lease.path(name=True))
    if there is None or _holder(there) is None:
        return None
    notes = _notes(there)
    user = str(there["spec"]["holderIdentity"]).partition("@")[0]
    known = {key: str(notes.get(key, "?")) for key in ("machine", "since", "process", "doing")}
    return Lock(Holder(user=user, **known), stale=not lease.lives(there))


@dataclass(slots=True)
class _Lease:
    api: Api
    cluster: Cluster
    doing: str
    mine: str = ""
    process: str = field(default_factory=lambda: LocalShell().whoami())
    since: str = ""
    token: str = field(default_factory=lambda: random.token_hex(8))
    broken: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.since = _now()
        self.mine = f"{_user()}@{socket.gethostname()} (process {self.process.partition('.')[0]})"

    def take(self, *, force: bool, note: Callable[[str], None]) -> str | None:
        """Try once; return who holds it when that failed."""
        there = self.api.get(self.path(name=True))
        if there is None:
            return None if self._write("POST", {}) else "somebody who has just begun"
        other = _holder(there)
        lives = other is not None and self.lives(there)
        if lives and not force:
            return other
        if not self._write("PUT", {"resourceVersion": there["metadata"]["resourceVersion"]}):
            return other or "somebody who has just begun"
        if other is not None:
            how = "breaking the lock of" if lives else "taking over the lock that was left behind by"
            note(f"{how} {other}")
        return None

    def keep(self) -> None:
        """Begin to renew it."""
        _HELD.add(self.token)
        self.thread = threading.Thread(target=self._renew, daemon=True)
        self.thread.start()

    def check(self) -> None:
        """HostError when somebody has broken it."""
        if self.broken:
            raise HostError(broken(_where(self.cluster), self.broken))

    def release(self) -> None:
        """Give it back; what cannot be done now happens by itself when it runs out."""
        self.ended.set()
        _HELD.discard(self.token)
        if self.thread is not None:
            self.thread.join()
        with contextlib.suppress(ApiError, Unreachable):
            there = self.api.get(self.path(name=True))
            if there is not None and self._is_mine(there):
                meta = there["metadata"]
                options = {"preconditions": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}}
                self.api.call("DELETE", self.path(name=True), body=options)

    def _renew(self) -> None:
        while not self.ended.wait(RENEWED):
            with contextlib.suppress(ApiError, Unreachable):
                there = self.api.get(self.path(name=True))
                if there is None or not self._is_mine(there):
                    self.broken = "somebody" if there is None else _holder(there) or "somebody"
                    return
                self._write("PUT", {"resourceVersion": there["metadata"]["resourceVersion"]})

    def _is_mine(self, there: Value) -> bool:
        return _notes(there).get("token") == self.token

    def lives(self, there: Value) -> bool:
        """Whether the holder of a lease still works."""
        notes = _notes(there)
        if notes.get("machine") == socket.gethostname() and notes.get("process") == self.process:
            return notes.get("token") in _HELD
        if notes.get("machine") == socket.gethostname():
            return LocalShell().alive(str(notes.get("process")))
        spec = there.get("spec") or {}
        return _age(str(spec.get("renewTime") or "")) < (spec.get("leaseDurationSeconds") or DURATION)

    def _write(self, method: str, meta: Mapping[str, Any]) -> bool:
        """Write the lease; False when somebody else was faster."""
        who = {"machine": socket.gethostname(), "process": self.process, "token": self.token}
        who |= {"doing": self.doing, "since": self.since}
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": base(self.cluster),
                "labels": OWN,
                "annotations": {_WHO: json.dumps(who)},
                **meta,
            },
            "spec": {"holderIdentity": self.mine, "leaseDurationSeconds": DURATION, "renewTime": _micro()},
        }
        try:
            self.api.call(method, self.path(name=method == "PUT"), {"fieldManager": MANAGER}, body)
        except ApiError as error:
            if error.code in {404, 409} and error.reason in {"AlreadyExists", "Conflict", "NotFound"}:
                if 'namespaces "' in error.message:
                    raise
                return False
            raise
        return True

    def path(self, *, name: bool) -> str:
        """Return the address of the lease, or of all leases."""
        folder = f"/apis/coordination.k8s.io/v1/namespaces/{segment(self.cluster.namespace)}/leases"
        return f"{folder}/{base(self.cluster)}" if name else folder


def _holder(there: Value) -> str | None:
    """Return who holds a lease, in words; None for one that nobody holds."""
    who = (there.get("spec") or {}).get("holderIdentity")
    notes = _notes(there)
    return f"{who}, {notes.get('doing', 'at work')} since {notes.get('since', '?')}" if who else None


def _notes(there: Value) -> Value:
    try:
        value = json.loads((there["metadata"].get("annotations") or {}).get(_WHO) or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _age(time_of: str) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(time_of)).total_seconds()
    except ValueError:
        return float("inf")


def _where(cluster: Cluster) -> str:
    return f"namespace `{cluster.namespace}`"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _micro() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
