"""The objects of one workload: what runs it, how it is reached, what it reads, who may call it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from labctl.artefact import Object
from labctl.targets import shared
from labctl.targets.k3s import form as spell
from labctl.targets.k3s import pod, settings, waves
from labctl.targets.k3s.pod import Run
from labctl.targets.k3s.storage import secret
from labctl.workload import Port, Start, Workload

PULL: Final = 900
"""Seconds that pulling an image of some gigabytes may take, on top of what a workload needs to start."""


def kind_of(workload: Workload, volumes: bool) -> str:  # noqa: FBT001 - one fact of two
    """Return what runs a workload. It depends on the workload alone: nothing else may turn one kind into another.

    What has data and no card is a StatefulSet: never two at a time, not even for a moment.
    """
    if workload.start is Start.ONCE:
        return "Job"
    if workload.gpu is not None and workload.gpu.observes:
        return "DaemonSet"
    return "StatefulSet" if volumes and workload.gpu is None and workload.replicas == 1 else "Deployment"


def objects(run: Run) -> Iterator[Object]:
    """Yield everything that one workload is; the one that runs it comes first."""
    made = [controller(run), _account(run), *_config(run), *_reach(run), _policy(run)]
    if run.workload.replicas > 1:
        made.append(_budget(run))
    for value, wave in made:
        yield spell.thing(run.site, run.name, _patched(run, value), wave, run.workload.origin)
    if run.environment.secret:
        yield secret(run.site, run.name, run.secret_name, run.environment.secret)


def _patched(run: Run, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object with what lab.yaml lays over it."""
    patch = run.extra.get(str(value["kind"]).lower())
    return shared.merge(value, patch) if patch else value


Made = tuple[Mapping[str, Any], int]
"""An object and its wave."""


def controller(run: Run) -> Made:
    """Return what runs the workload's pods."""
    kind = kind_of(run.workload, any(m.volume for m in run.form.mounts))
    match kind:
        case "Job":
            return _job(run), run.wave
        case "StatefulSet":
            spec: dict[str, Any] = {"serviceName": run.name, "podManagementPolicy": "Parallel"}
        case "DaemonSet":
            spec = {}
        case _:
            spec = _rollout(run)
    replicas = {} if kind == "DaemonSet" else {"replicas": _replicas(run.workload)}
    spec = {
        **replicas,
        "revisionHistoryLimit": 3,
        **spec,
        "selector": {"matchLabels": spell.selector(run.workload, run.site)},
        "template": pod.template(run),
    }
    return _value(run, "apps/v1", kind, run.name, spec), run.wave


def _replicas(workload: Workload) -> int:
    return 0 if workload.start is Start.ON_DEMAND else workload.replicas


def _rollout(run: Run) -> dict[str, Any]:
    """Return how a Deployment is renewed: in place of the old pod where both would need the same card or port."""
    alone = run.workload.gpu is not None or any(pod.host_port(run, p) for p in run.workload.ports)
    shares = any(m.volume for m in run.form.mounts)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    strategy = {"type": "Recreate"} if alone or shares else rolling
    return {"strategy": strategy, "progressDeadlineSeconds": pod.patience(run.workload) + PULL}


def _job(run: Run) -> Mapping[str, Any]:
    """Return a task as a Job; its name changes with what it does, so that it runs again."""
    spec = {
        "activeDeadlineSeconds": run.workload.time_limit + PULL,
        "backoffLimit": 6,
        "template": pod.template(run),
    }
    digest = spell.short_hash(spec, sorted(run.environment.secret))
    return _value(run, "batch/v1", "Job", f"{run.name[:52].rstrip('-')}-{digest}", spec)


def _value(run: Run, api: str, kind: str, name: str, spec: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    marks = spell.labels(run.workload, run.site, run.form)
    return {"apiVersion": api, "kind": kind, "metadata": spell.meta(run.site, name, marks, **more), "spec": spec}


def _account(run: Run) -> Made:
    """Return an account that is allowed nothing and has no token: no workload of a lab talks to the cluster."""
    marks = spell.labels(run.workload, run.site)
    metadata = spell.meta(run.site, run.name, marks)
    value = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }
    return value, waves.CONFIG


