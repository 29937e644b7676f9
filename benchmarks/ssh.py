"""``python -m benchmarks.ssh``: plan and a no-op apply over SSH against ``ansible -m ping`` and a dry run of pyinfra.

Every host is an OpenSSH server of its own on a loopback address, with folders of its own for what is written (so it has
to be root), and a stand-in for systemd that says of every unit that it runs. All programs use the same servers, the
same key and the same files, by turns in the same run. labctl and Ansible find their shared connections open; pyinfra
has none. labctl also asks each host for its units, their health and its hardware, which pyinfra is not asked to do.
"""

from __future__ import annotations

import argparse
import http.server
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.ssh.servers import MISSING, SSH, Net, Sshd, can_have_own_users, have_sshd

NOOP = "labctl apply (nothing to do)"
UNITS = 3
"""Units per host: each is a file or more."""
OWN = ("/etc/systemd/system", "/opt", "/srv", "/var/lib")
"""Folders of which every host has its own."""
SYSTEMCTL = """#!/bin/sh
# Stands in for systemd: every unit runs.
case "$*" in
*--property\\ Version*) echo Version=252; exit ;;
*\\ show\\ *) ;;
*) exit 0 ;;
esac
while [ "$1" != -- ]; do shift; done
shift
for unit; do
    printf 'Id=%s\\nLoadState=loaded\\nActiveState=active\\nSubState=running\\nUnitFileState=enabled\\n' "$unit"
    printf 'Result=success\\nExecMainStatus=0\\n\\n'
done
"""


@dataclass(frozen=True)
class Taken:
    """Seconds: from start to end, and of processors on the applying side."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Bench:
    """Servers and what is run against them."""

    net: Net
    folder: Path
    servers: Sequence[Sshd]
    ports: Sequence[int]
    pyinfra: str | None

    @property
    def environment(self) -> dict[str, str]:
        """What every program gets."""
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "LANG", "VIRTUAL_ENV"}}
        ssh = {"LABCTL_SSH": str(self.folder / "ssh"), "XDG_RUNTIME_DIR": str(self.net.folder / "run")}
        return {**kept, **ssh, "HOME": str(self.folder), "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible")}

    def commands(self) -> dict[str, list[str]]:
        """Return the commands by what they are called."""
        labctl, lab = [sys.executable, "-m", "labctl"], str(self.folder / "lab.yaml")
        ansible = shutil.which("ansible", path=str(Path(sys.executable).parent)) or shutil.which("ansible")
        found = {
            "labctl plan": [*labctl, "plan", lab],
            NOOP: [*labctl, "apply", lab, "--yes"],
            "labctl validate (no host)": [*labctl, "validate", lab],
        }
        if ansible:
            found["ansible -m ping"] = [ansible, "all", "-i", str(self.folder / "hosts.ini"), "-m", "ping", "-f", "20"]
        if self.pyinfra:
            files = [str(self.folder / "inventory.py"), str(self.folder / "deploy.py")]
            found["pyinfra --dry"] = [self.pyinfra, "--dry", "-y", *files]
        return found

    def run(self, command: Sequence[str]) -> Taken:
        """Run a command to its end; return its seconds. RuntimeError when it fails."""
        before, start = used(), time.perf_counter()
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            message = f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
            raise RuntimeError(message)
        return Taken(time.perf_counter() - start, used() - before)


def used() -> float:
    """Return the processor seconds of the programs that were run, without those of the servers."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


@contextmanager
def bench(count: int, pyinfra: str | None) -> Iterator[Bench]:
    """Start servers, write the lab and apply it once."""
    net = Net.make()
    healthy = [http.server.ThreadingHTTPServer(("0.0.0.0", 0), Healthy) for _ in range(UNITS)]  # noqa: S104 - all hosts
    for server in healthy:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        place = net.folder / "bench"
        (place / "bin").mkdir(parents=True)
        for name, text in (("systemctl", SYSTEMCTL), ("systemd-analyze", "#!/bin/sh\n")):
            script(place / "bin" / name, text)
        script(place / "ssh", f'#!/bin/sh\nexec {SSH} -F {net.config} "$@"\n')
        settings = f'ForceCommand PATH={place / "bin"}:/usr/sbin:/usr/bin:/sbin:/bin exec sh -c "$SSH_ORIGINAL_COMMAND"'
        (place / "home").mkdir()
        users = Path("/etc/passwd").read_text().splitlines()
        bare = [f"root:x:0:0::{place / 'home'}:/bin/sh" if u.startswith("root:") else u for u in users]
        (place / "passwd").write_text("\n".join([*bare, ""]))
        mounts = " && ".join(f"mkdir -p {d} && mount -t tmpfs own {d}" for d in OWN)
        mounts += f" && mount --bind {place / 'passwd'} /etc/passwd"  # a home without a login script
        within = ("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh")
        servers = [net.serve(settings, "Subsystem sftp internal-sftp", within=within) for _ in range(count)]
        made = Bench(net, place, servers, [s.server_address[1] for s in healthy], pyinfra)
        write(made)
        made.run([sys.executable, "-m", "labctl", "apply", str(place / "lab.yaml"), "--yes"])
        yield made
    finally:
        for server in healthy:
            server.shutdown()
        net.close()


