"""Putting files in place on a host: staged and checked first where a program of the host can check them, then switched.

Either nothing is changed, or every file is replaced in one step of its own. The manifest announces all of them before,
so that the next apply goes on wherever this one may be killed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from secrets import token_hex
from typing import Any, Final, Protocol

from labctl.diagnostics import Diagnostic
from labctl.hosts.ansible import Courier, Parcel, Reach
from labctl.hosts.base import Check, HostError, Ran, Site
from labctl.hosts.checks import refusal, run_checks, to_value
from labctl.hosts.disk import unless_said_full
from labctl.hosts.playbooks.library.labctl_place import REQUEST, TREE
from labctl.hosts.ssh import SshShell
from labctl.hosts.ssh_options import program
from labctl.hosts.state import LOCK
from labctl.secrets import Secret
from labctl.values import dataclass

STAGING: Final = "staging"
"""Folder, among labctl's own files, in whose folders files wait until they are checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file to be put in place. ``secret``: it goes from memory to the host and by no other way."""

    path: str
    content: bytes
    mode: int
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a host gets in one go.

    Attributes:
        staging: folder in which files wait, from ``new_staging``.
        items: the files.
        links: files that stay as they are and that checks may have to see beside the new ones.
        checks: of the files as they are staged.
    """

    staging: str
    items: tuple[Item, ...]
    links: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


class Placer(Protocol):
    """Puts files in place on one host."""

    def place(self, load: Load, step: Callable[[], None]) -> Mapping[str, str]:
        """Do it; return path → why not. HostError when nothing was changed. ``step`` stands between two steps."""
        ...


def placer_of(site: Site, courier: Courier) -> Placer:
    """Return how files get to a host: by Ansible where there is a login to it, else through its shell."""
    return AnsiblePlacer(site, site.shell, courier) if isinstance(site.shell, SshShell) else DirectPlacer(site)


def reach_of(shell: SshShell) -> Reach:
    """Return how Ansible gets to a host: over the same connection, and to root by the same way."""
    password = shell.sudo_password
    return Reach(
        address=shell.there.address,
        options=tuple(shell.options()),
        program=program(),
        sudo=shell.run(["printenv", "SUDO_UID"]).ok,
        password=None if password is None else Secret(password),
    )


def new_staging(site: Site) -> str:
    """Return a name for a staging folder that no other apply has: a killed one may still be at work in its own."""
    return site.state(f"{STAGING}/{token_hex(4)}")


def staged(staging: str) -> str:
    """Return the folder that stands for the host's root while files are checked."""
    return f"{staging}/{TREE}"


@dataclass(frozen=True, slots=True)
class DirectPlacer:
    """Writes through the host's shell, one file after the other."""

    site: Site

    def place(self, load: Load, step: Callable[[], None]) -> Mapping[str, str]:
        """Stage and check where there is something to check, then write."""
        if load.checks:
            open_staging(self.site, load.staging)
            try:
                stage(self.site, load.staging, load.items)
                self._show(load)
                step()
                run_checks(self.site.shell, load.checks)
            finally:
                close_staging(self.site)
        failed: dict[str, str] = {}
        for item in load.items:
            step()
            try:
                _write(self.site, self.site.folder, item)
            except OSError as error:
                failed[item.path] = f"{error.filename or item.path}: {error.strerror or error}"
        return failed

    def _show(self, load: Load) -> None:
        for path in load.links:
            content = self.site.shell.read(self.site.at(path))
            if content is not None:
                _write(self.site, staged(load.staging), Item(path=path, content=content, mode=0o600))


@dataclass(frozen=True, slots=True)
class AnsiblePlacer:
    """Sends plain files by Ansible, which checks and switches them on the host; lays secrets beside them itself."""

    site: Site
    shell: SshShell
    courier: Courier

    def place(self, load: Load, step: Callable[[], None]) -> Mapping[str, str]:
        """Send what may be shown in one bundle. Without any, there is nothing for Ansible to do."""
        if all(item.secret for item in load.items) and not load.checks:
            return DirectPlacer(self.site).place(load, step)
        open_staging(self.site, load.staging)
        try:
            stage(self.site, load.staging, (item for item in load.items if item.secret))
            step()
            lock = self.site.state(LOCK)
            held = (self.site.shell.read(lock) or b"").decode()
            request = _request(self.site, load, {"path": lock, "content": held})
            bundle = pack(request, load.items)
            parcel = Parcel(host=self.site.host, reach=reach_of(self.shell), staging=load.staging, bundle=bundle)
            answer = self.courier.bring(parcel)
        finally:
            close_staging(self.site)
        return self._understood(answer, load)

    def _understood(self, answer: Mapping[str, Any], load: Load) -> Mapping[str, str]:
        if answer.get("stale"):
            summary = f"somebody else has taken the lock of `{self.site.host}`; nothing was changed"
            raise HostError(Diagnostic(code="LAB103", summary=summary))
        refused = answer.get("refused")
        if refused:
            ran = Ran(int(refused["code"]), str(refused["out"]), str(refused["err"]))
            raise HostError(refusal(load.checks[int(refused["check"])], ran))
        failed: Mapping[str, str] = answer["problems"]
        return failed


def open_staging(site: Site, staging: str) -> None:
    """Make an empty staging folder that only its owner sees into; what a killed apply has left goes."""
    close_staging(site)
    ran = site.shell.run(["mkdir", "-m", "0700", "--", site.state(STAGING), staging])
    if not ran.ok:
        summary = f"files cannot be staged on `{site.host}`"
        refused = Diagnostic(code="LAB148", summary=summary, detail=ran.tail())
        raise HostError(unless_said_full(site.host, ran.tail(), refused))


def close_staging(site: Site) -> None:
    """Remove whatever is staged."""
    folder = site.state(STAGING)
    if site.shell.look([folder], digest=lambda *_: False):
        site.shell.run(["rm", "-rf", "--", folder])


def stage(site: Site, staging: str, items: Iterable[Item]) -> None:
    """Lay files into the staging folder, for their owner only."""
    for item in items:
        _write(site, staged(staging), Item(path=item.path, content=item.content, mode=0o600))


def _write(site: Site, folder: str, item: Item) -> None:
    place = f"{folder.rstrip('/')}/{item.path}"
    site.shell.make_folders(str(PurePosixPath(place).parent))
    site.shell.write(place, item.content, item.mode)


def _request(site: Site, load: Load, lock: Mapping[str, str]) -> bytes:
    """Return what the module is asked to do, as JSON. Of secret files it has names only."""
    value = {
        "root": site.folder,
        "lock": lock,
        "files": [{"path": item.path, "mode": item.mode} for item in load.items],
        "links": list(load.links),
        "checks": [to_value(check) for check in load.checks],
    }
    return json.dumps(value).encode()


def pack(request: bytes, items: Iterable[Item]) -> bytes:
    """Return a bundle: the request, and the files that may be shown."""
    packed: Final = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as bundle:
        _add(bundle, REQUEST, request)
        for item in items:
            if not item.secret:
                _add(bundle, f"{TREE}/{item.path}", item.content)
    return packed.getvalue()


def _add(bundle: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    bundle.addfile(member, io.BytesIO(content))
