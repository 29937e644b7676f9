"""A workload's pod: its container, what it sees, what it may, and how it is asked for its health.

``init: true`` of a container form (a process that reaps zombies) has no counterpart here and needs none: nothing that
labctl runs leaves children behind, and the kubelet sends signals to the first process itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from labctl.emit import refuse
from labctl.placed import PlacedHost
from labctl.targets import shared
from labctl.targets.k3s import form as spell
from labctl.targets.k3s import gpu, storage
from labctl.targets.k3s.settings import Settings
from labctl.values import dataclass
from labctl.workload import Container, Health, Port, Start, Workload

LOOPBACK: Final = ("127.", "::1", "localhost")
ANYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_LOADS: Final = 1800
"""Seconds that a model server may take at least: its first start may fetch the model, and killed it begins anew."""
_KEPT: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""What the entry points of images that start as root need to give their data to their own user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One workload in its place: everything that its objects are made of.

    Attributes:
        nodes: what Kubernetes calls the hosts that it may run on.
        wave: when it comes.
        fetched: model files that it reads and labctl fetches.
        ingress: whether people reach its public ports by host names.
    """

    workload: Workload
    form: Container
    host: PlacedHost
    site: Settings
    nodes: tuple[str, ...]
    wave: int
    fetched: tuple[storage.Fetched, ...] = ()
    ingress: bool = False

    @property
    def name(self) -> str:
        """The workload's name, and that of most of its objects."""
        return self.workload.name

    @property
    def environment(self) -> shared.Environment:
        """Its variables; those of its cards among them."""
        claim = self.workload.gpu
        return shared.Environment.of(self.workload, self.form, gpu.variables(self.host, claim) if claim else {})

    @property
    def config_name(self) -> str:
        """Name of its ConfigMap: other content is another object, so that a pod never sees half a change."""
        files = [[f.name, f.content, f.mode] for f in self.workload.files]
        return f"{self.name}-config-{spell.short_hash(files)}"

    @property
    def secret_name(self) -> str:
        """Name of the Secret with its variables."""
        return f"{self.name}-env"

    @property
    def extra(self) -> Mapping[str, Any]:
        """Its ``extra: {k3s: …}``: by kind of object in small letters, and ``pod`` and ``container``."""
        return self.workload.extra.get("k3s", {})


def host_port(run: Run, port: Port) -> int | None:
    """Return the port on the node, None when it has none there.

    What an ingress serves, and what is bound to a node's loopback address, is reached through the cluster's network.
    """
    if port.published is None or port.bind.startswith(LOOPBACK) or (run.ingress and port.name in run.workload.public):
        return None
    return port.published


def patience(workload: Workload) -> int:
    """Return the seconds that a workload may take until it is healthy."""
    start = workload.health.start_period if workload.health else 60
    loads = workload.gpu is not None and not workload.gpu.observes
    return max(start, _LOADS) if loads else start


def template(run: Run) -> dict[str, Any]:
    """Return the pod template."""
    return {
        "metadata": {"labels": spell.labels(run.workload, run.site, run.form)},
        "spec": shared.merge(_pod(run), run.extra.get("pod", {})),
    }


def _pod(run: Run) -> dict[str, Any]:
    workload, form = run.workload, run.form
    claim = workload.gpu
    spec: dict[str, Any] = {
        "serviceAccountName": workload.name,
        "automountServiceAccountToken": False,
        # Variables like VLLM_PORT for every service of the namespace: programs take them for their own.
        "enableServiceLinks": False,
        **_placement(run),
        **(gpu.pod(run.host, claim, run.site) if claim else {}),
        "securityContext": _pod_security(run),
        "initContainers": storage.init_containers(run.fetched, run.host, run.site),
        "containers": [shared.merge(_container(run), run.extra.get("container", {}))],
        "volumes": volumes(run),
    }
    if workload.start is Start.ONCE:
        spec["restartPolicy"] = "OnFailure"
    if any(m.volume for m in form.mounts):
        spec["terminationGracePeriodSeconds"] = 60
    return {k: v for k, v in spec.items() if v not in ([], {}, None)}


def _placement(run: Run) -> dict[str, Any]:
    """Return where it runs: a host's own node; several replicas are spread over the nodes of the lab."""
    if len(run.nodes) == 1:
        return {"nodeSelector": {"kubernetes.io/hostname": run.nodes[0]}}
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(run.nodes)}
    terms = [{"matchExpressions": [term]}]
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": spell.selector(run.workload, run.site)},
    }
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}},
        "topologySpreadConstraints": [spread],
    }


def _pod_security(run: Run) -> dict[str, Any]:
    security: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    user, group = _ids(run.form.user)
    if user is not None:
        security |= {"runAsUser": user, "runAsGroup": group, "fsGroup": group}
        security |= {"runAsNonRoot": True} if user else {}
    claim = run.workload.gpu
    if claim is not None and claim.group_ids and gpu.vendor(run.host, claim) != "nvidia":
        security["supplementalGroups"] = list(claim.group_ids)
    return security


def _ids(user: str | None) -> tuple[int | None, int | None]:
    if user is None:
        return None, None
    name, _, group = user.partition(":")
    if not name.isdigit() or (group and not group.isdigit()):
        refuse(f"the user `{user}`", "Kubernetes takes numbers only, e.g. `1000:1000`")
    return int(name), int(group or name)