class Healthy(http.server.BaseHTTPRequestHandler):
    """Says of every unit that it is well."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def write(made: Bench) -> None:
    """Write the lab, and the same hosts and files for the others."""
    hosts, units = [], []
    for number, server in enumerate(made.servers):
        hosts.append(f"  h{number}: {{address: {server.address}, target: systemd, ssh: {{port: {server.port}}}}}")
        units += [
            f"  u{number}x{n}: {{engine: command, on: {{host: h{number}}}, program: /bin/sleep, args: ['{n}'], "
            f"port: {made.ports[n]}, health_path: /u{n}}}"
            for n in range(UNITS)
        ]
    lab = ["lab: many", "hosts:", *hosts, "deployments:", *units, "secrets: {from: environment}", ""]
    (made.folder / "lab.yaml").write_text("\n".join(lab))
    made.run(
        [sys.executable, "-m", "labctl", "render", str(made.folder / "lab.yaml"), "--out", str(made.folder / "out")]
    )
    config, key = made.net.config, made.net.folder / "client"
    lines = [f"h{n} ansible_host={s.address} ansible_port={s.port}" for n, s in enumerate(made.servers)]
    common = [f"ansible_ssh_common_args=-F {config}", "ansible_python_interpreter=python3"]
    (made.folder / "hosts.ini").write_text("\n".join([*lines, "[all:vars]", *common, ""]))
    names = [(f"h{n}", s.address, s.port) for n, s in enumerate(made.servers)]
    known = {"ssh_key": str(key), "ssh_user": "root", "ssh_known_hosts_file": str(made.net.known_hosts)}
    listed = [(n, {"ssh_hostname": a, "ssh_port": p, **known}) for n, a, p in names]
    (made.folder / "inventory.py").write_text(f"hosts = {listed!r}\n")
    (made.folder / "deploy.py").write_text(DEPLOY.format(out=str(made.folder / "out")))


DEPLOY = """
from pathlib import Path
from pyinfra import host
from pyinfra.operations import files
top = Path({out!r}) / host.name
for file in sorted(p for p in top.rglob("*") if p.is_file()):
    files.put(src=str(file), dest="/" + str(file.relative_to(top)), mode="644", add_deploy_dir=False)
"""


def script(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(text)
    path.chmod(0o755)


def measure(count: int, rounds: int, pyinfra: str | None) -> Mapping[str, Taken]:
    """Return the medians of every command."""
    with bench(count, pyinfra) as made:
        taken: dict[str, list[Taken]] = {name: [] for name in made.commands()}
        for number in range(rounds + 1):
            for name, command in made.commands().items():
                once = made.run(command)
                if number:
                    taken[name].append(once)
        return {n: Taken(median(t.wall for t in ts), median(t.cpu for t in ts)) for n, ts in taken.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ssh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hosts", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--pyinfra", default=shutil.which("pyinfra"), help="the program to compare with")
    chosen = parser.parse_args()
    if not (have_sshd() and can_have_own_users()):
        sys.exit(f"cannot run here: it needs root and unshare; {MISSING}")
    if not chosen.pyinfra:
        print("pyinfra is not here and is left out: uv tool install pyinfra, or --pyinfra PATH")
    found = {count: measure(count, chosen.rounds, chosen.pyinfra) for count in chosen.hosts}
    print(f"{'':30}" + "".join(f"{f'{n} hosts, s':>14}{'cpu here':>10}" for n in found))
    for name in found[chosen.hosts[0]]:
        print(f"{name:30}" + "".join(f"{t[name].wall:14.2f}{t[name].cpu:10.2f}" for t in found.values()))
    for count, taken in found.items():
        mine = taken[NOOP]
        for other in ("pyinfra --dry", "ansible -m ping"):
            if other in taken:
                theirs = taken[other]
                ratios = f"{mine.wall / theirs.wall:.2f} (cpu here {mine.cpu / theirs.cpu:.2f})"
                print(f"no-op apply of {count} hosts ÷ {other}: {ratios}")
    first, last = found[chosen.hosts[0]][NOOP], found[chosen.hosts[-1]][NOOP]
    print(f"no-op apply of {chosen.hosts[-1]} hosts ÷ {chosen.hosts[0]} hosts: {last.wall / first.wall:.2f}")


if __name__ == "__main__":
    main()
