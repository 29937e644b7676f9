"""labctl doctor over SSH."""

from __future__ import annotations

from pathlib import Path

from labctl.artefact import Tree
from labctl.hosts import fleet
from labctl.hosts.doctor import Subject, examine
from tests.ssh.conftest import root_of
from tests.ssh.servers import Net


def test_one_that_answers_and_one_that_does_not(net: Net, tmp_path: Path) -> None:
    up, down = net.serve(), net.serve()
    down.stop()
    for server, ok in ((up, True), (down, False)):
        root = root_of(server, str(tmp_path))
        tree = Tree.of([root])
        found = examine(Subject(root=root, part=tree, seen=fleet.observe(tree).hosts["far"]))
        assert found.ok is ok
        assert found.checks[0].name == "connection"
    (only,) = found.checks
    assert only.problem is not None
    assert (only.problem.code, bool(only.problem.hint)) == ("LAB164", True)
