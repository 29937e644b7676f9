"""Labs for the host that the tests run in, rendered by the real targets."""

from __future__ import annotations

import os
import socket
import subprocess
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from labctl import targets
from labctl.artefact import Tree
from labctl.hosts import fleet
from labctl.hosts.events import ChangeDone, Event, LogLine
from labctl.placed import PlacedHost
from labctl.plan.diff import diff
from labctl.plan.model import Plan
from labctl.secrets import Secret, Secrets
from labctl.workload import Workload

LAB = "rig"
VALUE = 'it\'s a $ecret "quoted" \\ back`tick` #hash'

if not os.environ.get("LABCTL_RIG_INSIDE"):
    pytest.skip("runs inside tests/rig/lab only", allow_module_level=True)


@dataclass
class Lab:
    """A lab on this host, for one target."""

    target: str
    workloads: dict[str, Workload] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=lambda: Secrets({"TOKEN": Secret(VALUE)}))
    events: list[Event] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)

    def tree(self) -> Tree:
        """Render it."""
        target = targets.load(self.target)
        host = PlacedHost(
            name="here",
            lab=LAB,
            address=socket.gethostname(),
            bind="127.0.0.1",
            target=self.target,
            places=target.places(LAB, self.options, None),
            options=self.options,
        )
        return Tree.of(target.render(host, list(self.workloads.values()), ()))

    def plan(self, *, destroy: bool = False, data: bool = False) -> Plan:
        """Look and plan."""
        tree = self.tree()
        digests = fleet.secret_digests(tree, self.secrets)
        return diff(tree, fleet.observe(tree, self.secrets), digests, lab=LAB, destroy=destroy, data=data)

    def apply(self, plan: Plan | None = None) -> fleet.Report:
        """Plan, unless there is a plan, and apply."""
        self.events.clear()
        return fleet.apply(plan or self.plan(), self.tree(), self.secrets, self.events.append)

    def destroy(self) -> fleet.Report:
        """Remove everything, data too."""
        return self.apply(self.plan(destroy=True, data=True))

    def done(self) -> list[str]:
        """Return the addresses that were changed, in order."""
        return [e.address.removeprefix("here") for e in self.events if isinstance(e, ChangeDone) and not e.problem]

    def todo(self) -> list[tuple[str, str, str]]:
        """Return what would be done."""
        return [(c.name, str(c.action), str(c.reason)) for c in self.plan().todo]

    def log(self) -> str:
        """Return the log lines of the last apply."""
        return "\n".join(e.text for e in self.events if isinstance(e, LogLine))


def out(*argv: str) -> str:
    """Run a program and return what it prints."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def ask(port: int, path: str = "/") -> str:
    """Ask a server on this host."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def everything(*folders: str) -> set[str]:
    """Return all paths below some folders."""
    return {str(p) for folder in folders for p in Path(folder).rglob("*")}


def owned(names: Sequence[str]) -> set[str]:
    """Return those of the names that labctl's own folders hold."""
    return {n for n in names if "labctl" in n}
