"""Small labs of hand-made objects, and what a user does with them: plan, apply, destroy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labctl.artefact import Cluster, HostRoot, Manager, Object, Tree, Unit
from labctl.emit import yaml
from labctl.hosts import fleet
from labctl.hosts.events import Event
from labctl.hosts.fleet import How, Report
from labctl.plan.diff import diff
from labctl.plan.model import Action, Plan
from labctl.secrets import Secret, Secrets
from labctl.workload import SecretRef, SecretText, Start
from tests.rig.kube.cluster import CONTEXT, ControlPlane

HOST = "k3s"
Value = dict[str, Any]


@dataclass
class Lab:
    """A lab in one namespace.

    Attributes:
        secrets: the values; ``events`` everything that was said so far.
    """

    plane: ControlPlane
    namespace: str
    secrets: Secrets = field(default_factory=Secrets)
    events: list[Event] = field(default_factory=list)

    def secret(self, **values: str) -> None:
        self.secrets = Secrets({k: Secret(v) for k, v in values.items()})

    def tree(self, *objects: Object, units: tuple[Unit, ...] = ()) -> Tree:
        root = HostRoot(
            host=HOST,
            root="kubernetes",
            state="",
            managers=(Manager.KUBERNETES,),
            cluster=Cluster(namespace=self.namespace, context=CONTEXT, lab=self.namespace),
        )
        own = self.object({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        return Tree.of([root, own, *objects, *units])

    def object(self, value: Value, wave: int = 0, **entries: str) -> Object:
        """Return an object; ``entries`` are a Secret's: key=name of the secret."""
        texts = {key: SecretText((SecretRef(name),)) for key, name in entries.items()}
        meta = value["metadata"]
        path = f"{value['kind'].lower()}-{meta.get('namespace', '')}-{meta['name']}.yaml"
        content = yaml.dump(value).encode()
        return Object(host=HOST, path=path, value=value, content=content, entries=texts, wave=wave)

    def config(self, name: str, wave: int = 1, **data: str) -> Object:
        meta = {"name": name, "namespace": self.namespace}
        return self.object({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}, wave)

    def keys(self, name: str, wave: int = 1, **entries: str) -> Object:
        meta = {"name": name, "namespace": self.namespace}
        return self.object({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque"}, wave, **entries)

    def claim(self, name: str, wave: int = 1) -> Object:
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local-path",
            "resources": {"requests": {"storage": "1Gi"}},
        }
        meta = {"name": name, "namespace": self.namespace}
        return self.object({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}, wave)

    def workload(self, name: str, wave: int = 2, kind: str = "Deployment", **more: Any) -> Object:
        """Return a workload: ``image``, ``replicas``, ``secret`` (name of a Secret), ``gpus``, ``node``, ``claim``."""
        container: Value = {"name": "main", "image": more.get("image", "registry.example/engine:1")}
        pod: Value = {"containers": [container]}
        if more.get("secret"):
            container["envFrom"] = [{"secretRef": {"name": more["secret"]}}]
        if more.get("gpus"):
            room = {"nvidia.com/gpu": str(more["gpus"])}
            container["resources"] = {"requests": room, "limits": room}
            pod["runtimeClassName"] = "nvidia"
        if more.get("node"):
            pod["nodeSelector"] = {"kubernetes.io/hostname": more["node"]}
        if more.get("claim"):
            pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": more["claim"]}}]
            container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec: Value = {"template": {"metadata": {"labels": {"app": name}}, "spec": pod}}
        if kind == "Job":
            pod["restartPolicy"] = "Never"
            spec |= {"backoffLimit": 0, "activeDeadlineSeconds": 60}
        else:
            spec |= {"replicas": more.get("replicas", 1), "selector": {"matchLabels": {"app": name}}}
        if kind == "Deployment":
            spec |= {"progressDeadlineSeconds": more.get("limit", 60)}
        version = "batch/v1" if kind == "Job" else "apps/v1"
        meta = {"name": name, "namespace": self.namespace}
        return self.object({"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}, wave)

    def unit(self, name: str, start: Start = Start.ALWAYS, turns: str = "", kind: str = "Deployment") -> Unit:
        return Unit(
            host=HOST,
            name=name,
            id=f"{kind}/{name}",
            manager=Manager.KUBERNETES,
            project=f"{name}.yaml",
            fingerprint="",
            start=start,
            turns=turns,
        )

    def plan(self, tree: Tree, *, destroy: bool = False, data: bool = False) -> Plan:
        observed = fleet.observe(tree, self.secrets)
        digests = fleet.secret_digests(tree, self.secrets)
        return diff(tree, observed, digests, lab=self.namespace, destroy=destroy, data=data)

    def do(self, plan: Plan, tree: Tree, how: How | None = None) -> Report:
        return fleet.apply(plan, tree, self.secrets, self.events.append, how)

    def apply(self, tree: Tree, how: How | None = None) -> Report:
        return self.do(self.plan(tree), tree, how)

    def destroy(self, tree: Tree, *, data: bool = False) -> Report:
        return self.do(self.plan(tree, destroy=True, data=data), tree)

    def get(self, kind: str, name: str) -> Value | None:
        """Return an object as it is in the cluster."""
        plurals = {"Deployment": "apis/apps/v1", "StatefulSet": "apis/apps/v1", "Job": "apis/batch/v1"}
        base = f"/{plurals.get(kind, 'api/v1')}/namespaces/{self.namespace}/{kind.lower()}s/{name}"
        found = self.plane.api().get(base)
        return None if found is None else dict(found)

    def pods(self, name: str) -> list[Value]:
        found = self.plane.api().items(f"/api/v1/namespaces/{self.namespace}/pods", f"app={name}")
        return [dict(p) for p in found if not p["metadata"].get("deletionTimestamp")]

    def versions(self) -> Mapping[str, str]:
        """Return the resource version of everything of the lab."""
        words = ["get", "-n", self.namespace, "-o", "name", "-l", f"labctl.dev/lab={self.namespace}"]
        kinds = "cm,secret,deploy,sts,job,svc,pvc,ing,netpol,sa,pdb,ds"
        template = r'{range .items[*]}{.kind}/{.metadata.name}={.metadata.resourceVersion}{"\n"}{end}'
        text = self.plane.kubectl(*words[:3], kinds, "-l", words[-1], "-o", f"jsonpath={template}")
        return dict(line.split("=") for line in text.splitlines())


def actions(plan: Plan) -> dict[str, Action]:
    """Return what a plan does, by name, without what stays as it is."""
    return {c.name: c.action for c in plan.todo}


def codes(report: Report | Plan) -> list[str]:
    return sorted({d.code for d in report.diagnostics})
