"""NixOS hosts: the protocol of activation, over real SSH, on a real systemd, with a STAND-IN for nixos-rebuild.

What is real: labctl, OpenSSH, sudo, systemd with its timers, iptables. What is not: Nix, nixpkgs and NixOS's
switch-to-configuration, in place of which stands ``tests/rig/nixos/stand-in``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from labctl.diagnostics import ExitCode
from labctl.hosts.applying import How, tree_for
from labctl.hosts.base import Site
from labctl.hosts.connect import CONNECTIONS, connect
from labctl.hosts.fleet import Report
from labctl.hosts.generations import overview
from labctl.hosts.place import DirectPlacer
from labctl.hosts.work import CRASH
from labctl.plan.diff import diff
from tests.e2e.remote.home import until
from tests.e2e.remote.nixos import HOST, MACHINE, REFUSED, SHUT_FOR_NEW, NixLab, observe, service
from tests.rig.rig import Rig, joined

pytestmark = pytest.mark.slow
STAND_IN = "/srv/labctl/tests/rig/nixos/stand-in"


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A host that counts as NixOS, before labctl has come to it."""
    rig = joined(request.config, hosts=1)
    rig.inside(MACHINE, STAND_IN, "install")
    with rig.entered(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABCTL_SSH", str(rig.ssh))
        yield rig
        NixLab(rig).destroy()
        CONNECTIONS.close()
    rig.inside(MACHINE, STAND_IN, "remove")


@pytest.fixture
def lab(host: Rig, monkeypatch: pytest.MonkeyPatch) -> NixLab:
    """The lab as it is at first, applied. Files go by the shell: that Ansible brings them is tested elsewhere."""
    monkeypatch.setattr("labctl.hosts.applying.placer_of", direct)
    monkeypatch.setattr("labctl.hosts.health.STEADY", 0.1)
    return NixLab(host).applied()


def direct(site: Site, courier: object) -> DirectPlacer:  # noqa: ARG001 - stands for `placer_of`
    return DirectPlacer(site)


def code_of(report: Report) -> set[str]:
    return {d.code for d in report.diagnostics if d.is_error}


def untouched(lab: NixLab) -> None:
    """The host is as the lab says, and was never anything else."""
    assert not lab.todo()
    assert lab.words() == {"alpha": "one first", "beta": "one first"}
    assert lab.system() == lab.default()
    assert "labctl-nixos" not in "".join(lab.left())


def test_from_nothing_and_back(host: Rig) -> None:
    """The only one with Ansible: everything as a user has it."""
    lab = NixLab(host)
    assert lab.destroy().ok
    before, was = lab.left(), lab.system()
    host.sh(MACHINE, "mv /etc/NIXOS /etc/debian")
    assert [d.code for d in lab.plan().diagnostics] == ["LAB240"]
    host.sh(MACHINE, "mv /etc/debian /etc/NIXOS")
    lab.applied()
    assert lab.words() == {"alpha": "one first", "beta": "one first"}
    assert lab.system() == lab.default() != was
    assert "confirmed over a new connection" in lab.said()
    assert "would start the following units: alpha.service, beta.service" in lab.said()
    running, builds = lab.runs(), lab.builds()
    assert lab.apply().ok
    assert (lab.runs(), lab.builds(), lab.said()) == (running, builds, [])
    assert lab.destroy().ok
    assert lab.runs() == {}
    assert (lab.system(), lab.default()) == (was, was)
    assert lab.left() == before


def test_one_unit_changes(lab: NixLab) -> None:
    running = lab.runs()
    other = lab.but(services={**lab.services, "beta": service("two"), "gamma": service("new")})
    assert other.todo() == {
        "update stand-in.json: content-changed",
        "restart nixos: definition-changed",
        "restart beta: definition-changed",
        "create gamma: new",
    }
    other.applied()
    assert other.runs()["alpha"] == running["alpha"]
    assert other.words() == {"alpha": "one first", "beta": "two first", "gamma": "new first"}
    starts = lab.rig.sh(MACHINE, "journalctl --unit beta --output cat | grep -c ^Started")
    lab.applied()
    assert lab.words() == {"alpha": "one first", "beta": "one first"}
    assert lab.runs()["alpha"] == running["alpha"]
    again = lab.rig.sh(MACHINE, "journalctl --unit beta --output cat | grep -c ^Started")
    assert int(again) == int(starts) + 1, "by the activation, and not once more by labctl"


def test_only_a_secret_changes(lab: NixLab) -> None:
    running, builds = lab.runs(), lab.builds()
    other = lab.but(key="second")
    assert other.todo() == {"update alpha.env: secret-rotated", "restart alpha: secret-rotated"}
    other.applied()
    assert other.words()["alpha"] == "one second"
    assert (other.runs()["beta"], other.builds()) == (running["beta"], builds)


@pytest.mark.parametrize(("rule", "lost"), [(SHUT_FOR_NEW, False), (REFUSED, True)])
def test_a_firewall_that_shuts_out_ssh_is_taken_back_by_the_host(lab: NixLab, rule: list[str], lost: bool) -> None:  # noqa: FBT001
    """``lost``: the connection of the apply breaks, too."""
    shut = lab.but(spec={"firewall": rule}, services={**lab.services, "gamma": service("new")}, confirm=2)
    report = shut.apply()
    assert code_of(report) == {"LAB244"}
    assert report.exit_code == ExitCode.PARTIAL
    assert bool(report.outcomes[HOST].failed) is not lost
    assert "restart nixos" in "".join(shut.todo())
    assert set(shut.runs()) == {"alpha", "beta"}
    assert lab.system() == lab.default()
    lab.applied()
    untouched(lab)


def test_a_system_that_cannot_be_built(lab: NixLab) -> None:
    running = lab.runs()
    report = lab.but(spec={"broken": "The option `services.x' does not exist."}).apply()
    assert code_of(report) == {"LAB241"}
    (problem,) = report.outcomes[HOST].failed.values()
    assert f"hosts/{HOST}/services.nix, line 3" in problem.summary
    assert "does not exist" in problem.detail
    assert lab.runs() == running
    untouched(lab)


def test_an_activation_that_takes_longer_than_the_time_to_confirm(lab: NixLab) -> None:
    """Services may start slowly: while labctl still gets in, the host waits."""
    other = lab.but(services={"alpha": service("slow")}, spec={"takes": 4}, confirm=2).applied()
    assert other.words() == {"alpha": "slow first"}


def test_built_elsewhere(lab: NixLab) -> None:
    other = lab.but(services={"alpha": service("two")}, build="root@builder").applied()
    assert "building the system on root@builder" in other.said()
    assert any(line.endswith("from 'ssh://root@builder'...") for line in other.said())


def test_a_way_back_that_cannot_be_armed(lab: NixLab) -> None:
    lab.rig.sh(MACHINE, "systemctl mask --runtime labctl-nixos-back.timer")
    report = lab.but(services={"alpha": service("two")}).apply()
    lab.rig.sh(MACHINE, "systemctl unmask --runtime labctl-nixos-back.timer")
    assert code_of(report) == {"LAB242"}
    untouched(lab)


def test_a_system_that_would_not_be_booted(lab: NixLab) -> None:
    report = lab.but(services={"alpha": service("two")}, spec={"no_boot": True}).apply()
    assert code_of(report) == {"LAB246"}
    untouched(lab)


def test_a_system_of_which_a_unit_fails(lab: NixLab) -> None:
    text = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no such model; exit 1'\n"
    bad = lab.but(services={**lab.services, "gamma": text}, spec={"reexec": True})
    report = bad.apply()
    assert code_of(report) == {"LAB243"}
    (problem,) = report.outcomes[HOST].failed.values()
    assert "units failed: gamma.service" in problem.summary
    assert "no such model" in problem.detail
    untouched(lab)
    other = lab.but(services={**lab.services, "beta": service("two")})
    assert other.apply().ok, "a unit that failed before is no reason not to go on"
    assert "failed before and still: gamma.service" in other.said()
    lab.rig.sh(MACHINE, "systemctl reset-failed")


def test_a_service_that_ends_later_takes_the_whole_system_back(lab: NixLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labctl.hosts.health.STEADY", 1)
    monkeypatch.setattr("labctl.hosts.health.GIVE_UP", 0.5)
    bad = lab.but(services={"alpha": service("two"), "beta": service("two", "sleep 0.4; exit 1")})
    builds = lab.builds()
    report = bad.apply()
    assert code_of(report) == {"LAB110"}
    assert report.outcomes[HOST].back_to is not None
    untouched(lab)
    assert lab.builds() == builds + 1, "the old system was still there"


def test_back_to_an_older_generation(lab: NixLab) -> None:
    old, builds = lab.system(), lab.builds()
    lab.but(services={"alpha": service("later")}).applied()
    assert lab.words() == {"alpha": "later first"}
    generation = overview(connect(lab.root)).chosen()
    assert generation is not None
    tree = tree_for(lab.root, generation)
    plan = diff(tree, observe(tree), generation.secret_digests(HOST), lab="nix", lab_digest="d")
    assert lab.apply(plan, How(generations={HOST: generation}), tree).ok
    untouched(lab)
    assert (lab.system(), lab.builds()) == (old, builds + 1)


def test_somebody_activates_another_system(lab: NixLab) -> None:
    ours, builds = lab.system(), lab.builds()
    first = "$(readlink -f /nix/store/*-nixos-system-first)"
    lab.rig.sh(
        MACHINE, f"nix-env -p /nix/var/nix/profiles/system --set {first}; {first}/bin/switch-to-configuration switch"
    )
    assert lab.runs() == {}
    plan = lab.plan()
    assert {c.name for c in plan.drift} == {"nixos", "alpha", "beta"}
    assert [(d.code, d.detail) for d in plan.diagnostics] == [
        ("LAB247", "would start the following units: alpha.service, beta.service")
    ]
    lab.applied()
    untouched(lab)
    assert (lab.system(), lab.builds()) == (ours, builds)
    lab.rig.sh(MACHINE, f"nix-env -p /nix/var/nix/profiles/system --set {first}")
    assert lab.todo() == {"update nixos: not-enabled"}
    running = lab.runs()
    lab.applied()
    assert (lab.default(), lab.runs()) == (ours, running)
    lab.rig.sh(MACHINE, "echo renewed >/etc/labctl/nix/flake/flake.lock")
    assert lab.todo() == {"start nixos: stopped"}
    lab.applied()
    assert lab.builds() == builds + 1


KILLED = """
import sys
from tests.e2e.remote.nixos import NixLab, service
from tests.e2e.remote.test_nixos import direct
from tests.rig.rig import up
import labctl.hosts.applying
labctl.hosts.applying.placer_of = direct
NixLab(up(1), **eval(sys.argv[1])).apply()
"""


def spawn(lab: NixLab, step: int | None = None) -> subprocess.Popen[bytes]:
    """Apply a lab in a process of its own, which dies before a step."""
    what = repr({"services": lab.services, "spec": lab.spec, "confirm": lab.confirm})
    return subprocess.Popen([sys.executable, "-c", KILLED, what], env={**os.environ, CRASH: str(step)})


PROTOCOL = range(5, 9)
"""Of the steps of such an apply those at which the host has: armed; begun to activate; activated; confirmed."""


def test_killed_at_every_step_of_the_protocol(lab: NixLab) -> None:
    """The host settles by itself, or the next apply does it: either way the next one ends well."""
    for step in PROTOCOL:
        other = lab.but(services={**lab.services, "alpha": service(f"killed{step}")})
        assert spawn(other, step).wait() == -signal.SIGKILL
        assert other.todo(), step
        other.applied()
        assert other.words()["alpha"] == f"killed{step} first"
        assert other.system() == other.default()
        assert "labctl-nixos" not in "".join(other.left())


def test_killed_and_nobody_comes_back(lab: NixLab) -> None:
    """The timer takes the old system back, and survives that the new one replaced the running systemd."""
    old = lab.system()
    other = lab.but(services={"alpha": service("two")}, spec={"firewall": SHUT_FOR_NEW, "reexec": True}, confirm=2)
    with spawn(other) as process:
        until(lambda: other.words() == {"alpha": "two first"})
        process.send_signal(signal.SIGKILL)
    assert lab.system() != old
    until(lambda: lab.system() == old and set(lab.words()) == {"alpha", "beta"})
    assert lab.default() == old
    untouched(lab.applied())


def test_a_reboot_before_the_confirmation_boots_the_old_system(lab: NixLab) -> None:
    old = lab.system()
    other = lab.but(services={"alpha": service("two")}, spec={"firewall": SHUT_FOR_NEW}, confirm=60)
    with spawn(other) as process:
        until(lambda: other.words() == {"alpha": "two first"})
        process.send_signal(signal.SIGKILL)
        lab.rig.stop(MACHINE)
    lab.rig.start(MACHINE)
    until(lambda: set(lab.words()) == {"alpha", "beta"})
    assert (lab.system(), lab.default()) == (old, old)
    CONNECTIONS.close()
    untouched(lab.applied())
