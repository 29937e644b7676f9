"""The connection to another machine: labctl's agent, started there over OpenSSH."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Final

from labctl.agent.operations import OPERATIONS
from labctl.artefact import Login
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, LostError, Me
from labctl.hosts.bootstrap import Sudo, command
from labctl.hosts.caller import Answer, Check, Told, Values
from labctl.hosts.shell import AgentShell
from labctl.hosts.ssh_errors import Tried, diagnose, lost
from labctl.hosts.ssh_link import GREETING, BrokenLinkError, BugError, End, Link
from labctl.hosts.ssh_options import Destination, environment, program

Password = Callable[[str], str | None]
"""Returns the password for sudo on a host, None when there is none."""

STALE_SOCKET: Final = ("mux_client", "ControlSocket", "Control socket", "master is dead")
"""What ssh says when the shared connection has died: another attempt makes a new one."""

HIDDEN: Final = "Connection closed by"
"""What ssh says when the program that it connects through has ended."""


class SshCaller:
    """``Caller`` over one SSH connection, which is made when it is first needed.

    A connection that breaks is made anew by the next call, and a call that only looks is repeated by itself. Not so
    once a lock was taken over it (``swap``): the lock went with the agent, so everything fails until somebody connects
    anew and takes the lock again.
    """

    def __init__(self, host: str, there: Destination, *, sudo: bool, password: Password) -> None:
        self._tried = Tried(host=host, there=there)
        self._sudo = Sudo.IF_NEEDED if sudo else Sudo.NEVER
        self._password = password
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._failed: Diagnostic | None = None
        self._locked = False
        self.sudo_password: str | None = None
        """The password that sudo took, None where it wanted none."""

    @property
    def usable(self) -> bool:
        """Whether it has not failed for good."""
        return self._failed is None and not (self._locked and (self._link is None or not self._link.alive))

    def call(
        self,
        operation: str,
        values: Values,
        body: bytes = b"",
        *,
        event: Told | None = None,
        check: Check | None = None,
    ) -> Answer:
        """Carry out an operation on the host. LostError when the host cannot be reached."""
        changes = OPERATIONS[operation].changes
        link = self._connected()
        try:
            answer = self._ask(link, operation, values, body, event, check)
        except BrokenLinkError:
            if changes or self._locked:
                raise LostError(lost(self._tried, operation, changes=changes, end=link.end)) from None
            answer = self._again(operation, values, body, event, check)
        self._locked = self._locked or operation == "swap"
        return answer

    def events(self, operation: str, values: Values) -> Generator[bytes, None, None]:
        """Carry out an operation and yield the bytes of its events."""
        link = self._connected()
        try:
            yield from link.stream(operation, values)
        except BrokenLinkError:
            raise LostError(lost(self._tried, operation, changes=False, end=link.end)) from None

    def me(self) -> Me:
        """Return who works on the host."""
        return Me(**self._connected().about)

    def start(self) -> None:
        """Begin to connect without waiting."""
        with self._lock:
            if self._link is None and self._failed is None:
                self._link = self._open()

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            if self._link is not None:
                self._link.close()
            self._link = None

    def _again(self, operation: str, values: Values, body: bytes, event: Told | None, check: Check | None) -> Answer:
        link = self._connected()
        try:
            return self._ask(link, operation, values, body, event, check)
        except BrokenLinkError:
            raise LostError(lost(self._tried, operation, changes=False, end=link.end)) from None

    def _ask(
        self, link: Link, operation: str, values: Values, body: bytes, event: Told | None, check: Check | None
    ) -> Answer:
        try:
            return link.call(operation, values, body, event=event, check=check)
        except BugError as error:
            raise HostError(_bug(self._tried, operation, str(error))) from None

    def _connected(self) -> Link:
        """Return a connection whose agent has greeted. LostError when there is none to be had."""
        with self._lock:
            if self._failed is not None:
                raise LostError(self._failed)
            if self._locked and (self._link is None or not self._link.alive):
                end = self._link.end if self._link is not None else None
                raise LostError(lost(self._tried, "connect", changes=False, end=end))
            try:
                self._link = self._greeted(_unless_broken(self._link) or self._open())
            except LostError as error:
                self._failed = error.diagnostic
                raise
            return self._link

    def _greeted(self, link: Link) -> Link:
        end = _wait(link)
        if end is not None and any(text in end.said for text in STALE_SOCKET):
            link = self._open()
            end = _wait(link)
        if end is not None and self._sudo is not Sudo.NEVER and _wants_password(end):
            password = self._password(self._tried.host)
            if password is not None:
                link = self._open(password)
                end = _wait(link)
                self.sudo_password = password if end is None else None
        if end is not None:
            raise LostError(diagnose(self._tried, self._in_full(end)))
        return link

    def _in_full(self, end: End) -> End:
        """Ask again for what a jump host said: ssh hides it when it shares the connection."""
        if HIDDEN not in end.said:
            return end
        argv = self._tried.there.alone()
        try:
            done = subprocess.run(
                argv, capture_output=True, stdin=subprocess.DEVNULL, env=environment(), timeout=GREETING, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return end
        return end if done.returncode == 0 else replace(end, said=done.stderr.decode(errors="replace"))

    def _open(self, password: str | None = None) -> Link:
        sudo = self._sudo if password is None else Sudo.PASSWORD
        try:
            return Link(self._tried.there.argv(command(sudo)), environment(), password)
        except OSError as error:
            raise LostError(_no_ssh(self._tried, error)) from error


class SshShell(AgentShell):
    """``Shell`` for another machine."""

    def __init__(
        self, host: str, address: str, login: Login, *, sudo: bool, password: Password, shared: bool = True
    ) -> None:
        self.there = Destination(address=address, login=login, shared=shared)
        self._ssh = SshCaller(host, self.there, sudo=sudo, password=password)
        super().__init__(self._ssh)

    @property
    def usable(self) -> bool:
        """Whether calls can still be made."""
        return self._ssh.usable

    @property
    def sudo_password(self) -> str | None:
        """The password that sudo took when the agent was started, None where it wanted none."""
        return self._ssh.sudo_password

    def options(self) -> Sequence[str]:
        """Return ssh's options for this host, for other programs that connect to it: they share its connection.

        User, port, key, jump host, host-key checks and the control socket are all in them; the destination is
        ``there.address``.
        """
        return self.there.options()

    def start(self) -> None:
        """Begin to connect without waiting for it."""
        self._ssh.start()

    def close(self) -> None:
        """End the agent. The SSH connection under it stays for a minute, for the next command."""
        self._ssh.close()


def _unless_broken(link: Link | None) -> Link | None:
    """Return a link that lives, or that ended before its agent came: why it did is still to be said."""
    if link is None or link.alive:
        return link
    return None if link.end is None or link.end.greeted else link


def _wait(link: Link) -> End | None:
    """Wait for the agent; return why it did not come, None when it did."""
    try:
        link.greeting()
    except BrokenLinkError:
        return link.end or End(None, "", "", started=False, greeted=False, late=True, prompts=0)
    return None


def _wants_password(end: End) -> bool:
    return "sudo:" in end.said and ("a password is required" in end.said or "a terminal is required" in end.said)


def _no_ssh(tried: Tried, error: OSError) -> Diagnostic:
    return Diagnostic(
        code="LAB169",
        summary=f"the ssh program `{program()}` cannot be run: {error.strerror or error}",
        path=tried.at(),
        hint="install OpenSSH's client (e.g. apt-get install openssh-client), or name it in LABCTL_SSH",
    )


def _bug(tried: Tried, operation: str, trace: str) -> Diagnostic:
    return Diagnostic(
        code="LAB168",
        summary=f"labctl's helper on `{tried.host}` failed at `{operation}`: this is a bug in labctl",
        detail=trace,
        hint="please report it with these lines",
    )
