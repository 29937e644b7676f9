"""The guide, word for word: two machines as they are after installing Debian, and every command of the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.rig.rig import Rig

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[3] / "docs/guides/apply-over-ssh.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ON_THE_MACHINES = 2
"""The first blocks are for the two machines, not for one's own."""
MACHINES = {"10.0.0.11": "lab1", "10.0.0.12": "lab2"}


@dataclass
class Reader:
    """Somebody with a home of their own, an SSH key and a folder for the lab."""

    rig: Rig
    home: Path
    said: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """Return a text of the page with the addresses that the machines have here."""
        for address, machine in MACHINES.items():
            text = text.replace(address, self.rig.address(machine))
        return text

    def types(self, commands: str) -> str:
        """Run commands; all of them have to succeed. Returns what they say."""
        environment = {"HOME": str(self.home), "PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        environment["LABCTL_SSH"] = str(self.home / "bin/ssh")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(commands)],
            cwd=self.home / "lab",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def reader(rig: Rig) -> Iterator[Reader]:
    home = Path(tempfile.mkdtemp(prefix="lab-"))
    for name in (".ssh", "bin", "lab"):
        (home / name).mkdir(mode=0o700)
    shutil.copy(rig.key, home / ".ssh/id_ed25519")
    for machine in MACHINES.values():
        rig.reset(machine)
    # OpenSSH takes its files from the password database, whatever HOME says.
    options = (
        f"-o UserKnownHostsFile={home}/.ssh/known_hosts -o GlobalKnownHostsFile=/dev/null -i {home}/.ssh/id_ed25519"
    )
    program(home / "bin/ssh", f'exec /usr/bin/ssh -F /dev/null {options} "$@"')
    program(home / "bin/labctl", f'exec {sys.executable} -m labctl "$@"')
    yield Reader(rig, home)
    for machine in MACHINES.values():
        rig.reset(machine)
    shutil.rmtree(home)


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def prepare(rig: Rig, blocks: list[str]) -> None:
    """What the page says about the two machines. Nothing is downloaded: the packages have to be there."""
    packages = blocks[0].removeprefix("apt-get install --yes ").split()
    for machine in MACHINES.values():
        assert "not-installed" not in rig.inside(machine, "dpkg-query", "-W", "-f", "${Status}\n", *packages)
        rig.sh(machine, "rm /etc/sudoers.d/test; userdel --remove lab 2>/dev/null")
        rig.sh(machine, blocks[1])
        key = rig.key.with_suffix(".pub").read_text()
        keys = "install -d -m700 -o lab /home/lab/.ssh; cat >/home/lab/.ssh/authorized_keys"
        rig.inside(machine, "sh", "-ec", keys, stdin=key)


def test_every_command_of_the_page(reader: Reader) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    commands = [text for kind, text in blocks if kind == "sh"]
    prepare(reader.rig, commands[:ON_THE_MACHINES])
    said, typed = "", 0
    for kind, text in blocks:
        if kind == "sh":
            typed += 1
            said = reader.types(text) if typed > ON_THE_MACHINES else ""
        elif kind == "yaml":
            mirror = f'images: {{mirror: "{reader.rig.registry}"}}\n'
            (reader.home / "lab/lab.yaml").write_text(reader.here(text) + mirror)
        else:
            assert kind == "text"
            shown = [" ".join(line.split()) for line in said.splitlines()]
            for line in text.splitlines():
                assert any(" ".join(line.split()) in s for s in shown), f"{line!r} is not in:\n{said}"
    assert typed == len(commands)
    for machine in MACHINES.values():
        assert reader.rig.sh(machine, "docker ps --all --quiet; docker volume ls --quiet") == ""
