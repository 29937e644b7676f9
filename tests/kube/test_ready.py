"""Waves, readiness, rollback, scheduling of cards, secrets and interruptions, against a real control plane."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

import pytest

from labctl.artefact import Tree
from labctl.hosts import fleet
from labctl.hosts.backend import Order
from labctl.hosts.events import ChangeDone, ChangeStarted, Event, LogLine, Waiting
from labctl.hosts.fleet import How, Report
from labctl.hosts.work import stop_when
from labctl.kube.backend import backend
from labctl.plan.model import Action, Plan, Reason
from labctl.plan.observed import UnitState
from labctl.plan.wire import plan_to_json
from labctl.views.plan import render_plan
from labctl.workload import Start
from tests.kube.labs import HOST, Lab, actions, codes
from tests.rig.kube.cluster import ControlPlane

pytestmark = pytest.mark.slow

SENTINEL = "sentinel-Zq81-of-a-secret"


def test_waves_are_ready_before_the_next_begins(lab: Lab) -> None:
    tree = lab.tree(lab.workload("database", 2), lab.workload("gateway", 4), lab.workload("engine", 3))
    assert lab.apply(tree).ok
    order = [(type(e).__name__, e.address) for e in lab.events if isinstance(e, ChangeStarted | ChangeDone)]
    expected = [f"{HOST}:Deployment/{name}" for name in ("database", "engine", "gateway")]
    assert [address for kind, address in order if address in expected] == [a for a in expected for _ in range(2)]
    assert any(isinstance(e, Waiting) and e.unit == "database" for e in lab.events)


def test_a_workload_that_crashes_says_why_and_gets_its_previous_definition_back(lab: Lab) -> None:
    lab.apply(lab.tree(lab.workload("engine"), lab.config("old", a="1")))
    bad = lab.tree(lab.workload("engine", image="registry.example/engine:crashes"), lab.workload("gateway", 3))
    report = lab.apply(bad)
    assert codes(report) == ["LAB200"]
    (problem,) = report.diagnostics
    assert "its previous definition runs again" in problem.summary
    assert "CrashLoopBackOff (exit status 137)" in problem.detail
    assert "boom: out of memory" in problem.detail
    assert any(isinstance(e, LogLine) and "boom" in e.text for e in lab.events)
    found = lab.get("Deployment", "engine") or {}
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/engine:1"
    assert lab.get("Deployment", "gateway") is None  # a later wave is not begun
    assert lab.get("ConfigMap", "old") is not None  # nothing is pruned
    assert len(lab.pods("engine")) == 1
    good = lab.tree(lab.workload("engine", image="registry.example/engine:2"), lab.workload("gateway", 3))
    assert lab.apply(good).ok
    assert lab.get("ConfigMap", "old") is None


def test_a_stateful_set_goes_back_too(lab: Lab) -> None:
    lab.apply(lab.tree(lab.workload("database", kind="StatefulSet")))
    bad = lab.tree(lab.workload("database", kind="StatefulSet", image="registry.example/engine:does-not-exist"))
    report = lab.apply(bad)
    assert codes(report) == ["LAB200"]
    assert "ErrImageNeverPull" in report.diagnostics[0].detail
    (pod,) = lab.pods("database")
    assert pod["spec"]["containers"][0]["image"] == "registry.example/engine:1"


def test_a_new_workload_that_is_not_ready_in_time_stays_to_be_looked_at(lab: Lab) -> None:
    report = lab.apply(lab.tree(lab.workload("engine", image="registry.example/engine:never-ready", limit=3)))
    assert codes(report) == ["LAB178"]
    assert "probe does not answer" in report.diagnostics[0].detail
    assert lab.get("Deployment", "engine") is not None


def test_a_job_that_failed_is_run_again(lab: Lab) -> None:
    job = lab.workload("init", kind="Job", image="registry.example/engine:fails")
    assert codes(lab.apply(lab.tree(job))) == ["LAB178"]
    plan = lab.plan(lab.tree(job))
    assert [(c.name, c.action, c.reason) for c in plan.todo] == [("Job/init", Action.REPLACE, Reason.FAILED)]


def test_a_card_that_nobody_has_is_named(lab: Lab) -> None:
    report = lab.apply(lab.tree(lab.workload("engine", gpus=99, limit=3)))
    assert codes(report) == ["LAB178"]
    assert "Insufficient nvidia.com/gpu" in report.diagnostics[0].detail


def test_a_quota_is_named(lab: Lab) -> None:
    lab.apply(lab.tree())
    meta = {"name": "quota", "namespace": lab.namespace}
    lab.plane.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "0"}}})
    report = lab.apply(lab.tree(lab.workload("engine", limit=3)))
    assert codes(report) == ["LAB178"]
    assert "exceeded quota: quota" in report.diagnostics[0].detail


def test_cards_are_shared_by_time_slicing_and_no_further(lab: Lab) -> None:
    """A device plug-in with time slicing reports more cards than there are: here two for one."""
    lab.plane.node("sliced", 2)
    two = [lab.workload(name, gpus=1, node="sliced", limit=3) for name in ("a", "b")]
    assert lab.apply(lab.tree(*two)).ok
    assert {p["spec"]["nodeName"] for name in ("a", "b") for p in lab.pods(name)} == {"sliced"}
    report = lab.apply(lab.tree(*two, lab.workload("c", gpus=1, node="sliced", limit=3)))
    assert codes(report) == ["LAB178"]
    assert "nvidia.com/gpu" in report.diagnostics[0].detail
    lab.destroy(lab.tree())


def exclusive(lab: Lab, active: str) -> Tree:
    """Two servers of which one runs, on a card that has room in Kubernetes' eyes for both."""
    names = ("chat", "ocr")
    objects = [lab.workload(n, gpus=1, node="shared", replicas=int(n == active)) for n in names]
    starts = {n: Start.ALWAYS if n == active else Start.ON_DEMAND for n in names}
    return lab.tree(*objects, units=tuple(lab.unit(n, starts[n], turns="gpu") for n in names))


