"""What belongs to a lab as a whole: its namespace, that nobody calls anybody unasked, and charts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from labctl.artefact import Object
from labctl.emit import yaml
from labctl.placed import PlacedHost
from labctl.targets import shared
from labctl.targets.k3s import form as spell
from labctl.targets.k3s import waves
from labctl.targets.k3s.settings import Settings, charts, node

FOLDER: Final = "_lab"
DEVICE_PLUGIN: Final = "nvidia-device-plugin"
_SECURITY: Final = "pod-security.kubernetes.io"
_BASELINE: Final = frozenset({"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"})


def objects(site: Settings, hosts: Sequence[PlacedHost], pods: Iterable[Mapping[str, Any]]) -> Iterator[Object]:
    """Yield the namespace, the policy that denies, and the charts; ``pods`` are the specs of all pods of the lab."""
    level = "baseline" if all(_is_baseline(p) for p in pods) else "privileged"
    marks = {**spell.lab_labels(site, site.namespace), f"{_SECURITY}/enforce": level}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": site.namespace, "labels": marks}}
    yield spell.thing(site, FOLDER, namespace, waves.NAMESPACE)
    yield spell.thing(site, FOLDER, _deny(site), waves.CONFIG)
    for name, chart in sorted((site.charts or {}).items()):
        yield spell.thing(site, FOLDER, _chart(site, hosts, name, chart or {}), waves.CHARTS)


def _is_baseline(pod: Mapping[str, Any]) -> bool:
    """Whether a pod keeps to the baseline of the Pod Security Standards, as far as labctl renders."""
    if any("hostPath" in v for v in pod.get("volumes", ())):
        return False
    containers = [*pod.get("initContainers", ()), *pod.get("containers", ())]
    return all(_keeps(c) for c in containers) and not pod.get("hostNetwork")


def _keeps(container: Mapping[str, Any]) -> bool:
    security = container.get("securityContext") or {}
    added = set((security.get("capabilities") or {}).get("add") or ())
    on_node = any("hostPort" in p for p in container.get("ports", ()))
    return not (security.get("privileged") or on_node or added - _BASELINE)


def _deny(site: Settings) -> Mapping[str, Any]:
    metadata = spell.meta(site, "default-deny", spell.lab_labels(site, "default-deny"))
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _chart(site: Settings, hosts: Sequence[PlacedHost], name: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a release as a resource of k3s' Helm controller; what lab.yaml says is laid over what labctl knows."""
    known = charts().get(str(asked.get("chart") or name), {})
    values = shared.merge(_defaults(site, hosts, str(known.get("name", ""))), known.get("values") or {})
    values = shared.merge(values, asked.get("values") or {})
    spec: dict[str, Any] = {
        "chart": asked.get("chart") or known.get("name") or name,
        "repo": asked.get("repo") or known.get("repo"),
        "version": asked.get("version") or known.get("version"),
        "targetNamespace": asked.get("namespace") or known.get("namespace") or site.namespace,
        "createNamespace": True,
        "failurePolicy": "abort",
        "valuesContent": yaml.dump(values, header="") if values else None,
    }
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": name, "namespace": "kube-system", "labels": spell.lab_labels(site, name)},
        "spec": {k: v for k, v in spec.items() if v is not None},
    }


def _defaults(site: Settings, hosts: Sequence[PlacedHost], chart: str) -> dict[str, Any]:
    """Return the values that follow from the lab: where NVIDIA's cards are, and how they are shared."""
    if chart != DEVICE_PLUGIN:
        return {}
    nodes = [node(h) for h in hosts if any(g.vendor == "nvidia" for g in h.gpus)]
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]}
    wanted = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    values: dict[str, Any] = {"affinity": {"nodeAffinity": wanted}} if nodes else {}
    if site.runtime_class:
        values["runtimeClassName"] = site.runtime_class
    if site.time_slicing:
        values["config"] = {"map": {"default": yaml.dump(_sharing(site.time_slicing), header="")}}
    return values


def _sharing(replicas: int) -> Mapping[str, Any]:
    """Return the plugin's configuration: two slices give no more than one, so a pod that asks for two fails."""
    slices = {"failRequestsGreaterThanOne": True, "resources": [{"name": "nvidia.com/gpu", "replicas": replicas}]}
    return {"version": "v1", "sharing": {"timeSlicing": slices}}
