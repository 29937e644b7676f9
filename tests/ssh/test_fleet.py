"""Plan and apply over SSH: files, secrets, hosts that are down, all through real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.artefact import File, HostRoot, Item, SecretFile, Tree
from labctl.diagnostics import ExitCode
from labctl.hosts import fleet
from labctl.plan.diff import diff
from labctl.plan.model import Action, Plan
from labctl.secrets import Secret, Secrets
from labctl.workload import SecretRef, SecretText
from tests.cli.running import labctl
from tests.ssh.conftest import root_of
from tests.ssh.servers import Net, Sshd, can_have_own_users

KEY = "poison-Sentinel-5e1f$\"'\\x"
SECRETS = Secrets({"API_KEY": Secret(KEY)})


def tree(root: HostRoot, *more: Item) -> Tree:
    files = [File(host=root.host, path=f"etc/lab/{n}", content=f"{n} {{{{ braces }}}}\n".encode()) for n in range(5)]
    text = SecretText((SecretRef("API_KEY"),))
    secret = SecretFile(host=root.host, path="etc/lab/key.env", entries={"API_KEY": text})
    return Tree.of([root, *files, secret, *more])


def plan_of(wanted: Tree) -> Plan:
    return diff(wanted, fleet.observe(wanted, SECRETS), fleet.secret_digests(wanted, SECRETS))


@pytest.mark.slow
def test_apply_from_nothing_then_no_change_then_drift(server: Sshd, tmp_path: Path) -> None:
    wanted = tree(root_of(server, str(tmp_path / "far")))
    first = plan_of(wanted)
    assert {c.action for c in first.changes} == {Action.CREATE}
    report = fleet.apply(first, wanted, SECRETS, lambda _: None)
    assert report.exit_code == ExitCode.OK, report.diagnostics
    folder = tmp_path / "far/etc/lab"
    assert (folder / "3").read_text() == "3 {{ braces }}\n"
    assert (folder / "key.env").stat().st_mode & 0o777 == 0o600
    assert "poison-Sentinel" in (folder / "key.env").read_text()
    assert not plan_of(wanted).todo
    (folder / "3").write_text("by hand")
    (folder / "4").unlink()
    drifted = plan_of(wanted)
    assert {c.name for c in drifted.todo} == {"etc/lab/3", "etc/lab/4"}
    assert fleet.apply(drifted, wanted, SECRETS, lambda _: None).ok
    assert not plan_of(wanted).todo
    assert "poison" not in server.log


@pytest.mark.slow
def test_a_host_that_is_down_makes_the_plan_incomplete_and_stops_nobody(net: Net, tmp_path: Path) -> None:
    up, down = net.serve(), net.serve()
    gone = root_of(down, str(tmp_path / "gone"))
    near = tree(root_of(up, str(tmp_path / "far")))
    other = HostRoot(host="gone", root=gone.root, state="state", address=gone.address, login=gone.login)
    wanted = Tree.of([*near.items(), other, File(host="gone", path="f", content=b"x")])
    down.stop()
    plan = plan_of(wanted)
    assert (plan.complete, plan.applyable) == (False, True)
    assert [c.action for c in plan.of_host("gone")] == [Action.UNKNOWN]
    assert [d.code for d in plan.diagnostics] == ["LAB164"]
    assert fleet.apply(plan, wanted, SECRETS, lambda _: None).exit_code == ExitCode.PARTIAL
    assert (tmp_path / "far/etc/lab/3").exists()
    down.start()
    down.await_ready()
    later = plan_of(wanted)
    assert later.complete
    assert fleet.apply(later, wanted, SECRETS, lambda _: None).ok
    assert (tmp_path / "gone/f").read_bytes() == b"x"


LAB = """\
lab: far
hosts:
  far:
    address: {address}
    target: compose
    ssh: {{port: {port}}}
services:
  postgres: {{host: far}}
secrets: {{generate: [POSTGRES_PASSWORD]}}
"""


def test_problems_point_into_lab_yaml(net: Net, tmp_path: Path) -> None:
    server = net.serve()
    server.stop()
    lab = tmp_path / "lab.yaml"
    lab.write_text(LAB.format(address=server.address, port=server.port))
    for command in (["plan"], ["status"], ["logs", "postgres"], ["apply", "--yes"]):
        ran = labctl(command[0], *command[1:], str(lab), environment={**net.environment, "HOME": str(tmp_path)})
        assert "LAB164" in ran.err, (command, ran.err)
        assert "lab.yaml:4" in ran.err, (command, ran.err)
        assert ran.code == ExitCode.ERROR
        assert "bug" not in ran.err


@pytest.mark.slow
@pytest.mark.skipif(not can_have_own_users(), reason="needs root and unshare")
def test_a_full_disk(net: Net, tmp_path: Path) -> None:
    """The host's root is a file system of a quarter of a MiB; the old files stay whole, and making room is enough."""
    place = tmp_path / "far"
    place.mkdir()
    mount = f'mount -t tmpfs -o size=256k own {place} && exec "$@"'
    server = net.serve(within=("unshare", "--mount", "sh", "-c", mount, "sh"))
    root = root_of(server, str(place))
    small = Tree.of([root, File(host="far", path="a", content=b"old")])
    assert fleet.apply(plan_of(small), small, SECRETS, lambda _: None).ok
    large = Tree.of([root, File(host="far", path="a", content=b"x" * (1 << 20))])
    report = fleet.apply(plan_of(large), large, SECRETS, lambda _: None)
    assert not report.ok
    assert "LAB194" in {d.code for d in report.diagnostics}, report.diagnostics
    assert not [c for c in plan_of(small).todo if c.name != "a"]
    assert fleet.apply(plan_of(small), small, SECRETS, lambda _: None).ok
    assert not plan_of(small).todo
