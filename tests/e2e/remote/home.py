"""A person's folder with a lab on the rig's hosts: labctl as it is typed, and what is on the hosts behind its back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cli.running import Ran
from tests.e2e.place import Place
from tests.rig.rig import Rig

HOSTS = {"one": "lab1", "two": "lab2", "three": "lab3"}
"""Names in lab.yaml → machines of the rig."""
TARGETS = {"one": "compose", "two": "systemd", "three": "compose"}
PORTS = {"alpha": 8081, "beta": 8082, "gamma": 8083, "delta": 8084}

RUNNING = """
docker ps --quiet --filter label=labctl.workload --no-trunc | xargs -r docker inspect \
  --format '{{index .Config.Labels "labctl.workload"}} {{.Id}} {{.State.StartedAt}}'
systemctl list-units 'labctl-*.service' --state=active --plain --no-legend | while read -r unit _; do
  name=${unit#labctl-rig-}
  echo "${name%.service} $(systemctl show --property InvocationID --value "$unit")"
done
"""
LEFT = """
find /etc /home /opt /root /srv /tmp /usr/local /var -xdev ! -type d \
  ! -path '/var/lib/docker/*' ! -path '/var/lib/containerd/*' ! -path '/srv/*/*' ! -path '/var/log/*' \
  ! -path '/var/cache/*' ! -path '/var/lib/systemd/*' ! -path '/tmp/systemd-private*' ! -path '/etc/resolv.conf'
docker ps --all --format 'container {{.Names}}'
docker network ls --format 'network {{.Name}}'
docker volume ls --format 'volume {{.Name}}'
systemctl list-units --all 'labctl-*' --plain --no-legend | sed 's/^/unit /'
"""


@dataclass(frozen=True, slots=True)
class Home(Place):
    """A lab whose hosts are the rig's."""

    rig: Rig = field(kw_only=True)

    def running(self, *hosts: str) -> dict[str, str]:
        """Return when and as what each server was started: another value is another start."""
        found: dict[str, str] = {}
        for host in hosts or tuple(HOSTS):
            for line in self.rig.sh(HOSTS[host], RUNNING).splitlines():
                name, _, start = line.partition(" ")
                found[f"{name}@{host}"] = start
        return found

    def left(self, host: str) -> set[str]:
        """Return everything on a host that labctl could have left there."""
        return set(self.rig.sh(HOSTS[host], LEFT, check=False).splitlines())

    def address(self, host: str) -> str:
        return self.rig.address(HOSTS[host])

    def url(self, name: str, host: str) -> str:
        return f"http://{self.address(host)}:{PORTS[name]}"

    def plan(self, *arguments: str) -> dict[str, Any]:
        """Return the plan as data, whatever its exit status."""
        ran = self.run("plan", "--json", *arguments)
        assert ran.out, ran.err
        return dict(json.loads(ran.out))

    def todo(self, *arguments: str) -> set[str]:
        """Return what a plan would do, as ``action name@host``."""
        changes = self.plan(*arguments)["changes"]
        return {f"{c['action']} {c['name']}@{c['host']}" for c in changes if c["action"] != "noop"}

    def units(self, *arguments: str) -> set[str]:
        """Return what a plan would do to units, as ``action name@host``."""
        changes = self.plan(*arguments)["changes"]
        wanted = (c for c in changes if c["action"] != "noop" and c["kind"] == "unit")
        return {f"{c['action']} {c['name']}@{c['host']}" for c in wanted}

    def apply(self, *arguments: str) -> Ran:
        return self.ok("apply", "--yes", *arguments)

    @contextmanager
    def exactly(self, *restarted: str, new: tuple[str, ...] = (), gone: tuple[str, ...] = ()) -> Iterator[None]:
        """Within, exactly these servers are started anew, these come, these go; all others are not touched."""
        before = self.running()
        yield
        after = self.running()
        assert {n for n in before.keys() & after.keys() if before[n] != after[n]} == set(restarted)
        assert after.keys() - before.keys() == set(new)
        assert before.keys() - after.keys() == set(gone)

    def settled(self) -> None:
        """Nothing is left to do anywhere, and labctl says so."""
        ran = self.run("plan", "--detailed-exitcode")
        assert ran.code == 0, ran.out + ran.err


@contextmanager
def home(rig: Rig, text: str, secrets: Mapping[str, str]) -> Iterator[Home]:
    """Yield a folder with this lab and these secrets, labctl's state and its temporary files; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    for name in ("home", "state", "lab", "tmp"):
        (folder / name).mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "state"),
        "TMPDIR": str(folder / "tmp"),
        "LABCTL_SSH": str(rig.ssh),
    }
    made = Home(folder, folder / "lab", "rig", environment, rig=rig)
    made.write(text)
    (made.lab / ".env").write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    before = tempfile.tempdir
    tempfile.tempdir = environment["TMPDIR"]
    try:
        yield made
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder)


def lab(rig: Rig, servers: Mapping[str, tuple[str, str]], *, gateway: str = "", more: str = "", **hosts: str) -> str:
    """Return a lab.yaml.

    Args:
        rig: whose addresses and registry are used.
        servers: name → host and what its model says; more keys of the deployment may follow the words after ``|``.
        gateway: host of the gateway, none when empty.
        more: lines to add.
        hosts: host → more keys of its block.
    """
    lines = ["lab: rig", "hosts:"]
    for name, target in TARGETS.items():
        keys = hosts.get(name, "ssh: {user: lab}")
        lines.append(f"  {name}: {{address: {rig.address(HOSTS[name])}, target: {target}, memory: 4 GiB, {keys}}}")
    words = {name: says.partition("|") for name, (_, says) in servers.items()}
    lines += ["models:", *(f"  {n}: {{tiny: {{says: {says}}}}}" for n, (says, _, _) in words.items())]
    lines += ["deployments:"]
    for name, (host, _) in servers.items():
        keys = words[name][2] or "serves: [" + name + ", chat]"
        lines.append(
            f"  {name}: {{model: {name}, engine: llama.cpp, on: {{host: {host}}}, port: {PORTS[name]},"
            f" context: 512, {keys}}}"
        )
    lines += [f"gateway: {{engine: litellm, host: {gateway}, port: 4000}}"] if gateway else []
    lines += [f'images: {{mirror: "{rig.registry}"}}', "secrets: {from: .env}", more]
    return "\n".join(lines) + "\n"


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """Yield what an ``apply --json`` tells."""
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def until(condition: Callable[[], object], patience: float = 30) -> None:
    """Wait until a condition holds; fails when it does not."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