def _config(run: Run) -> Iterator[Made]:
    if run.workload.files:
        data = {spell.key(f.name): f.content for f in run.workload.files}
        metadata = spell.meta(run.site, run.config_name, spell.labels(run.workload, run.site))
        value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}
        yield value, waves.CONFIG


def _reach(run: Run) -> Iterator[Made]:
    """Yield the Service under the workload's own name, and the Ingress of what people open."""
    if not run.workload.ports or run.workload.start is Start.ONCE:
        return
    ports = [_service_port(p) for p in run.workload.ports]
    spec = {"type": "ClusterIP", "selector": spell.selector(run.workload, run.site), "ports": ports}
    yield _value(run, "v1", "Service", run.name, spec), waves.CONFIG
    if run.ingress and run.workload.public:
        yield _ingress(run), run.wave


def _service_port(port: Port) -> dict[str, Any]:
    name = spell.port_name(port.name, port.listen)
    return {"name": name, "port": port.listen, "targetPort": name, "protocol": "TCP"}


def host_name(site: settings.Settings, workload: str, port: str, first: bool) -> str:  # noqa: FBT001 - of a port
    """Return the host name of a public port: the workload's, with the port's name for all but the first."""
    return f"{workload}.{site.domain}" if first else f"{workload}-{port}.{site.domain}"


def _ingress(run: Run) -> Mapping[str, Any]:
    site, rules, names = run.site, [], []
    for i, public in enumerate(run.workload.public):
        port = run.workload.port(public)
        names.append(host_name(site, run.name, public, i == 0))
        to = {"service": {"name": run.name, "port": {"name": spell.port_name(port.name, port.listen)}}}
        paths = [{"path": "/", "pathType": "Prefix", "backend": to}]
        rules.append({"host": names[-1], "http": {"paths": paths}})
    spec: dict[str, Any] = {"ingressClassName": site.ingress, "rules": rules}
    notes = dict(settings.ingress_annotations(site.ingress))
    if site.issuer:
        notes["cert-manager.io/cluster-issuer"] = site.issuer
    if site.issuer or site.tls:
        spec["tls"] = [{"hosts": names, "secretName": site.tls or f"{run.name}-tls"}]
    return _value(run, "networking.k8s.io/v1", "Ingress", run.name, spec, **({"annotations": notes} if notes else {}))


def _policy(run: Run) -> Made:
    """Return who may call: whom it serves, and everybody where people open it or a node offers it."""
    workload = run.workload
    rules: list[dict[str, Any]] = []
    public = [p for p in workload.ports if p.name in workload.public or pod.host_port(run, p) is not None]
    if public:
        rules.append({"ports": [_policy_port(p) for p in public]})
    inner = workload.ports if workload.start is not Start.ONCE else ()
    if inner and workload.serves_to != ():
        rules.append({"from": _callers(run), "ports": [_policy_port(p) for p in inner]})
    spec = {
        "podSelector": {"matchLabels": spell.selector(workload, run.site)},
        "policyTypes": ["Ingress"],
        "ingress": rules,
    }
    return _value(run, "networking.k8s.io/v1", "NetworkPolicy", run.name, spec), waves.CONFIG


def _callers(run: Run) -> Sequence[Mapping[str, Any]]:
    if run.workload.serves_to is None:
        return [{"podSelector": {}}]
    key = f"{spell.APP}/name"
    part = {f"{spell.APP}/part-of": run.site.lab}
    return [{"podSelector": {"matchLabels": {key: name, **part}}} for name in run.workload.serves_to]


def _policy_port(port: Port) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port.listen}


def _budget(run: Run) -> Made:
    """Return how many pods a node's maintenance may take away at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": spell.selector(run.workload, run.site)}}
    return _value(run, "policy/v1", "PodDisruptionBudget", run.name, spec), run.wave
