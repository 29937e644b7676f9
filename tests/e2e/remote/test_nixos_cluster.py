"""One apply from a bare NixOS machine to what runs in its cluster, over real SSH.

What is real: labctl with a lab.yaml, OpenSSH, sudo, systemd, a Kubernetes API server. What is not: Nix and NixOS, in
place of which stands ``tests/rig/nixos/stand-in``, and k3s, in place of which ``tests/rig/nixos/k3s-stand-in`` writes
the kubeconfig and forwards to that API server.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl import operate, usecases
from labctl.diagnostics import ExitCode
from labctl.hosts.connect import CONNECTIONS
from labctl.hosts.events import ChangeDone, Event, HostDone, HostPhase
from labctl.operate import Scope
from labctl.plan.model import Plan
from labctl.plan.observed import UnitState
from labctl.usecases import Loaded
from tests.e2e.remote.nixos import MACHINE
from tests.e2e.remote.test_nixos import STAND_IN, direct
from tests.rig.kube.cluster import CONTEXT, ControlPlane, binaries
from tests.rig.rig import Rig, joined

pytestmark = pytest.mark.slow

K3S = "tests/rig/nixos/k3s-stand-in"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVDb6EdOcouHQzNY/sptWHfd6tuJZdApBFxWPFKmXp2"
LAB = """
lab: droplet
hosts:
  box:
    address: {address}
    target: k3s
    ssh: {{user: lab}}
    nixos: {{hardware: hardware-configuration.nix, boot: given, keys: [{key}], interface: host0}}
    k3s: {{namespace: droplet, disable: [traefik], token: K3S_TOKEN}}
services: {{searxng: {{host: box}}}}
secrets: {{from: .env, generate: [K3S_TOKEN]}}
"""
HARDWARE = """/* stand-in: {spec} */
{{ fileSystems."/".device = "/dev/sda1"; boot.loader.grub.device = "/dev/sda"; }}
"""


@pytest.fixture(scope="module")
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, ControlPlane]]:
    """A host that counts as NixOS, and an API server in its network."""
    if binaries() is None:
        pytest.skip("there is no kube-apiserver: run tests/tools/install-kube (ten minutes, once)")
    rig = joined(request.config, hosts=1)
    rig.inside(MACHINE, STAND_IN, "install")
    with rig.entered(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABCTL_SSH", str(rig.ssh))
        plane = ControlPlane(tmp_path_factory.mktemp("plane") / "plane")
        plane.start({"box": 0})
        try:
            yield rig, plane
        finally:
            plane.stop()
            CONNECTIONS.close()
    rig.inside(MACHINE, STAND_IN, "remove")


@pytest.fixture
def loaded(rig: tuple[Rig, ControlPlane], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    """The lab; on its host k3s would reach the API server, once it runs."""
    host, plane = rig
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("labctl.hosts.applying.placer_of", direct)
    monkeypatch.setattr("labctl.hosts.health.STEADY", 0.1)
    with socket.socket() as found:
        found.bind((f"{host.subnet}.1", 0))
        port = found.getsockname()[1]
    where = plane.address.removeprefix("https://")
    own = [sys.executable, K3S, str(plane.kubeconfig), CONTEXT, str(tmp_path / "unused"), str(port), where]
    outward = subprocess.Popen(own, stdin=subprocess.DEVNULL)
    host.inside(MACHINE, "sh", "-ec", "umask 077; cat >/root/kubeconfig", stdin=plane.kubeconfig.read_text())
    words = f"/root/kubeconfig {CONTEXT} /etc/rancher/k3s/k3s.yaml 6443 {host.subnet}.1:{port}"
    unit = f"[Service]\nExecStart=/usr/bin/python3 /srv/labctl/{K3S} {words}\n"
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB.format(address=host.address(MACHINE), key=KEY))
    spec = json.dumps({"services": {"k3s": unit}})
    (folder / "hardware-configuration.nix").write_text(HARDWARE.format(spec=spec))
    found_lab = usecases.load(folder)
    assert found_lab.ok, found_lab.diagnostics
    names = {w for w in found_lab.need_rendered().tree.secret_names if w != "K3S_TOKEN"}
    env = folder / ".env"
    env.touch(mode=0o600)
    env.write_text("".join(f"{name}=value-of-{name}\n" for name in sorted(names)))
    yield usecases.load(folder)
    outward.terminate()
    outward.wait(10)


def planned(loaded: Loaded, scope: Scope = Scope()) -> operate.Work:  # noqa: B008 - a frozen value
    return operate.make_plan(loaded, scope, operate.known_secrets(loaded, operate.tree_of(loaded)))


def codes(plan: Plan) -> set[str]:
    return {d.code for d in plan.diagnostics}


def test_from_a_bare_machine_to_a_page_in_its_cluster_and_back(loaded: Loaded, rig: tuple[Rig, ControlPlane]) -> None:
    host, plane = rig
    work = planned(loaded)
    assert work.plan.complete, work.plan.diagnostics
    assert work.plan.hosts["k3s"].to_come
    assert "LAB205" in codes(work.plan)
    assert [c.host for c in work.plan.changes] == sorted((c.host for c in work.plan.changes), key=["box", "k3s"].index)

    events: list[Event] = []
    report = operate.apply(work, events.append)
    assert report.exit_code == ExitCode.OK, report.diagnostics
    assert [e.host for e in events if isinstance(e, HostDone)] == ["box", "k3s"]
    assert plane.api().get("/apis/apps/v1/namespaces/droplet/deployments/searxng") is not None
    assert host.sh(MACHINE, "stat -c %a /var/lib/labctl/droplet/secrets/k3s-token") == "600"
    assert "interfaces.host0" in host.sh(MACHINE, "cat /etc/labctl/droplet/flake/hosts/box/networking.nix")

    again = planned(loaded)
    assert again.nothing_to_do, again.plan.todo
    rows, _, problems = operate.status(loaded)
    assert not problems
    states = {(row.host, row.unit.name): row.seen.state for row in rows}
    assert {states["box", name] for name in ("nixos-system", "nixos-k3s")} == {UnitState.RUNNING}
    assert states["k3s", "searxng"] is UnitState.RUNNING

    # the machine's k3s is gone, and with it the API: planned as before, and brought back by one apply
    host.sh(MACHINE, "systemctl stop k3s; rm /etc/rancher/k3s/k3s.yaml")
    broken = planned(loaded)
    assert broken.plan.hosts["k3s"].to_come
    events.clear()
    assert operate.apply(broken, events.append).ok
    assert [e.address for e in events if isinstance(e, ChangeDone)] == ["box/nixos-k3s"]
    assert [e.detail for e in events if isinstance(e, HostPhase) and e.host == "k3s" and "API" in e.detail] in (
        [],
        ["waiting for its API server"],
    )

    events.clear()
    assert operate.apply(planned(loaded, Scope(destroy=True, data=True)), events.append).ok
    assert [e.host for e in events if isinstance(e, HostDone)] == ["k3s", "box"]
    assert plane.api().get("/apis/apps/v1/namespaces/droplet/deployments/searxng") is None
    assert host.sh(MACHINE, "systemctl is-active k3s || true") == "inactive"
