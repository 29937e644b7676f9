"""Who listens at a port of this machine, as far as an ordinary user may see it (proc(5): ``/proc/net/tcp``)."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LISTENS: Final = "0A"
"""TCP_LISTEN of the kernel's include/net/tcp_states.h, in hex."""


def listener(port: int, proc: Path = Path("/proc")) -> str:
    """Return the program that listens at a TCP port, in words: its user where it is not shown, "" for nobody."""
    for uid, inode in _sockets(port, proc):
        name = _program(inode, proc)
        return f"the program {name}" if name else f"a program of the user {_user(uid)}"
    return ""


def _sockets(port: int, proc: Path) -> Iterator[tuple[int, str]]:
    for table in ("net/tcp", "net/tcp6"):
        for line in _text(proc / table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield int(fields[7]), fields[9]


def _program(inode: str, proc: Path) -> str:
    """Return the name and number of the process that holds a socket; "" when none does that may be looked into."""
    for process in proc.glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) == f"socket:[{inode}]" for fd in (process / "fd").iterdir()):
                return f"{_text(process / 'comm').strip()} (process {process.name})"
        except OSError:
            continue
    return ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
