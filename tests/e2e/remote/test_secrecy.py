"""A secret is where its user reads it, and nowhere else: no argv, log, journal, plan, event or temporary file.

Docker keeps the values of an ``env_file`` in the container's own configuration, below ``/var/lib/docker``, which root
alone can read and ``docker inspect`` shows to whoever may talk to the engine: those are root's equals.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.remote.home import HOSTS, Home, home, lab
from tests.rig.rig import PROGRAM, Rig

pytestmark = pytest.mark.slow
SENTINEL = "sk-sentinel-7f3a9c"
WATCH = """
import glob, select, sys
mark = sys.argv[1].encode()[::-1]
found = set()
while True:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                line = stream.read()
        except OSError:
            continue
        if mark in line:
            found.add(line)
    if select.select([sys.stdin], [], [], 0.02)[0]:
        break
print(found or "")
"""
"""Looks at every command line until its input ends. It is told what to look for backwards: it would see itself."""
HOLDERS = """
grep -rlF --devices=skip -- "$(cat)" /etc /home /opt /root /tmp /run /usr/local /var 2>/dev/null \
  | grep -vE '^/(var/lib/docker|run/docker|run/containerd|var/lib/containerd|run/host)' || true
"""


@contextmanager
def argv_watched(found: list[str]) -> Iterator[None]:
    """Within, the command lines of all hosts and of this machine are sampled."""
    commands = [[str(PROGRAM), "inside", host, "python3", "-c", WATCH, SENTINEL[::-1]] for host in HOSTS.values()]
    commands.append(["python3", "-c", WATCH, SENTINEL[::-1]])
    with ExitStack() as stack:
        running = [
            stack.enter_context(subprocess.Popen(c, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for c in commands
        ]
        try:
            yield
        finally:
            found += [process.communicate("\n", timeout=30)[0].strip() for process in running]


@pytest.fixture(scope="module")
def place(rig: Rig) -> Iterator[Home]:
    servers = {"alpha": ("one", "alpha"), "beta": ("two", "beta")}
    with home(rig, lab(rig, servers, gateway="three"), {"LITELLM_MASTER_KEY": SENTINEL}) as made:
        yield made
        made.run("destroy", "--yes", "--data")


def test_the_sentinel_is_nowhere_it_should_not_be(place: Home) -> None:
    found: list[str] = []
    with argv_watched(found):
        texts = [place.ok("plan", "--json").out, place.ok("plan", "--diff").out]
        texts += [place.apply("--json").out]
        place.rig.sh("lab3", "echo '# by hand' >>/opt/labctl/rig/secrets/gateway.env")
        texts += [place.run("plan", "--diff").out, place.apply().out, place.ok("status", "--json").out]
        texts += [place.ok("logs", "gateway", "--lines", "1000").out]
    assert found == [""] * (len(HOSTS) + 1)
    assert not [text for text in texts if SENTINEL in text]
    assert here(place) == {place.lab / ".env"}
    for name, host in HOSTS.items():
        holders = set(place.rig.inside(host, "sh", "-c", HOLDERS, stdin=SENTINEL).splitlines())
        assert bool(holders) == (name == "three"), (name, holders)
        modes = {place.rig.inside(host, "stat", "-c", "%U %a", path) for path in holders}
        assert modes <= {"root 600"}, holders
        assert all(path.startswith(("/opt/labctl/rig/secrets/", "/var/lib/labctl/")) for path in holders), holders
        assert SENTINEL not in place.rig.sh(host, "journalctl --no-pager --quiet --output=export", check=False)


def test_the_watch_sees_what_it_looks_for(rig: Rig) -> None:
    found: list[str] = []
    with argv_watched(found):
        rig.inside("lab1", "python3", "-c", "import time; time.sleep(3)", SENTINEL)
    assert [bool(seen) for seen in found] == [True, False, False, True]


def here(place: Home) -> set[Path]:
    """Return the files of this home, and of the temporary folder of whoever runs the tests, that hold it."""
    return {
        path
        for path in place.folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and os.access(path, os.R_OK)
        and SENTINEL.encode() in path.read_bytes()
    }
