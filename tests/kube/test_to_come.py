"""A cluster that comes with the apply that first uses it.

The API server is real. The machine is a stand-in, a supervised program of this one, and so is its k3s
(``tests/rig/nixos/k3s-stand-in``), which forwards a port to that API server: nothing answers there before it runs.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.artefact import Cluster, Tree
from labctl.hosts import fleet
from labctl.hosts.events import HostDone
from labctl.hosts.fleet import How
from labctl.plan.diff import diff
from labctl.plan.model import Action, Plan
from labctl.plan.wire import plan_from_json, plan_to_json
from labctl.secrets import Secrets
from labctl.views.plan import render_plan
from tests.hosts.labs import HOST as MACHINE
from tests.hosts.labs import Lab as Machine
from tests.hosts.labs import Program
from tests.kube.labs import HOST, Lab, actions, codes
from tests.rig.kube.cluster import CONTEXT

pytestmark = pytest.mark.slow

K3S = Path(__file__).parents[1] / "rig/nixos/k3s-stand-in"


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def machine(lab: Lab, port: int) -> Iterator[Machine]:
    folder = Path("/tmp") / f"labctl-{lab.namespace}"  # a short path: supervisord has a socket there
    shutil.rmtree(folder, ignore_errors=True)
    target = lab.plane.address.removeprefix("https://")
    own = folder / "etc/rancher/k3s/k3s.yaml"
    command = f"{sys.executable} {K3S} {lab.plane.kubeconfig} {CONTEXT} {own} {port} {target}"
    found = Machine(folder, {"k3s": Program(command=command)})
    yield found
    found.destroy()
    shutil.rmtree(folder, ignore_errors=True)


def both(lab: Lab, machine: Machine, *objects: str) -> Tree:
    """Return the machine and, after it, its cluster with a ConfigMap per name."""
    server = replace(machine.tree().roots[MACHINE], address="127.0.0.1")
    cluster = Cluster(namespace=lab.namespace, lab=lab.namespace, server=server)
    tree = lab.tree(*(lab.config(name, a="1") for name in objects))
    root = replace(tree.roots[HOST], cluster=cluster, after=(MACHINE,))
    return Tree.of([*machine.tree().items(), *(i for i in tree.items() if i is not tree.roots[HOST]), root])


def plan_of(tree: Tree, *, destroy: bool = False) -> Plan:
    return diff(tree, fleet.observe(tree), fleet.secret_digests(tree, Secrets()), lab="test", destroy=destroy)


def test_one_apply_brings_the_machine_and_then_what_runs_in_its_cluster(lab: Lab, machine: Machine) -> None:
    tree = both(lab, machine, "settings")
    plan = plan_of(tree)
    assert (plan.complete, codes(plan)) == (True, ["LAB205"])
    assert plan.hosts[HOST].to_come
    assert actions(plan)["ConfigMap/settings"] is Action.CREATE
    shown = render_plan(plan)
    assert shown.index(MACHINE) < shown.index("ConfigMap/settings")
    report = lab.do(plan, tree)
    assert report.ok, report.diagnostics
    assert [e.host for e in lab.events if isinstance(e, HostDone)] == [MACHINE, HOST]
    assert lab.get("ConfigMap", "settings") is not None
    again = plan_of(tree)
    assert (actions(again), codes(again)) == ({}, [])  # it is there now: seen with the server's own kubeconfig
    assert not again.hosts[HOST].to_come
    undone = plan_of(tree, destroy=True)
    lab.events.clear()
    assert lab.do(undone, tree).ok
    assert [e.host for e in lab.events if isinstance(e, HostDone)] == [HOST, MACHINE]
    assert lab.get("ConfigMap", "settings") is None


def test_a_plan_that_was_kept_holds_for_a_cluster_to_come(lab: Lab, machine: Machine) -> None:
    lab.secret(KEY="a-value-of-mine")
    tree = Tree.of([*both(lab, machine, "settings").items(), lab.keys("keys", KEY="KEY")])
    digests = fleet.secret_digests(tree, lab.secrets)
    kept = plan_from_json(plan_to_json(diff(tree, fleet.observe(tree, lab.secrets), digests, lab="test")))
    report = lab.do(kept, tree, How(exact=True))
    assert report.ok, report.diagnostics
    assert lab.get("Secret", "keys") is not None


def test_what_is_there_after_all_is_not_touched_unless_it_was_planned(lab: Lab, machine: Machine) -> None:
    """A cluster that was only down is planned as empty, too: apply finds out, and refuses."""
    lab.apply(lab.tree(lab.config("settings", a="1"), lab.config("other", a="1")))
    tree = both(lab, machine, "settings")
    plan = plan_of(tree)
    assert "ConfigMap/other" not in actions(plan)
    report = lab.do(plan, tree)
    assert report.outcomes[MACHINE].ok
    assert [d.code for d in report.outcomes[HOST].diagnostics] == ["LAB124"]
    assert report.stale == (f"{HOST}:ConfigMap/other",)
    assert lab.get("ConfigMap", "other") is not None


def test_a_cluster_that_never_came_is_destroyed_with_its_machine(lab: Lab, machine: Machine) -> None:
    tree = both(lab, machine, "settings")
    plan = plan_of(tree, destroy=True)
    assert codes(plan) == ["LAB205"]
    assert lab.do(plan, tree).ok


def test_a_machine_that_runs_and_does_not_answer_is_a_problem(lab: Lab, machine: Machine) -> None:
    machine.change("k3s", command=machine.programs["k3s"].command + " deaf")
    alone = both(lab, machine, "settings").of_host(MACHINE)
    assert lab.do(plan_of(alone), alone).ok
    plan = plan_of(both(lab, machine, "settings"))
    assert (plan.complete, codes(plan)) == (False, ["LAB171"])
    assert not plan.hosts[HOST].to_come


def test_without_k3s_there_is_no_kubeconfig(lab: Lab, machine: Machine) -> None:
    tree = both(lab, machine, "settings").of_host(HOST)
    plan = plan_of(tree)
    assert (plan.complete, codes(plan)) == (False, ["LAB204"])