def test_of_an_exclusive_group_one_has_ended_before_the_other_starts(lab: Lab) -> None:
    lab.plane.node("shared", 2)
    assert lab.apply(exclusive(lab, "chat")).ok
    assert (len(lab.pods("chat")), len(lab.pods("ocr"))) == (1, 0)
    overlaps: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            overlaps.append(len(lab.pods("chat")) + len(lab.pods("ocr")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    switched = exclusive(lab, "ocr")
    plan = lab.plan(switched)
    report = lab.do(plan, switched)
    done.set()
    watcher.join()
    assert report.ok
    assert actions(plan) == {"Deployment/chat": Action.UPDATE, "Deployment/ocr": Action.UPDATE}
    assert (len(lab.pods("chat")), len(lab.pods("ocr"))) == (0, 1)
    assert max(overlaps) == 1
    seen = fleet.status(switched)[0]
    assert {row.unit.name: row.seen.state for row in seen} == {"chat": UnitState.STOPPED, "ocr": UnitState.RUNNING}


def test_what_runs_on_demand_is_left_to_whoever_scales_it(lab: Lab) -> None:
    tree = lab.tree(lab.workload("engine", replicas=0), units=(lab.unit("engine", Start.ON_DEMAND),))
    assert lab.apply(tree).ok
    lab.plane.kubectl("-n", lab.namespace, "scale", "deploy/engine", "--replicas=1")
    assert actions(lab.plan(tree)) == {}


def test_notes_for_the_next_command(lab: Lab) -> None:
    tree = lab.tree()
    lab.apply(tree)
    root = tree.roots[HOST]
    assert backend.note(root) is None
    backend.leave_note(root, b"[1]")
    assert backend.note(root) == b"[1]"
    assert actions(lab.plan(tree)) == {}
    backend.leave_note(root, None)
    assert backend.note(root) is None


def test_logs_and_status_of_units(lab: Lab) -> None:
    tree = lab.tree(lab.workload("engine", replicas=2), units=(lab.unit("engine"),))
    assert lab.apply(tree).ok
    lines = list(fleet.logs(tree, "engine", lines=5))
    assert len(lines) == 4  # two of each pod
    assert all(line.startswith("[engine-") for line in lines)
    assert list(fleet.logs(tree, "engine", lines=5, follow=True)) == [
        "loading the model (main)",
        "listening on 0.0.0.0 (main)",
    ]
    (row,), problems = fleet.status(tree)
    assert (row.seen.state, row.seen.detail, problems) == (UnitState.RUNNING, "2 of 2 ready", ())


def with_secret(lab: Lab) -> Tree:
    return lab.tree(
        lab.keys("keys", KEY="KEY"),
        lab.keys("others", OTHER="OTHER"),
        lab.workload("engine", secret="keys"),
        lab.workload("gateway", secret="others"),
        lab.workload("page"),
    )


def test_a_rotated_secret_restarts_those_who_use_it_and_nobody_else(lab: Lab) -> None:
    lab.secret(KEY=f"{SENTINEL}-1", OTHER="another-value")
    tree = with_secret(lab)
    assert lab.apply(tree).ok
    assert actions(lab.plan(tree)) == {}
    before = {name: lab.pods(name)[0]["metadata"]["uid"] for name in ("engine", "gateway", "page")}
    lab.secret(KEY=f"{SENTINEL}-2", OTHER="another-value")
    plan = lab.plan(tree)
    assert {c.name: c.reason for c in plan.todo} == {
        "Secret/keys": Reason.SECRET_ROTATED,
        "Deployment/engine": Reason.SECRET_ROTATED,
    }
    assert lab.do(plan, tree).ok
    after = {name: lab.pods(name)[0]["metadata"]["uid"] for name in before}
    assert {name for name in before if before[name] != after[name]} == {"engine"}
    assert actions(lab.plan(tree)) == {}


def test_a_secret_that_somebody_edited_is_drift(lab: Lab) -> None:
    lab.secret(KEY=f"{SENTINEL}-1", OTHER="another-value")
    tree = with_secret(lab)
    lab.apply(tree)
    lab.plane.kubectl("-n", lab.namespace, "patch", "secret/keys", "-p", '{"stringData":{"KEY":"edited-by-hand"}}')
    change = next(c for c in lab.plan(tree).todo if c.name == "Secret/keys")
    assert change.reason is Reason.DRIFTED


def test_values_of_secrets_are_in_their_secret_and_nowhere_else(lab: Lab) -> None:
    lab.secret(KEY=SENTINEL, OTHER="another-value")
    tree = with_secret(lab)
    plans = [lab.plan(tree)]
    assert lab.do(plans[0], tree).ok
    lab.secret(KEY=f"{SENTINEL}-2", OTHER="another-value")
    plans.append(lab.plan(tree))
    assert lab.do(plans[1], tree).ok
    lab.plane.kubectl("-n", lab.namespace, "patch", "secret/keys", "-p", f'{{"stringData":{{"KEY":"{SENTINEL}-3"}}}}')
    plans.append(lab.plan(tree))
    told = "".join(plan_to_json(p) + render_plan(p, diff=True) for p in plans)
    told += "".join(str(e) for e in lab.events) + "".join(str(o) for o in tree.objects)
    assert SENTINEL not in told
    kinds = "cm,deploy,rs,pods,events,leases,sts,jobs,svc"
    assert SENTINEL not in lab.plane.kubectl("-n", lab.namespace, "get", kinds, "-o", "json", "--show-managed-fields")
    held = json.loads(lab.plane.kubectl("-n", lab.namespace, "get", "secrets", "-o", "json", "--show-managed-fields"))
    for item in held["items"]:
        item.pop("data")
        assert SENTINEL not in json.dumps(item)


def in_background(work: Callable[[], Report]) -> tuple[threading.Thread, list[Report]]:
    found: list[Report] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def test_two_applies_at_once_one_is_refused_or_waits(lab: Lab) -> None:
    lab.apply(lab.tree())
    slow = lab.tree(lab.workload("engine", image="registry.example/engine:never-ready", limit=6))
    first, reports = in_background(lambda: lab.apply(slow))
    while lab.plane.api().get(_lease(lab)) is None:
        time.sleep(0.05)
    tree = lab.tree(lab.config("settings", a="1"))
    other = Lab(lab.plane, lab.namespace)
    plan = other.plan(tree)
    refused = other.do(plan, tree)
    assert codes(refused) == ["LAB103"]
    assert "apply since" in refused.diagnostics[0].summary
    waited = other.do(plan, tree, How(wait_for_lock=60))
    first.join()
    assert codes(reports[0]) == ["LAB178"]
    assert waited.stale or waited.ok  # meanwhile there is something to prune that was not planned
    assert lab.plane.api().get(_lease(lab)) is None


def _lease(lab: Lab) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{lab.namespace}/leases/labctl-{lab.namespace}"


def test_a_lock_that_was_left_behind_is_taken_over(lab: Lab) -> None:
    lab.apply(lab.tree())
    who = {"machine": "another", "process": "1.1", "doing": "apply", "since": "2026-01-01T00:00:00+00:00"}
    spec = {
        "holderIdentity": "somebody@another",
        "leaseDurationSeconds": 60,
        "renewTime": "2026-01-01T00:00:00.000000Z",
    }
    notes = {"labctl.dev/holder": json.dumps(who)}
    meta = {"name": f"labctl-{lab.namespace}", "namespace": lab.namespace, "annotations": notes}
    lab.plane.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec})
    assert lab.apply(lab.tree(lab.config("settings", a="1"))).ok
    assert any("left behind by somebody@another" in str(e) for e in lab.events)


