"""A hand-made NixOS lab on a host of the rig, with the STAND-IN for nixos-rebuild (``tests/rig/nixos/stand-in``)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from labctl.artefact import SYSTEM, Activation, File, HostRoot, Item, Login, Manager, SecretFile, Tree, Unit
from labctl.diagnostics import ExitCode
from labctl.hosts import fleet
from labctl.hosts.applying import How
from labctl.hosts.events import Event, LogLine
from labctl.plan.diff import diff
from labctl.plan.model import Plan
from labctl.plan.observed import Observed
from labctl.secrets import Secret, Secrets
from labctl.workload import SecretRef, SecretText
from tests.rig.rig import Rig

HOST = "box"
MACHINE = "lab1"
FOLDER = "etc/labctl/nix"
FLAKE = f"{FOLDER}/flake/flake.nix"
STATE = "var/lib/labctl/nix"
KEY = f"{STATE}/secrets/alpha.env"
CONFIRM = 6.0
"""Seconds: the least in which a login on a busy machine is certain."""
SHUT_FOR_NEW = ["-p tcp --dport 22 --syn -j DROP"]
"""A mistake: nobody gets in. Who is in stays: what is established is let through, as by NixOS's own firewall."""
REFUSED = ["-p tcp --dport 22 -j REJECT --reject-with tcp-reset"]
"""The same, and who is in is cut off."""

LEFT = """
find /etc /home /opt /root /srv /usr/local /var /run/labctl* /nix -xdev ! -type d ! -path '/srv/*/*' \
  ! -path '/var/log/*' \
  ! -path '/var/cache/*' ! -path '/var/lib/systemd/*' ! -path '/var/lib/docker/*' ! -path '/var/lib/containerd/*' \
  ! -path '/nix/store/*' ! -path /nix/var/stand-in-builds ! -path '/nix/var/nix/profiles/*' 2>/dev/null
systemctl list-units --all 'labctl-*' --plain --no-legend | sed 's/^/unit /'
readlink -f /run/current-system /nix/var/nix/profiles/system
for link in /nix/var/nix/profiles/system-*-link; do readlink "$link"; done
iptables -S nixos-fw
"""


def service(words: str, command: str = "exec sleep infinity") -> str:
    """Return a systemd unit that writes down what it was started with."""
    script = f'echo "{words} $KEY" >/run/%N.said; {command}'
    return f"[Service]\nEnvironmentFile=-/{KEY}\nExecStart=/bin/sh -c '{script}'\n"


@dataclass
class NixLab:
    """A lab of one host: what its flake gives, and what labctl makes of it."""

    rig: Rig
    services: dict[str, str] = field(default_factory=lambda: {"alpha": service("one"), "beta": service("one")})
    spec: dict[str, Any] = field(default_factory=dict)
    """More of what the stand-in reads."""
    key: str = "first"
    confirm: float = CONFIRM
    build: str | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def root(self) -> HostRoot:
        return HostRoot(
            host=HOST,
            root="/",
            state=STATE,
            managers=(Manager.NIXOS,),
            address=self.rig.address(MACHINE),
            login=Login(user="lab"),
            activation=Activation(confirm=self.confirm, build=self.build),
        )

    @property
    def secrets(self) -> Secrets:
        return Secrets({"KEY": Secret(self.key)})

    def tree(self) -> Tree:
        spec = {"services": self.services, **self.spec}
        contents = {
            FLAKE: "{ outputs = _: { }; } # not read by the stand-in\n",
            f"{FOLDER}/flake/hosts/{HOST}/stand-in.json": json.dumps(spec, indent=1),
        }
        whole = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
        system = Unit(
            host=HOST,
            name="nixos",
            id=SYSTEM,
            manager=Manager.NIXOS,
            project=FLAKE,
            fingerprint=whole,
            files=tuple(contents),
        )
        items: list[Item] = [File(host=HOST, path=p, content=text.encode()) for p, text in contents.items()]
        items += [self._unit(name, text) for name, text in self.services.items()]
        secret = SecretFile(host=HOST, path=KEY, entries={"KEY": SecretText((SecretRef("KEY"),))})
        return Tree.of([self.root, system, *items, *([secret] if "alpha" in self.services else [])])

    def _unit(self, name: str, text: str) -> Unit:
        return Unit(
            host=HOST,
            name=name,
            id=f"{name}.service",
            manager=Manager.NIXOS,
            project=FLAKE,
            fingerprint=hashlib.sha256(text.encode()).hexdigest(),
            files=(KEY,) if name == "alpha" else (),
            after=("nixos",),
        )

    def but(self, **changes: Any) -> NixLab:
        """Return the same lab with something changed."""
        return replace(self, **{"services": dict(self.services), "events": [], **changes})

    def plan(self, **how: bool) -> Plan:
        tree = self.tree()
        digests = fleet.secret_digests(tree, self.secrets)
        return diff(tree, fleet.observe(tree, self.secrets), digests, lab="nix", lab_digest="d", **how)

    def todo(self) -> set[str]:
        """Return what a plan would do, as ``action name: reason``."""
        plan = self.plan()
        assert plan.complete, plan.diagnostics
        return {f"{c.action} {c.name.rpartition('/')[2]}: {c.reason}" for c in plan.todo}

    def apply(self, plan: Plan | None = None, how: How | None = None, tree: Tree | None = None) -> fleet.Report:
        self.events.clear()
        return fleet.apply(plan or self.plan(), tree or self.tree(), self.secrets, self.events.append, how)

    def applied(self) -> NixLab:
        """Apply, and see that nothing is left to do. What a killed apply began may still move: it is planned anew."""
        while (report := self.apply()).exit_code == ExitCode.STALE:
            pass
        assert report.ok, report.diagnostics
        assert not self.plan().todo, self.todo()
        return self

    def destroy(self) -> fleet.Report:
        return self.apply(self.plan(destroy=True, data=True), How(break_lock=True))

    def said(self) -> list[str]:
        """Return the lines that the last apply told."""
        return [e.text for e in self.events if isinstance(e, LogLine)]

    def runs(self) -> dict[str, str]:
        """Return what each service was started with, and which start of it that is."""
        names = "for n in alpha beta gamma; do systemctl is-active --quiet $n && "
        show = 'echo "$n $(cat /run/$n.said) $(systemctl show -P InvocationID $n)"; done; true'
        lines = self.rig.sh(MACHINE, names + show).splitlines()
        return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in lines}

    def words(self) -> dict[str, str]:
        return {name: said.rpartition(" ")[0] for name, said in self.runs().items()}

    def system(self) -> str:
        return self.rig.sh(MACHINE, "readlink -f /run/current-system")

    def default(self) -> str:
        return self.rig.sh(MACHINE, "readlink -f /nix/var/nix/profiles/system")

    def builds(self) -> int:
        return len(self.rig.sh(MACHINE, "cat /nix/var/stand-in-builds").splitlines())

    def left(self) -> set[str]:
        """Return everything on the host that labctl could have left there."""
        return set(self.rig.sh(MACHINE, LEFT, check=False).splitlines())


def observe(tree: Tree) -> Observed:
    return fleet.observe(tree)
