"""What it means when a connection does not come about, in words that help.

OpenSSH tells its problems on standard error and exits with 255. Its sentences are not translated; those looked for here
are the same from OpenSSH 7 to 10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from labctl.diagnostics import Diagnostic, DocPath
from labctl.hosts.ssh_link import End, trouble
from labctl.hosts.ssh_options import Destination, jumps
from labctl.values import dataclass

SSH_FAILED: Final = 255
LINES: Final = 6
"""Lines of what was said that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What was tried.

    Attributes:
        host: name in lab.yaml.
        there: where.
        password: a password for sudo was given.
    """

    host: str
    there: Destination
    password: bool = False

    def at(self, *keys: str) -> DocPath:
        """Return the part of lab.yaml about it."""
        return ("hosts", self.host, *keys)


def diagnose(tried: Tried, end: End) -> Diagnostic:
    """Return why an agent did not come about."""
    if end.late:
        return _out_of_reach(tried, "it accepted the connection and then said nothing for a minute")
    words = trouble(end)
    if words:
        return _TROUBLES[words[0]](tried, words[1:])
    if end.code == SSH_FAILED and not end.started:
        return _of_ssh(tried, end)
    return _of_host(tried, end)


def lost(tried: Tried, operation: str, *, changes: bool, end: End | None) -> Diagnostic:
    """Return that a connection broke in the middle of an operation, or before the next one."""
    unknown = "it is not known whether the last step was done; " if changes else ""
    return Diagnostic(
        code="LAB168",
        summary=f"the connection to `{tried.host}` broke (at `{operation}`)",
        detail=_said(end) if end is not None else "",
        path=tried.at(),
        hint=f"{unknown}see that the host runs and run the same command again: it goes on where this one stopped",
    )


def _of_ssh(tried: Tried, end: End) -> Diagnostic:
    """Ssh itself gave up."""
    said = end.said
    for pattern, explain in _SENTENCES:
        found = re.search(pattern, said)
        if found:
            return explain(tried, end, found)
    return _out_of_reach(tried, "", _said(end))


def _of_host(tried: Tried, end: End) -> Diagnostic:
    """The login worked; what ran on the host did not."""
    said = end.said
    if "sudo:" in said or end.prompts:
        return _of_sudo(tried, end)
    if "currently not available" in said + end.printed or "nologin" in said:
        return _refused(tried, "the account has no shell", _said(end))
    return Diagnostic(
        code="LAB165",
        summary=f"labctl's helper does not start on `{tried.host}` (exit status {end.code})",
        detail=_said(end),
        path=tried.at(),
        hint=f"see what this prints: ssh {tried.there.name} python3 --version",
    )


def _of_sudo(tried: Tried, end: End) -> Diagnostic:
    said = end.said
    if end.prompts > 1 or "incorrect password" in said:
        hint = "give the password of the login, not of root"
        return _sudo(tried, "LAB167", f"sudo on `{tried.host}` does not accept the password", hint, end)
    if "a password is required" in said or "a terminal is required" in said:
        hint = (
            "give it with --ask-sudo-password, or in the environment variable LABCTL_SUDO_PASSWORD; "
            "or allow the login to use sudo without one; or log in as root"
        )
        return _sudo(tried, "LAB166", f"sudo on `{tried.host}` asks for a password", hint, end)
    hint = "allow it in sudoers (run: visudo), log in as root, or say `sudo: false` for a host that needs no root"
    return _sudo(tried, "LAB167", f"sudo on `{tried.host}` refuses", hint, end)


def _sudo(tried: Tried, code: str, summary: str, hint: str, end: End) -> Diagnostic:
    return Diagnostic(code=code, summary=summary, detail=_said(end), path=tried.at("ssh"), hint=hint)


def _unknown_key(tried: Tried, end: End, found: re.Match[str]) -> Diagnostic:  # noqa: ARG001 - as its sisters
    through = [j.name for j in jumps(tried.there.login)]
    via = f" (or of `{'`, `'.join(through)}`, which is gone through)" if through else ""
    return Diagnostic(
        code="LAB160",
        summary=f"the host key of `{tried.host}`{via} is not known: it may be any machine",
        detail=_said(end),
        path=tried.at("address"),
        hint=f"compare its fingerprint with the machine's own, then accept it: labctl trust {tried.host}",
    )


def _changed_key(tried: Tried, end: End, found: re.Match[str]) -> Diagnostic:
    line = found["line"] if "line" in found.re.groupindex else ""
    remove = f"remove that line and run `labctl trust {tried.host}`" if line else "remove the old key"
    return Diagnostic(
        code="LAB161",
        summary=f"THE HOST KEY OF `{tried.host}` HAS CHANGED: somebody may be in between, or it was installed anew",
        detail=f"known until now: {line}\n{_fingerprint(end.said)}" if line else _said(end),
        path=tried.at("address"),
        hint=f"only if you know why it changed: {remove}; nothing was sent to it",
    )


def _fingerprint(said: str) -> str:
    found = re.search(r"fingerprint for the (\S+) key sent by the remote host is\s+(\S+)", said)
    return f"sent by it now: {found[1]} {found[2].rstrip('.')}" if found else ""


def _denied(tried: Tried, end: End, found: re.Match[str]) -> Diagnostic:
    return _refused(tried, found[0].strip(), _said(end))


def _refused(tried: Tried, why: str, detail: str) -> Diagnostic:
    return Diagnostic(
        code="LAB162",
        summary=f"`{tried.host}` does not let `{tried.there.name}` in: {why}",
        detail=detail,
        path=tried.at("ssh"),
        hint=f"see that this works without asking anything: ssh {_command(tried.there)} true "
        "(a key in ~/.ssh/authorized_keys there; the key loaded into ssh-agent or named by `identity`)",
    )


def _no_name(tried: Tried, end: End, found: re.Match[str]) -> Diagnostic:  # noqa: ARG001
    return Diagnostic(
        code="LAB163",
        summary=f"nobody knows the name `{found[1]}`",
        path=tried.at("address"),
        hint="correct `address`, or give the name an address in DNS, /etc/hosts or ~/.ssh/config",
    )


def _no_answer(tried: Tried, end: End, found: re.Match[str]) -> Diagnostic:  # noqa: ARG001
    return _out_of_reach(tried, found[0].strip())


def _out_of_reach(tried: Tried, why: str, detail: str = "") -> Diagnostic:
    return Diagnostic(
        code="LAB164",
        summary=f"`{tried.host}` ({tried.there.name}) cannot be reached{': ' if why else ''}{why}",
        detail=detail,
        path=tried.at("address"),
        hint="see that it runs, that its SSH server does, and that address and port are right",
    )


def _no_python(tried: Tried, words: Sequence[str]) -> Diagnostic:  # noqa: ARG001
    return _python(tried, f"`{tried.host}` has no python3")


def _old_python(tried: Tried, words: Sequence[str]) -> Diagnostic:
    return _python(tried, f"Python on `{tried.host}` is too old: {' '.join(words)}")


def _python(tried: Tried, summary: str) -> Diagnostic:
    return Diagnostic(
        code="LAB165",
        summary=summary,
        path=tried.at(),
        hint="install Python 3.9 or newer there, e.g. run on it: apt-get install python3",
    )


def _no_sudo(tried: Tried, words: Sequence[str]) -> Diagnostic:  # noqa: ARG001
    return Diagnostic(
        code="LAB167",
        summary=f"`{tried.host}` has no sudo, and `{tried.there.name}` is not root there",
        path=tried.at("ssh"),
        hint="install sudo there, or log in as root (`ssh: {user: root}`)",
    )


_TROUBLES: Final[dict[str, Callable[[Tried, Sequence[str]], Diagnostic]]] = {
    "no-python": _no_python,
    "old-python": _old_python,
    "no-sudo": _no_sudo,
}
_SENTENCES: Final[Sequence[tuple[str, Callable[[Tried, End, re.Match[str]], Diagnostic]]]] = (
    (r"Offending (?P<kind>\S+) key in (?P<line>\S+:\d+)", _changed_key),
    (r"IDENTIFICATION HAS CHANGED|POSSIBLE DNS SPOOFING|REVOKED HOST KEY", _changed_key),
    (r"Host key verification failed|host key is known for", _unknown_key),
    (r"(?:Could not resolve hostname|Name or service not known)\s*:?\s*([^\s:]*)", _no_name),
    (r"Permission denied \([^)]*\)|Too many authentication failures", _denied),
    (r"Connection refused|No route to host|Network is unreachable|(?:Connection|Operation) timed out", _no_answer),
    (r"Connection (?:closed|reset) by [^\n]*|banner exchange[^\n]*|stdio forwarding failed", _no_answer),
)


def _command(there: Destination) -> str:
    """Return how a person would log in there."""
    login = there.login
    port = f"-p {login.port} " if login.port else ""
    jump = f"-J {login.jump} " if login.jump else ""
    key = f"-i {login.identity} " if login.identity else ""
    return f"{port}{jump}{key}{f'{login.user}@' if login.user else ''}{there.address}"


def _said(end: End) -> str:
    text = f"{end.printed}\n{end.said}" if end.printed.strip() else end.said
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and "@@@@" not in line]
    return "\n".join(lines[-LINES:])
