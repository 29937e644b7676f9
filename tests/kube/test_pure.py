"""What needs no server: ownership of fields, what is sent, what is shown, readiness, errors in words."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from labctl.artefact import Cluster, HostRoot, Object, Tree
from labctl.kube import fields, problems
from labctl.kube.api import ApiError
from labctl.kube.prepare import APPLIED, LAB, SECRETS, Values, digest, sent, uses
from labctl.kube.ready import Doing, doing
from labctl.kube.text import shown
from labctl.plan.diff import diff
from labctl.plan.model import Action, Change, Reason
from labctl.plan.observed import Entry, EntryKind, Manifest, Observed, SeenHost, SeenObject, UnitState
from labctl.secrets import Secret, Secrets
from labctl.workload import SecretRef, SecretText

CLUSTER = Cluster(namespace="ns", context="c", lab="lab")
ROOT = HostRoot(host="k3s", root="kubernetes", state="", cluster=CLUSTER)
SECRET = Object(
    host="k3s",
    path="s.yaml",
    value={"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "ns"}},
    content=b"kind: Secret\n",
    entries={"KEY": SecretText(("a-", SecretRef("KEY")))},
)
POD = {
    "containers": [
        {
            "name": "main",
            "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "KEY"}}}],
            "envFrom": [{"secretRef": {"name": "all"}}],
        }
    ],
    "initContainers": [{"name": "init", "env": [{"name": "PLAIN", "value": "x"}]}],
    "volumes": [{"name": "v", "secret": {"secretName": "files"}}, {"name": "w", "emptyDir": {}}],
}


def workload(**more: Any) -> dict[str, Any]:
    spec = {"replicas": 1, "template": {"metadata": {}, "spec": POD}, **more}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "engine", "namespace": "ns"},
        "spec": spec,
    }


def item(value: dict[str, Any]) -> Object:
    return Object(host="k3s", path="o.yaml", value=value, content=json.dumps(value).encode())


def values(**known: str) -> Values:
    return Values.of([SECRET], Secrets({k: Secret(v) for k, v in known.items()}), b"key")


LIVE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "engine",
        "namespace": "ns",
        "labels": {"mine": "1", "theirs": "2"},
        "managedFields": [
            {"manager": "other", "operation": "Update", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:spec": {}}},
            {"manager": "kubelet", "operation": "Update", "subresource": "status", "time": "2026-01-03T00:00:00Z"},
            {
                "manager": "labctl",
                "operation": "Apply",
                "time": "2026-01-01T00:00:00Z",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:mine": {}}},
                    "f:spec": {
                        "f:template": {
                            "f:spec": {
                                "f:containers": {
                                    'k:{"name":"main"}': {".": {}, "f:name": {}, "f:args": {}, "f:image": {}},
                                },
                                "f:volumes": {'k:{"name":"v"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
                            }
                        }
                    },
                },
            },
        ],
        "finalizers": ["a", "b"],
    },
    "spec": {
        "replicas": 3,
        "template": {
            "spec": {
                "containers": [
                    {"name": "side", "image": "theirs"},
                    {"name": "main", "image": "x:1", "args": ["a", "b"], "terminationMessagePath": "/dev/log"},
                ],
                "volumes": [{"name": "v", "emptyDir": {}}],
            }
        },
    },
}
MINE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"labels": {"mine": "1"}, "name": "engine", "namespace": "ns"},
    "spec": {
        "template": {
            "spec": {
                "containers": [{"name": "main", "image": "x:1", "args": ["a", "b"]}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            }
        }
    },
}


def test_what_was_applied_is_told_from_the_fields_that_labctl_owns() -> None:
    assert fields.applied(LIVE) == MINE
    assert fields.same(MINE, fields.applied(LIVE))
    assert fields.applied({**LIVE, "metadata": {"name": "engine"}}) is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ([{"name": "a"}, {"name": "b"}], [{"name": "b"}, {"name": "a"}], True),
        (["a", "b"], ["b", "a"], False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([{"name": "a"}], [{"name": "a"}, {"name": "b"}], False),
    ],
)
def test_values_are_the_same_whatever_the_order_of_keyed_lists(one: Any, other: Any, equal: bool) -> None:  # noqa: FBT001
    assert fields.same(one, other) is equal


def test_others_are_those_who_wrote_since_and_not_the_status() -> None:
    assert fields.others(LIVE, since=fields.applied_at(LIVE)) == ("other",)
    assert fields.others(LIVE, since="2026-02-01T00:00:00Z") == ()


def test_sets_and_positions() -> None:
    entry = {"manager": "labctl", "operation": "Apply", "fieldsV1": {"f:metadata": {"f:finalizers": {'v:"a"': {}}}}}
    meta = {"name": "x", "finalizers": ["a", "b"], "managedFields": [entry]}
    found = fields.applied({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    assert found is not None
    assert found["metadata"] == {"name": "x", "finalizers": ["a"]}


def test_what_is_sent_carries_the_lab_the_digest_and_a_keyed_digest_of_its_secrets() -> None:
    body = sent(item(workload()), CLUSTER, values(KEY="value-one"), None, keep=False)
    assert body["metadata"]["labels"] == {LAB: "lab"}
    assert body["metadata"]["annotations"] == {APPLIED: item(workload()).digest}
    note = body["spec"]["template"]["metadata"]["annotations"][SECRETS]
    again = sent(item(workload()), CLUSTER, values(KEY="value-two"), None, keep=False)
    assert note != again["spec"]["template"]["metadata"]["annotations"][SECRETS]
    assert note != digest(b"another key", {"keys/KEY": "a-value-one"})
    assert "value-one" not in json.dumps(body)
    assert workload() == workload()  # and the rendered object stays as it was
    assert "labels" not in item(workload()).value["metadata"]


def test_values_that_are_not_known_leave_what_is_there() -> None:
    live = sent(SECRET, CLUSTER, values(KEY="value-one"), None, keep=False)
    unknown = Values.of([SECRET], None, b"key")
    assert sent(SECRET, CLUSTER, unknown, live, keep=False) == live
    engine = sent(item(workload()), CLUSTER, values(KEY="value-one"), None, keep=False)
    assert sent(item(workload()), CLUSTER, unknown, engine, keep=False) == engine


def test_replicas_are_kept_where_somebody_else_switches() -> None:
    live = workload(replicas=1)
    assert sent(item(workload(replicas=0)), CLUSTER, values(), live, keep=True)["spec"]["replicas"] == 1
    assert sent(item(workload(replicas=0)), CLUSTER, values(), live, keep=False)["spec"]["replicas"] == 0


def test_which_secrets_a_pod_uses() -> None:
    assert list(uses({"spec": POD}, "ns")) == [(("ns", "all"), None), (("ns", "keys"), "KEY"), (("ns", "files"), None)]


def test_texts_hide_values_and_what_the_server_keeps_for_itself() -> None:
    last = {"kubectl.kubernetes.io/last-applied-configuration": '{"data":"dmFsdWU="}', APPLIED: "x", "note": "shown"}
    meta = {"name": "keys", "uid": "1", "resourceVersion": "2", "managedFields": [{}], "annotations": last}
    text = shown(
        {"kind": "Secret", "metadata": meta, "apiVersion": "v1", "data": {"KEY": "dmFsdWU="}, "status": {"a": 1}}
    )
    assert "dmFsdWU=" not in text
    assert [line.split(":")[0].strip() for line in text.splitlines()] == [
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "annotations",
        "note",
        "data",
        "KEY",
    ]


def status(kind: str, **of: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "x", "generation": 2}, **of}


@pytest.mark.parametrize(
    ("live", "state"),
    [
        (status("Deployment", spec={"replicas": 1}, status={"observedGeneration": 1}), UnitState.STARTING),
        (
            status(
                "Deployment",
                spec={"replicas": 2},
                status={"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
            ),
            UnitState.RUNNING,
        ),
        (
            status(
                "Deployment",
                spec={"replicas": 2},
                status={"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3},
            ),
            UnitState.STARTING,
        ),
        (
            status(
                "Deployment",
                spec={"replicas": 1},
                status={
                    "observedGeneration": 2,
                    "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}],
                },
            ),
            UnitState.FAILED,
        ),
        (status("Deployment", spec={"replicas": 0}, status={"observedGeneration": 2}), UnitState.STOPPED),
        (
            status("Deployment", spec={"replicas": 0}, status={"observedGeneration": 2, "replicas": 1}),
            UnitState.STARTING,
        ),
        (status("DaemonSet", status={"observedGeneration": 2}), UnitState.RUNNING),
        (status("Job", status={"active": 1}), UnitState.STARTING),
        (status("Job", status={"conditions": [{"type": "Complete", "status": "True"}]}), UnitState.FINISHED),
        (status("Job", status={"conditions": [{"type": "Failed", "status": "True"}]}), UnitState.FAILED),
        (status("PersistentVolumeClaim", status={"phase": "Lost"}), UnitState.FAILED),
        (status("Namespace", status={"phase": "Terminating"}), UnitState.FAILED),
        (status("HelmChart"), UnitState.STARTING),
        (status("ConfigMap"), UnitState.RUNNING),
    ],
)
def test_how_objects_are_doing(live: dict[str, Any], state: UnitState) -> None:
    assert doing(live).state is state


def test_what_is_settled() -> None:
    assert {s for s in UnitState if Doing(s).settled} == {UnitState.RUNNING, UnitState.STOPPED, UnitState.FINISHED}


def error(code: int, message: str = "", reason: str = "", causes: tuple[dict[str, str], ...] = ()) -> ApiError:
    return ApiError(code, {"message": message, "reason": reason, "details": {"causes": list(causes)}}, "PATCH", "/x")


IMMUTABLE = {"field": "spec.selector", "message": "Invalid value: {}: field is immutable"}


@pytest.mark.parametrize(
    ("refused", "code", "words"),
    [
        (error(500, "failed to create typed patch object: .spec.replicaz: field not declared"), "LAB174", "replicaz"),
        (error(500, "etcdserver: leader changed", "InternalError"), "LAB202", "leader changed"),
        (error(503, "not now", "ServiceUnavailable"), "LAB202", "not now"),
        (error(422, "no", "Invalid", (IMMUTABLE,)), "LAB175", "in place"),
        (error(403, 'pods "x" is forbidden: exceeded quota: q', "Forbidden"), "LAB201", "exceeded quota"),
        (error(401, "Unauthorized", "Unauthorized"), "LAB172", "Unauthorized"),
        (error(404, 'namespaces "lab" not found', "NotFound"), "LAB179", "namespace"),
        (
            error(409, "", "Conflict", ({"field": ".spec", "message": 'conflict with "kubectl" using apps/v1'},)),
            "LAB176",
            "kubectl",
        ),
        (
            error(
                403,
                'secrets is forbidden: User "ci" cannot list resource "secrets" in API group "" in the namespace "lab"',
                "Forbidden",
            ),
            "LAB173",
            "`ci` may not list secrets in namespace `lab`",
        ),
    ],
)
def test_what_the_server_says_in_words(refused: ApiError, code: str, words: str) -> None:
    found = problems.of_object(refused, "Deployment/engine")
    assert found.code == code
    assert words in f"{found.summary}\n{found.detail}\n{found.hint}"


def change(seen: SeenObject | None, *, known: bool = True, noted: bool = False) -> Change:
    """Return the change of the Secret, of which the values are wanted to have the digest "goal"."""
    entries = {"Secret/keys": Entry(kind=EntryKind.OBJECT, digest="")} if noted else {}
    objects = {} if seen is None else {"Secret/keys": seen}
    host = SeenHost(host="k3s", objects=objects, manifest=Manifest(entries=entries))
    plan = diff(Tree.of([ROOT, SECRET]), Observed({"k3s": host}), {("k3s", "s.yaml"): "goal"} if known else None)
    return plan.changes[0]


def there(**more: Any) -> SeenObject:
    known: dict[str, Any] = {"digest": SECRET.digest, "same": True, "secret": "goal", "applied_secret": "goal"}
    return SeenObject(**(known | more))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (change(None), (Action.CREATE, Reason.NEW)),
        (change(None, noted=True), (Action.CREATE, Reason.MISSING)),
        (change(there()), (Action.NOOP, Reason.IN_PLACE)),
        (change(there(secret="old", applied_secret="old")), (Action.UPDATE, Reason.SECRET_ROTATED)),
        (change(there(secret="old", applied_secret="old"), known=False), (Action.NOOP, Reason.IN_PLACE)),
        (change(there(secret="edited", applied_secret="goal")), (Action.UPDATE, Reason.DRIFTED)),
        (change(there(same=False)), (Action.UPDATE, Reason.DRIFTED)),
        (change(there(same=False, digest="old")), (Action.UPDATE, Reason.CONTENT_CHANGED)),
        (change(there(same=False, digest="")), (Action.UPDATE, Reason.FOREIGN)),
        (change(there(same=False, rotated=True)), (Action.UPDATE, Reason.SECRET_ROTATED)),
        (change(there(refused=True)), (Action.UNKNOWN, Reason.REFUSED)),
        (change(there(replace=True)), (Action.REPLACE, Reason.DEFINITION_CHANGED)),
        (change(there(state=UnitState.FAILED)), (Action.NOOP, Reason.UNHEALTHY)),
    ],
)
def test_verdicts(found: Change, verdict: tuple[Action, Reason]) -> None:
    assert (found.action, found.reason) == verdict


def test_a_lab_without_a_cluster_does_not_import_the_kubernetes_package() -> None:
    code = "import sys, labctl.operate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith(("kubernetes", "labctl.kube"))] == []
