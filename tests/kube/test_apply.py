"""Plan and apply against a real API server: once, twice, changed by others, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from labctl.artefact import Object
from labctl.hosts import fleet
from labctl.hosts.fleet import How
from labctl.plan.model import Action, Reason
from labctl.plan.wire import plan_from_json, plan_to_json
from labctl.views.plan import render_plan
from tests.kube.labs import HOST, Lab, actions, codes
from tests.rig.kube.cluster import CONTEXT, ControlPlane, kubeconfig

pytestmark = pytest.mark.slow


def test_the_second_apply_changes_no_resource_version(lab: Lab) -> None:
    tree = lab.tree(lab.config("settings", a="1"), lab.workload("engine"), lab.workload("init", kind="Job", wave=3))
    first = lab.plan(tree)
    assert set(actions(first).values()) == {Action.CREATE}
    assert codes(first) == ["LAB203"]  # the namespace is not there yet: said to be untried
    assert lab.do(first, tree).ok
    before = lab.versions()
    again = lab.plan(tree)
    assert (actions(again), codes(again)) == ({}, [])
    assert plan_from_json(plan_to_json(again)) == again
    assert lab.do(again, tree).ok
    assert lab.versions() == before
    assert before.keys() == {"ConfigMap/settings", "Deployment/engine", "Job/init"}


def test_a_change_shows_its_lines_and_nothing_else(lab: Lab) -> None:
    lab.apply(lab.tree(lab.config("settings", a="1", b="2")))
    plan = lab.plan(lab.tree(lab.config("settings", a="1", b="3")))
    assert actions(plan) == {"ConfigMap/settings": Action.UPDATE}
    changed = [line.strip() for line in render_plan(plan, diff=True).splitlines() if line.strip()[:1] in {"+", "-"}]
    assert changed == ['-  b: "2"', '+  b: "3"']


def test_drift_by_another_manager_is_shown_and_taken_back_only_when_asked(lab: Lab) -> None:
    tree = lab.tree(lab.workload("engine"))
    lab.apply(tree)
    lab.plane.kubectl("-n", lab.namespace, "set", "image", "deploy/engine", "main=registry.example/engine:mine")
    plan = lab.plan(tree)
    change = next(c for c in plan.changes if c.name == "Deployment/engine")
    assert (change.action, change.reason, change.because) == (Action.UPDATE, Reason.DRIFTED, ("kubectl-set",))
    assert codes(plan) == ["LAB176"]
    assert "kubectl-set" in plan.diagnostics[0].summary
    assert ".image" in plan.diagnostics[0].detail
    refused = lab.do(plan, tree)
    assert not refused.ok
    assert codes(refused) == ["LAB176"]
    found = lab.get("Deployment", "engine") or {}
    assert found["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":mine")
    assert lab.do(plan, tree, How(force=True)).ok
    found = lab.get("Deployment", "engine") or {}
    assert found["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":1")
    assert actions(lab.plan(tree)) == {}


def test_what_another_manager_adds_stays(lab: Lab) -> None:
    tree = lab.tree(lab.config("settings", a="1"))
    lab.apply(tree)
    lab.plane.kubectl("-n", lab.namespace, "label", "cm/settings", "team=mine")
    lab.plane.kubectl("-n", lab.namespace, "patch", "cm/settings", "-p", '{"data":{"b":"theirs"}}')
    assert actions(lab.plan(tree)) == {}


def test_something_removed_by_hand_comes_back(lab: Lab) -> None:
    tree = lab.tree(lab.config("settings", a="1"), lab.config("other", a="1"))
    lab.apply(tree)
    lab.plane.kubectl("-n", lab.namespace, "delete", "cm/settings")
    lab.plane.kubectl(
        "-n", lab.namespace, "patch", "cm/other", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]'
    )
    plan = lab.plan(tree)
    reasons = {c.name: c.reason for c in plan.todo}
    assert reasons == {"ConfigMap/settings": Reason.MISSING, "ConfigMap/other": Reason.DRIFTED}
    assert lab.do(plan, tree).ok
    assert actions(lab.plan(tree)) == {}


def test_an_object_that_labctl_did_not_make_is_taken_over_only_when_asked(lab: Lab) -> None:
    lab.apply(lab.tree())
    theirs = lab.config("settings", a="theirs").value
    lab.plane.apply(dict(theirs), manager="somebody")
    tree = lab.tree(lab.config("settings", a="mine"))
    plan = lab.plan(tree)
    change = next(c for c in plan.changes if c.name == "ConfigMap/settings")
    assert (change.action, change.reason, change.because) == (Action.UPDATE, Reason.FOREIGN, ("somebody",))
    assert codes(lab.do(plan, tree)) == ["LAB176"]
    assert lab.do(plan, tree, How(force=True)).ok


def test_nobody_is_told_which_right_is_missing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = lab.tree(lab.config("settings", a="1"))
    lab.apply(tree)
    monkeypatch.setenv("KUBECONFIG", str(lab.plane.powerless))
    observed = fleet.observe(tree, lab.secrets).hosts[HOST]
    assert not observed.complete
    assert [d.code for d in observed.why] == ["LAB173"]
    assert observed.why[0].summary == f"`nobody` may not get configmaps in namespace `{lab.namespace}`"
    assert f"kubectl auth can-i get configmaps -n {lab.namespace}" in observed.why[0].hint


def test_the_documented_role_is_enough(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs/kubernetes.md"
    block = page.read_text().partition("```yaml\n")[2].partition("```")[0]
    role, binding = yaml.safe_load_all(block.replace("NAMESPACE", lab.namespace).replace("SOMEBODY", "nobody"))
    role["metadata"]["name"] = binding["metadata"]["name"] = binding["roleRef"]["name"] = lab.namespace
    lab.plane.apply(role, binding)
    monkeypatch.setenv("KUBECONFIG", str(lab.plane.powerless))
    lab.secret(KEY="a-value-of-mine")
    tree = lab.tree(
        lab.config("a", a="1"), lab.keys("keys", KEY="KEY"), lab.claim("data"), lab.workload("engine", secret="keys")
    )
    assert lab.apply(tree).ok
    assert actions(lab.plan(tree)) == {}
    assert lab.destroy(tree, data=True).ok
    lab.plane.kubectl("delete", f"clusterrole/{lab.namespace}", f"clusterrolebinding/{lab.namespace}")


def broken(lab: Lab, **more: object) -> Object:
    value = dict(lab.workload("engine").value)
    return lab.object({**value, "spec": {**value["spec"], **more}}, 2)


def test_an_unknown_field_is_the_manifests_fault(lab: Lab) -> None:
    lab.apply(lab.tree())
    tree = lab.tree(broken(lab, replicaz=2), lab.config("settings", a="1"))
    plan = lab.plan(tree)
    assert codes(plan) == ["LAB174"]
    assert "replicaz" in plan.diagnostics[0].detail
    refused = lab.do(plan, tree)
    assert codes(refused) == ["LAB174"]
    assert lab.get("ConfigMap", "settings") is None  # nothing is begun


def test_an_unknown_field_of_a_first_apply_is_found_before_anything_else_is_made(lab: Lab) -> None:
    tree = lab.tree(broken(lab, replicaz=2), lab.config("settings", a="1"))
    plan = lab.plan(tree)
    assert not plan.errored  # nothing could be tried
    assert codes(lab.do(plan, tree)) == ["LAB174"]
    assert lab.get("ConfigMap", "settings") is None


def test_what_breaks_a_rule_is_named(lab: Lab) -> None:
    lab.apply(lab.tree())
    plan = lab.plan(lab.tree(broken(lab, selector={"matchLabels": {"app": "another"}})))
    assert codes(plan) == ["LAB175"]
    assert "spec.template.metadata.labels" in plan.diagnostics[0].detail


def test_a_deployment_that_cannot_be_changed_in_place_is_said_to_be(lab: Lab) -> None:
    lab.apply(lab.tree(lab.workload("engine")))
    value = lab.workload("engine").value
    spec = {**value["spec"], "selector": {"matchLabels": {"tier": "1"}}}
    labels = {"metadata": {"labels": {"tier": "1"}}, "spec": value["spec"]["template"]["spec"]}
    plan = lab.plan(lab.tree(lab.object({**value, "spec": {**spec, "template": labels}}, 2)))
    assert codes(plan) == ["LAB175"]
    assert "in place" in plan.diagnostics[0].hint


def test_a_changed_job_is_made_again(lab: Lab) -> None:
    lab.apply(lab.tree(lab.workload("init", kind="Job")))
    tree = lab.tree(lab.workload("init", kind="Job", image="registry.example/engine:2"))
    before = (lab.get("Job", "init") or {})["metadata"]["uid"]
    plan = lab.plan(tree)
    assert actions(plan) == {"Job/init": Action.REPLACE}
    assert lab.do(plan, tree).ok
    assert (lab.get("Job", "init") or {})["metadata"]["uid"] != before
    assert actions(lab.plan(tree)) == {}


def test_a_kind_that_is_missing_names_the_chart_that_brings_it(lab: Lab) -> None:
    lab.apply(lab.tree())
    meta = {"name": "engines", "namespace": lab.namespace}
    monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": meta, "spec": {}}
    plan = lab.plan(lab.tree(lab.object(monitor)))
    assert codes(plan) == ["LAB177"]
    assert "kube-prometheus-stack" in plan.diagnostics[0].hint


def test_a_kind_that_the_lab_brings_itself_is_applied_after_its_definition(lab: Lab) -> None:
    group = f"{lab.namespace}.example"
    names = {"kind": "Thing", "plural": "things", "singular": "thing"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": spec,
    }
    thing = {"apiVersion": f"{group}/v1", "kind": "Thing", "metadata": {"name": "one", "namespace": lab.namespace}}
    tree = lab.tree(lab.object(definition, 0), lab.object(thing, 1))
    plan = lab.plan(tree)
    assert codes(plan) == ["LAB203"]
    assert lab.do(plan, tree).ok
    assert actions(lab.plan(tree)) == {}
    assert lab.destroy(tree, data=True).ok


def test_prune_removes_what_is_no_longer_wanted_but_data(lab: Lab) -> None:
    full = lab.tree(lab.config("a", x="1"), lab.config("b", x="1"), lab.claim("data"), lab.workload("engine"))
    assert lab.apply(full).ok
    lab.plane.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign", "namespace": lab.namespace}}
    )
    less = lab.tree(lab.config("a", x="1"))
    plan = lab.plan(less)
    assert actions(plan) == {"ConfigMap/b": Action.DELETE, "Deployment/engine": Action.DELETE}
    assert [c.reason for c in plan.changes if c.name == "PersistentVolumeClaim/data"] == [Reason.KEPT]
    assert lab.do(plan, less).ok
    assert lab.get("ConfigMap", "b") is None
    assert lab.get("ConfigMap", "foreign") is not None
    assert lab.get("PersistentVolumeClaim", "data") is not None
    assert actions(lab.plan(less)) == {}


def test_destroy_keeps_claims_and_the_namespace_unless_data_goes_too(lab: Lab) -> None:
    tree = lab.tree(lab.config("a", x="1"), lab.claim("data"), lab.workload("engine", claim="data"))
    assert lab.apply(tree).ok
    assert lab.destroy(tree).ok
    assert lab.get("Deployment", "engine") is None
    assert lab.get("PersistentVolumeClaim", "data") is not None
    left = lab.plane.kubectl("-n", lab.namespace, "get", "cm,secret,lease", "-o", "name").split()
    assert [name for name in left if "labctl" in name] == []
    assert actions(lab.plan(tree, destroy=True)) == {}
    assert lab.apply(tree).ok  # and the claim is there again
    assert lab.destroy(tree, data=True).ok
    assert lab.plane.api().get(f"/api/v1/namespaces/{lab.namespace}") is None


def test_three_hundred_objects(lab: Lab) -> None:
    tree = lab.tree(*(lab.config(f"c{i:03}", i=str(i)) for i in range(300)))
    assert lab.apply(tree).ok
    before = lab.versions()
    assert len(before) == 300
    assert actions(lab.plan(tree)) == {}
    assert lab.versions() == before
    assert lab.apply(lab.tree()).ok
    assert lab.versions() == {}


def test_a_saved_plan_is_refused_when_the_cluster_has_moved(lab: Lab) -> None:
    lab.apply(lab.tree(lab.config("a", x="1")))
    tree = lab.tree(lab.config("a", x="2"))
    plan = plan_from_json(plan_to_json(lab.plan(tree)))
    lab.plane.kubectl("-n", lab.namespace, "delete", "cm/a")
    report = lab.do(plan, tree, How(exact=True))
    assert (report.exit_code, codes(report)) == (5, ["LAB124"])


def test_which_context_has_to_be_said(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config"
    server = {"server": "https://127.0.0.1:1"}
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert codes(lab.plan(lab.tree())) == ["LAB170"]  # no such file
    file.write_text(yaml.safe_dump({**kubeconfig(server, {}, CONTEXT), "contexts": []}))
    assert codes(lab.plan(lab.tree())) == ["LAB170"]  # no such context, though it is the current one
    file.write_text(": : :")
    assert codes(lab.plan(lab.tree())) == ["LAB170"]
    file.write_text(yaml.safe_dump(kubeconfig(server, {})))
    assert codes(lab.plan(lab.tree())) == ["LAB171"]  # nothing listens there


def test_a_certificate_of_another_authority_is_said_to_be(
    lab: Lab, plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = yaml.safe_load(plane.kubeconfig.read_text())
    del known["clusters"][0]["cluster"]["certificate-authority-data"]
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(known))
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert codes(lab.plan(lab.tree())) == ["LAB172"]
    known = yaml.safe_load(plane.powerless.read_text())
    known["users"][0]["user"]["token"] = "expired"
    file.write_text(yaml.safe_dump(known))
    assert codes(lab.plan(lab.tree())) == ["LAB172"]