def _container(run: Run) -> dict[str, Any]:
    workload, form = run.workload, run.form
    container: dict[str, Any] = {
        "name": workload.name,
        "image": form.image,
        "command": [spell.expanded(a) for a in form.entrypoint or ()],
        "args": [spell.expanded(a) for a in form.args],
        "ports": [_port(run, port) for port in workload.ports],
        "env": _env(run),
        "resources": resources(run),
        **probes(workload),
        "securityContext": _security(run),
        "volumeMounts": _mounts(run),
    }
    return {k: v for k, v in container.items() if v not in ([], {}, None)}


def _port(run: Run, port: Port) -> dict[str, Any]:
    spelt: dict[str, Any] = {"name": spell.port_name(port.name, port.listen), "containerPort": port.listen}
    on_node = host_port(run, port)
    if on_node is not None:
        spelt["hostPort"] = on_node
        spelt |= {} if port.bind in ANYWHERE else {"hostIP": port.bind}
    return {**spelt, "protocol": "TCP"}


def _env(run: Run) -> list[dict[str, Any]]:
    variables = run.environment
    plain = [{"name": name, "value": spell.expanded(value)} for name, value in variables.plain.items()]
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": run.secret_name, "key": name}}}
        for name in variables.secret
    ]
    return sorted([*plain, *secret], key=lambda v: str(v["name"]))


def resources(run: Run) -> dict[str, Any]:
    """Return what it asks for and may have. Cards and memory are asked for in full: they cannot be lent out."""
    workload = run.workload
    fixed: dict[str, str] = gpu.request(run.host, workload.gpu) if workload.gpu else {}
    if workload.memory_limit is not None:
        fixed["memory"] = spell.memory(workload.memory_limit)
    cpu = {"cpu": spell.cores(workload.cpus)} if workload.cpus is not None else {}
    asked = {"requests": dict(fixed)} if fixed else {}
    limits = {**cpu, **fixed}
    return asked | ({"limits": limits} if limits else {})


def probes(workload: Workload) -> dict[str, Any]:
    """Return the three probes: until it has started; whether it gets requests; whether it is to be restarted."""
    health = workload.health
    if health is None or workload.start is Start.ONCE or not (health.path or health.command):
        return {}
    asks = _asks(health, workload)
    period = min(health.interval, 10)
    return {
        "startupProbe": {
            **asks,
            "periodSeconds": period,
            "timeoutSeconds": health.timeout,
            "failureThreshold": -(-patience(workload) // period),
        },
        "readinessProbe": {
            **asks,
            "periodSeconds": health.interval,
            "timeoutSeconds": health.timeout,
            "failureThreshold": health.retries,
        },
        # A server that is busy answers late: it loses its turn long before it is killed.
        "livenessProbe": {
            **asks,
            "periodSeconds": 30,
            "timeoutSeconds": max(10, health.timeout),
            "failureThreshold": max(6, health.retries),
        },
    }


def _asks(health: Health, workload: Workload) -> dict[str, Any]:
    if health.path is None:
        return {"exec": {"command": list(health.command)}}
    port = workload.port(health.port)
    return {"httpGet": {"path": health.path, "port": spell.port_name(port.name, port.listen)}}


def _security(run: Run) -> dict[str, Any]:
    """Return what the container may do. An image that starts as root keeps what it needs to leave that user."""
    user, _ = _ids(run.form.user)
    claim = run.workload.gpu
    if claim is not None and gpu.privileged(run.host, claim):
        return {"privileged": True}
    kept = [*(_KEPT if not user and not run.form.sealed else ()), *(["IPC_LOCK"] if run.form.locked_memory else [])]
    capabilities: dict[str, Any] = {"drop": ["ALL"], **({"add": sorted(kept)} if kept else {})}
    sealed = {"readOnlyRootFilesystem": True} if run.form.sealed else {}
    return {"allowPrivilegeEscalation": False, "capabilities": capabilities} | sealed


def _mounts(run: Run) -> list[dict[str, Any]]:
    found = [
        {"name": storage.volume_name(run.host, mount), "mountPath": mount.target}
        | ({"readOnly": True} if mount.read_only else {})
        for mount in run.form.mounts
    ]
    found += [
        {"name": "labctl-config", "mountPath": file.target, "subPath": spell.key(file.name), "readOnly": True}
        for file in run.workload.files
    ]
    own = [{"name": "labctl-tmp", "mountPath": "/tmp"}] if run.form.sealed else []  # noqa: S108
    own += [{"name": "labctl-shm", "mountPath": "/dev/shm"}] if run.form.shm_size is not None else []  # noqa: S108
    return found + own


def volumes(run: Run) -> list[dict[str, Any]]:
    """Return the pod's volumes, each once."""
    found = {storage.volume_name(run.host, m): storage.volume(run.host, m) for m in run.form.mounts}
    found |= storage.fetching_volumes(run.fetched, run.host)
    listed = [{"name": name, **source} for name, source in found.items()]
    if run.workload.files:
        items = [{"key": spell.key(f.name), "path": spell.key(f.name), "mode": f.mode} for f in run.workload.files]
        listed.append({"name": "labctl-config", "configMap": {"name": run.config_name, "items": items}})
    if run.form.sealed:
        listed.append({"name": "labctl-tmp", "emptyDir": {"medium": "Memory"}})
    if run.form.shm_size is not None:
        listed.append(
            {"name": "labctl-shm", "emptyDir": {"medium": "Memory", "sizeLimit": spell.memory(run.form.shm_size)}}
        )
    return listed
