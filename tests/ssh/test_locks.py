"""Locks over SSH: what counts is labctl's process on the host, and it goes with the connection."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labctl.hosts.base import HostError, Site
from labctl.hosts.connect import CONNECTIONS, connect
from labctl.hosts.state import Lock, locked, read_lock
from tests.ssh.conftest import root_of
from tests.ssh.servers import Sshd

HOLDER = """
import sys, time
from labctl.artefact import HostRoot, Login
from labctl.hosts.connect import connect
from labctl.hosts.state import locked
address, port, folder = sys.argv[1:]
root = HostRoot(host="far", root=folder, state="state", address=address, login=Login(port=int(port)))
with locked(connect(root), "apply"):
    print("held", flush=True)
    time.sleep(120)
"""


def hold(server: Sshd, folder: Path) -> subprocess.Popen[str]:
    """Hold the host's lock in another process, as another labctl would."""
    arguments = [server.address, str(server.port), str(folder)]
    found = subprocess.Popen([sys.executable, "-c", HOLDER, *arguments], stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None
    assert found.stdout.readline() == "held\n"
    return found


def lock_of(site: Site) -> Lock:
    found = read_lock(site)
    assert found is not None
    return found


def test_a_killed_labctls_lock_is_stale_as_soon_as_its_connection_is_gone(server: Sshd, tmp_path: Path) -> None:
    site = connect(root_of(server, str(tmp_path)))
    with hold(server, tmp_path) as holder:
        assert not lock_of(site).stale
        with pytest.raises(HostError, match="LAB103"), locked(site, "apply"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        killed = time.monotonic()
        while not lock_of(site).stale:
            assert time.monotonic() - killed < 20, "the lock of a dead process still counts"
            time.sleep(0.1)
    said: list[str] = []
    with locked(site, "apply", note=said.append):
        assert not lock_of(site).stale
    assert [text.partition(" by ")[0] for text in said] == ["taking over the lock that was left behind"]
    assert read_lock(site) is None


def test_one_waits_for_the_other(server: Sshd, tmp_path: Path) -> None:
    site = connect(root_of(server, str(tmp_path)))
    with hold(server, tmp_path) as holder:
        said: list[str] = []

        def note(text: str) -> None:
            said.append(text)
            holder.terminate()

        with locked(site, "apply", wait=30, note=note):
            assert said[0].startswith("waiting for the lock of")


def test_a_lock_of_another_boot_is_stale_and_one_of_another_machine_is_not(server: Sshd, tmp_path: Path) -> None:
    site = connect(root_of(server, str(tmp_path)))
    machine = (site.shell.read("/etc/machine-id") or b"").decode().strip()
    text = '{"user": "ann", "machine": "desk", "since": "-", "doing": "apply", "process": "1.2.boot", "host": "%s"}'
    site.shell.make_folders(site.state("").rstrip("/"))
    site.shell.write(site.state("lock"), (text % machine).encode())
    assert lock_of(site).stale
    site.shell.write(site.state("lock"), (text % "0123456789abcdef").encode())
    assert not lock_of(site).stale
    with pytest.raises(HostError, match="LAB103"), locked(site, "apply"):
        pass
    with locked(site, "apply", force=True):
        pass
    CONNECTIONS.close()
