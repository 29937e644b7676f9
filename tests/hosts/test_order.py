"""Roots that come after others: who waits for whom, in apply, in destroy, and in a plan before anything is there."""

from __future__ import annotations

import threading
from dataclasses import replace
from graphlib import CycleError
from pathlib import Path

import pytest

from labctl.artefact import Cluster, File, HostRoot, Manager, Tree, Unit
from labctl.diagnostics import Diagnostic, ExitCode
from labctl.hosts import fleet
from labctl.hosts.base import Stopped
from labctl.hosts.events import ChangeStarted, Event, HostDone
from labctl.hosts.fleet import How
from labctl.hosts.order import Precedence, with_those_to_come
from labctl.plan.diff import diff
from labctl.plan.model import Action
from labctl.plan.observed import Observed, SeenHost, SeenUnit, UnitState
from labctl.plan.order import predecessors
from labctl.plan.wire import plan_from_json, plan_to_json
from labctl.secrets import Secrets
from labctl.workload import Start

NOTHING = Secrets()


def root(folder: Path, name: str, *after: str) -> HostRoot:
    return HostRoot(host=name, root=str(folder / name), state="state", after=after)


def tree(*roots: HostRoot) -> Tree:
    return Tree.of([*roots, *(File(host=r.host, path="a/f", content=b"x") for r in roots)])


def begun(events: list[Event]) -> list[str]:
    return [e.host for e in events if isinstance(e, ChangeStarted | HostDone)]


@pytest.fixture
def three(tmp_path: Path) -> Tree:
    """By name the one that comes last stands first."""
    return tree(root(tmp_path, "a", "b", "c"), root(tmp_path, "b", "c"), root(tmp_path, "c"))


@pytest.mark.parametrize("at_once", [1, 8])
def test_each_is_begun_when_those_before_it_are_done(three: Tree, at_once: int) -> None:
    plan = diff(three, fleet.observe(three))
    assert [c.host for c in plan.changes] == ["c", "b", "a"]  # the plan is in the order of apply
    events: list[Event] = []
    assert fleet.apply(plan, three, NOTHING, events.append, How(at_once=at_once)).ok
    assert begun(events) == ["c", "c", "b", "b", "a", "a"]


def test_a_destroy_goes_the_other_way(three: Tree) -> None:
    fleet.apply(diff(three, fleet.observe(three)), three, NOTHING, lambda _: None)
    plan = diff(three, fleet.observe(three), destroy=True)
    assert [c.host for c in plan.changes] == ["a", "b", "c"]
    events: list[Event] = []
    assert fleet.apply(plan, three, NOTHING, events.append).ok
    assert begun(events) == ["a", "a", "b", "b", "c", "c"]


def test_what_comes_after_one_that_failed_is_left_alone(tmp_path: Path) -> None:
    wanted = tree(root(tmp_path, "bad"), root(tmp_path, "cluster", "bad"), root(tmp_path, "other"))
    plan = diff(wanted, fleet.observe(wanted))
    (tmp_path / "bad").write_text("a file where the root is to be")
    report = fleet.apply(plan, wanted, NOTHING, lambda _: None)
    assert report.exit_code == ExitCode.PARTIAL
    assert [d.code for d in report.outcomes["cluster"].diagnostics] == ["LAB206"]
    assert report.outcomes["cluster"].skipped == ("cluster:a/f",)
    assert not (tmp_path / "cluster").exists()
    assert report.outcomes["other"].ok


def test_nobody_waits_for_what_is_not_worked_on(three: Tree) -> None:
    part = three.of_host("a")
    assert fleet.apply(diff(part, fleet.observe(part)), part, NOTHING, lambda _: None).ok


def test_a_host_that_waits_can_be_told_to_stop() -> None:
    stop = threading.Event()

    def check() -> None:
        stop.set()
        raise Stopped

    with pytest.raises(Stopped):
        Precedence({"a": frozenset({"b"})}).wait("a", check)
    assert stop.is_set()


def test_roots_that_wait_for_each_other_are_a_bug() -> None:
    with pytest.raises(CycleError):
        predecessors([HostRoot(host="a", root="/", state="", after=("b",)), replace(_root("b"), after=("a",))])


def _root(name: str) -> HostRoot:
    return HostRoot(host=name, root="/", state="s")


CLUSTER = HostRoot(host="k3s", root="kubernetes", state="", after=("node",), cluster=Cluster(namespace="lab"))
UNIT = Unit(host="node", name="k3s", id="k3s.service", manager=Manager.NIXOS, project="flake.nix", fingerprint="f")
WHY = Diagnostic(code="LAB171", summary="the API server does not answer")
SILENT = SeenHost(host="k3s", complete=False, silent=True, why=(WHY,))


def seen(node: SeenHost, cluster: SeenHost = SILENT, unit: Unit = UNIT) -> SeenHost:
    """Return what is made of a cluster that was seen so beside its node."""
    wanted = Tree.of([_root("node"), CLUSTER, unit])
    return with_those_to_come(wanted, Observed({"node": node, "k3s": cluster})).hosts["k3s"]


def running(state: UnitState) -> SeenHost:
    return SeenHost(host="node", units={"k3s": SeenUnit(state=state)})


@pytest.mark.parametrize("node", [SeenHost(host="node"), running(UnitState.ABSENT), running(UnitState.FAILED)])
def test_a_cluster_whose_machine_does_not_run_k3s_yet_is_planned_as_empty(node: SeenHost) -> None:
    found = seen(node)
    assert (found.complete, found.to_come) == (True, True)
    assert [d.code for d in found.why] == ["LAB205"]
    assert not found.why[0].is_error


def test_a_cluster_that_is_down_although_its_machine_runs_it_is_a_problem() -> None:
    assert seen(running(UnitState.RUNNING)) == SILENT


def test_a_cluster_whose_machine_cannot_be_looked_at_is_a_problem() -> None:
    assert seen(SeenHost(host="node", complete=False)) == SILENT


def test_a_cluster_that_refuses_to_be_looked_at_is_a_problem() -> None:
    refused = replace(SILENT, silent=False)
    assert seen(SeenHost(host="node"), refused) == refused


def test_a_unit_that_rests_brings_nothing() -> None:
    assert seen(SeenHost(host="node"), unit=replace(UNIT, start=Start.ON_DEMAND)) == SILENT


def test_a_plan_says_what_is_still_to_come_and_can_be_kept() -> None:
    wanted = Tree.of([_root("node"), CLUSTER, UNIT])
    observed = with_those_to_come(wanted, Observed({"node": SeenHost(host="node"), "k3s": SILENT}))
    plan = diff(wanted, observed)
    assert plan.complete
    assert plan.hosts["k3s"].to_come
    assert not plan.hosts["node"].to_come
    assert plan_from_json(plan_to_json(plan)) == plan
    assert all(c.action is not Action.UNKNOWN for c in plan.changes)
