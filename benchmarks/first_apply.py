"""``python -m benchmarks.first_apply``: the first apply of three hosts against plain ``ansible-playbook``.

Both use the same SSH servers, key, files and Ansible, by turns in the same run, and find their shared connections open.
The playbook copies each host's rendered folder with one task and gathers no facts: plain Ansible at its quickest.
labctl besides looks at the hosts and their hardware, checks the unit files, starts the units, waits until they are
healthy, and keeps a generation.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.ssh import OWN, Bench, Taken, bench
from tests.ssh.servers import MISSING, can_have_own_users, have_sshd

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        src: {out}/{{{{ inventory_hostname }}}}/
        dest: /
"""
CONFIG = "[ssh_connection]\npipelining = true\n[defaults]\nforks = 10\n"
"""What whoever cares about speed sets; without pipelining the playbook takes longer."""


def main() -> None:
    """Print the times and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_apply", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=3)
    chosen = parser.parse_args()
    if not (have_sshd() and can_have_own_users()):
        sys.exit(f"cannot run here: it needs root and unshare; {MISSING}")
    with bench(chosen.hosts, None) as made:
        apply, plain = measure(made, chosen.rounds)
    print(f"first apply of {chosen.hosts} hosts, median of {chosen.rounds}")
    print(f"{'':30}{'wall, s':>10}{'CPU, s':>10}")
    for name, taken in (("labctl apply", apply), ("ansible-playbook, copies only", plain)):
        print(f"{name:30}{taken.wall:10.2f}{taken.cpu:10.2f}")
    print(f"ratio of wall times {apply.wall / plain.wall:.2f} (aim: at most 1)")


def measure(made: Bench, rounds: int) -> tuple[Taken, Taken]:
    """Return the medians of an apply and of the playbook, each to hosts that have nothing."""
    labctl, lab = [sys.executable, "-m", "labctl"], str(made.folder / "lab.yaml")
    playbook = made.folder / "copies.yml"
    playbook.write_text(PLAYBOOK.format(out=made.folder / "out"))
    (made.folder / "ansible.cfg").write_text(CONFIG)
    program = shutil.which("ansible-playbook", path=str(Path(sys.executable).parent))
    if program is None:
        sys.exit("ansible-playbook is not installed beside labctl")
    applies, plains = [], []
    for number in range(rounds + 1):
        wipe(made)
        applies.append(made.run([*labctl, "apply", lab, "--yes"]))
        wipe(made)
        plains.append(made.run([program, "-i", str(made.folder / "hosts.ini"), str(playbook)]))
        if not number:  # to warm the caches
            applies.clear()
            plains.clear()
    return middle(applies), middle(plains)


def middle(taken: Sequence[Taken]) -> Taken:
    """Return the medians."""
    return Taken(median(t.wall for t in taken), median(t.cpu for t in taken))


def wipe(made: Bench) -> None:
    """Remove everything that either of them has brought: the folders are each host's own."""
    gone = "rm -rf " + " ".join(f"{folder}/*" for folder in OWN)
    for server in made.servers:
        command = [str(made.folder / "ssh"), "-p", str(server.port), f"root@{server.address}", gone]
        subprocess.run(command, env=made.environment, check=True, capture_output=True)


if __name__ == "__main__":
    main()