def test_ctrl_c_stops_between_two_objects_and_the_next_apply_goes_on(lab: Lab) -> None:
    lab.apply(lab.tree())
    tree = lab.tree(*(lab.config(f"c{i:02}", wave=i, a="1") for i in range(10)))
    stop = threading.Event()

    def emit(event: Event) -> None:
        if isinstance(event, ChangeDone) and event.address.endswith("c04"):
            stop.set()

    plan = lab.plan(tree)
    outcome, _ = backend.apply(_order(lab, tree, plan, emit, stop))
    assert outcome.interrupted
    assert (len(outcome.done), len(outcome.skipped)) == (5, 5)
    left = lab.plan(tree)
    assert len(actions(left)) == 5
    assert lab.do(left, tree).ok


def _order(lab: Lab, tree: Tree, plan: Plan, emit: Callable[[Event], None], stop: threading.Event) -> Order:
    return Order(
        root=tree.roots[HOST], tree=tree, plan=plan, secrets=lab.secrets, emit=emit, check=stop_when(stop.is_set)
    )


def test_the_api_server_is_killed_in_the_middle_and_comes_back(lab: Lab, plane: ControlPlane) -> None:
    lab.apply(lab.tree())
    tree = lab.tree(*(lab.config(f"c{i:02}", wave=1 + i // 5, a="1") for i in range(30)), lab.workload("engine", 9))
    plan = lab.plan(tree)
    halfway = threading.Event()

    def emit(event: Event) -> None:
        lab.events.append(event)
        if isinstance(event, ChangeDone) and event.address.endswith("c09"):
            halfway.set()

    thread, reports = in_background(lambda: fleet.apply(plan, tree, lab.secrets, emit))
    assert halfway.wait(30)
    plane.kill_api()
    time.sleep(1)
    plane.start_api()
    thread.join()
    assert reports[0].ok, reports[0].diagnostics
    assert actions(lab.plan(tree)) == {}


def test_an_api_server_that_stays_away_is_said_to_and_the_next_apply_goes_on(
    lab: Lab, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.apply(lab.tree())
    tree = lab.tree(*(lab.config(f"c{i:02}", wave=1 + i // 5, a="1") for i in range(30)))
    plan = lab.plan(tree)
    monkeypatch.setattr("labctl.kube.backend.PATIENCE", 1)

    def emit(event: Event) -> None:
        if isinstance(event, ChangeDone) and event.address.endswith("c09") and "kube-apiserver" in plane.programs:
            plane.kill_api()

    report = fleet.apply(plan, tree, lab.secrets, emit)
    assert not report.ok
    assert "LAB171" in codes(report)
    assert codes(lab.plan(tree)) == ["LAB171"]
    plane.start_api()
    left = lab.plan(tree)
    assert 0 < len(actions(left)) < 30
    assert lab.do(left, tree).ok
