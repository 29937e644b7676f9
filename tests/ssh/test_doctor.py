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
    found = {}
    for name, server in (("up", up), ("down", down)):
        root = root_of(server, str(tmp_path))
        tree = Tree.of([root])
        found[name] = examine(Subject(root=root, part=tree, seen=fleet.observe(tree).hosts["far"]))
    assert found["up"].ok
    assert found["up"].checks[0].found
    (only,) = found["down"].checks
    assert only.problem is not None
    assert (only.name, only.problem.code, bool(only.problem.hint)) == ("connection", "LAB164", True)
