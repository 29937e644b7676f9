"""The rig from Python: real hosts, and this process inside their network."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("lab")
NEEDED = ("systemd-nspawn", "mmdebstrap", "nsenter", "zstd", "ssh", "ssh-keygen", "ip")
NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of sched.h."""
_RIGS = pytest.StashKey[tuple["Rig", int]]()


def unavailable() -> str:
    """Return why no rig can be started on this machine, empty when one can be tried."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"a real host needs {', '.join(missing)}: run tests/rig/lab setup"
    return "" if os.geteuid() == 0 else "a real host needs root"


@dataclass(frozen=True, slots=True)
class Rig:
    """A rig that is up."""

    folder: Path
    network: str
    subnet: str
    registry: str

    @property
    def ssh(self) -> Path:
        """An ``ssh`` that uses the rig's key and known_hosts and nothing of the person who runs the tests."""
        return self.folder / "ssh"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def key(self) -> Path:
        return self.folder / "key"

    def address(self, name: str) -> str:
        return f"{self.subnet}.{10 + int(name.removeprefix('lab'))}"

    def inside(self, name: str, *argv: str, stdin: str = "", check: bool = True) -> str:
        """Run a program as root in a host, behind SSH's back; returns what it prints."""
        command = [str(PROGRAM), "inside", name, *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def sh(self, name: str, script: str, *, check: bool = True) -> str:
        """Run a shell script as root in a host."""
        return self.inside(name, "sh", "-ec", script, check=check)

    def stop(self, name: str) -> None:
        """Pull the plug."""
        lab("stop", name)

    def start(self, name: str) -> None:
        """Boot a host that was stopped, with its disk as it was."""
        lab("start", name)

    def reset(self, name: str) -> None:
        """Make a host what it was at first, with a new host key."""
        lab("reset", name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and all threads and programs that it starts, are in the rig's network."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            space = os.open(f"/run/netns/{self.network}", os.O_RDONLY)
            try:
                enter(space)
            finally:
                os.close(space)
            try:
                yield
            finally:
                enter(before)
        finally:
            os.close(before)


def lab(*arguments: str, timeout: float = 1800) -> str:
    """Run ``tests/rig/lab``; RuntimeError with its last words when it fails."""
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode != 0:
        message = f"tests/rig/lab {' '.join(arguments)}: {done.stderr[-2000:]}"
        raise RuntimeError(message)
    return done.stdout


def up(hosts: int) -> Rig:
    """Start a rig, or join the one that runs."""
    lab("up", str(hosts))
    facts = _facts()
    return Rig(Path(facts["dir"]), facts["net"], facts["subnet"], facts["registry"])


def down() -> None:
    """Power everything off and remove it."""
    lab("down")


def _facts() -> dict[str, str]:
    return dict(line.split("=", 1) for line in lab("env").splitlines())


def enter(space: int) -> None:
    """Move this thread to a network namespace; ``os.setns`` is new in Python 3.12."""
    if ctypes.CDLL(None, use_errno=True).setns(space, NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def joined(config: pytest.Config, hosts: int) -> Rig:
    """Return the test run's rig with so many hosts at least; skips with the reason where there can be none.

    It goes down when the run ends, unless it ran before or ``LABCTL_RIG_KEEP`` is set.
    """
    if why := unavailable():
        pytest.skip(why)
    found = config.stash.get(_RIGS, None)
    if found is None:
        ran = "leader" in {p.name for p in Path(_facts()["dir"]).glob("fs/lab*/leader")}
        if not ran and not os.environ.get("LABCTL_RIG_KEEP"):
            config.add_cleanup(down)
    if found is None or found[1] < hosts:
        try:
            found = (up(hosts), hosts)
        except RuntimeError as error:
            pytest.skip(f"no real host can be started on this machine: {error}")
        config.stash[_RIGS] = found
    return found[0]
