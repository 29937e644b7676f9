"""First contact: the key that a host shows, for comparison, and its line for known_hosts once somebody accepted it.

OpenSSH itself asks for the key, through the same jump hosts and aliases as every connection, and notes it in a file of
its own that is thrown away. Nobody logs in, and nothing is sent but the greeting.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from labctl.artefact import HostRoot, Login
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError
from labctl.hosts.ssh_errors import Tried, diagnose
from labctl.hosts.ssh_link import End
from labctl.hosts.ssh_options import Destination, environment, jumps
from labctl.values import dataclass

TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A host key that is not known yet.

    Attributes:
        name: whose: ``[user@]address[:port]``.
        fingerprint: ``SHA256:…``.
        kind: ``ED25519``, ``RSA``, …
        lines: what known_hosts is to say.
        file: the known_hosts file.
    """

    name: str
    fingerprint: str
    kind: str
    lines: str
    file: Path


def places(root: HostRoot) -> tuple[Destination, ...]:
    """Return the servers on the way to a host, nearest first, the host last."""
    through = jumps(root.login)
    login, found = root.login, list[Destination]()
    for number, jump in enumerate(through):
        before = ",".join((login.jump or "").split(",")[:number]) or None
        there = Login(user=jump.login.user, port=jump.login.port, identity=login.identity, jump=before)
        found.append(Destination(address=jump.address, login=there))
    return (*found, Destination(address=root.address, login=login))


def ask(host: str, there: Destination) -> Offer | None:
    """Return the key that a server shows, None when it is known already.

    Raises:
        HostError: it cannot be reached, or it shows another key than the known one (LAB161).
    """
    tried = Tried(host=host, there=there)
    said = _ssh(there, "StrictHostKeyChecking=yes")
    if _knows(said):
        return None
    problem = diagnose(tried, End(255, said, "", started=False, greeted=False, late=False, prompts=0))
    if problem.code != "LAB160":
        raise HostError(problem)
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "known_hosts"
        said = _ssh(
            there, "StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={notes}", "GlobalKnownHostsFile=none"
        )
        lines = notes.read_text() if notes.exists() else ""
        if not lines:
            raise HostError(diagnose(tried, End(255, said, "", started=False, greeted=False, late=False, prompts=0)))
        printed = subprocess.run(["ssh-keygen", "-l", "-f", notes], capture_output=True, text=True, check=True).stdout
    words = printed.split()
    kind = words[-1].strip("()")
    return Offer(name=there.name, fingerprint=words[1], kind=kind, lines=lines, file=_known_hosts(there))


def accept(offer: Offer) -> None:
    """Write a key into known_hosts. HostError (LAB169) when that cannot be done."""
    try:
        offer.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        old = offer.file.read_text() if offer.file.exists() else ""
        glue = "" if not old or old.endswith("\n") else "\n"
        with offer.file.open("a", encoding="utf-8") as file:
            file.write(glue + offer.lines)
    except OSError as error:
        summary = f"`{offer.file}` cannot be written: {error.strerror or error}"
        raise HostError(Diagnostic(code="LAB169", summary=summary, hint="see whom it belongs to")) from error


def _knows(said: str) -> bool:
    """Whether ssh got past the host key: without any way to log in, that is as far as it comes."""
    past = re.search(r"Permission denied|No supported authentication methods", said)
    return past is not None and "Connection closed by" not in said  # else it was a jump host that denied it


def _ssh(there: Destination, *settings: str) -> str:
    """Let ssh greet a server, and return what it says. Settings that come first win."""
    asked = (*settings, "ControlMaster=no", "ControlPath=none", "PreferredAuthentications=none", "UpdateHostKeys=no")
    program, *rest = there.argv("true")
    argv = [program, *(word for option in asked for word in ("-o", option)), *rest]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment(),
            timeout=TIMEOUT,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return "Connection timed out"
    except OSError as error:
        summary = f"the ssh program `{program}` cannot be run: {error.strerror or error}"
        raise HostError(Diagnostic(code="LAB169", summary=summary, hint="install OpenSSH's client")) from error
    return "Permission denied" if done.returncode == 0 else done.stderr.decode(errors="replace")


def _known_hosts(there: Destination) -> Path:
    """Return the file in which ssh would note a new key."""
    program, *rest = there.argv("true")
    told = subprocess.run([program, "-G", *rest], capture_output=True, text=True, env=environment(), check=False).stdout
    found = re.search(r"^userknownhostsfile (\S+)", told, re.MULTILINE)
    return Path(found[1] if found else "~/.ssh/known_hosts").expanduser()
