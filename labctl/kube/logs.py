"""The logs of a unit: of all its pods, or those to come of its newest one."""

from __future__ import annotations

from collections.abc import Iterator

from labctl.artefact import Cluster, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError
from labctl.kube.api import Api, Value
from labctl.kube.kinds import discover
from labctl.kube.why import log_path, pods_of

_VERSIONS = {"Job": "batch/v1"}


def lines(api: Api, cluster: Cluster, unit: Unit, *, lines: int, follow: bool) -> Iterator[str]:
    """Yield a unit's last log lines and, when asked, those to come. HostError when it has no pod."""
    pods = _pods(api, cluster, unit)
    if not pods:
        raise HostError(
            Diagnostic(code="LAB179", summary=f"`{unit.name}` has no pod, so there is no log", hint="is it applied?")
        )
    if follow:
        yield from _of(api, pods[0], lines, follow=True)
        return
    for pod in reversed(pods):
        mark = f"[{pod['metadata']['name']}] " if len(pods) > 1 else ""
        yield from (f"{mark}{line}" for line in _of(api, pod, lines, follow=False))


def _pods(api: Api, cluster: Cluster, unit: Unit) -> list[Value]:
    kind, _, name = unit.id.partition("/")
    version = _VERSIONS.get(kind, "apps/v1")
    resource = discover(api, [version]).get((version, kind))
    live = api.get(resource.path(cluster.namespace, name)) if resource is not None else None
    return pods_of(api, live) if live is not None else []


def _of(api: Api, pod: Value, lines: int, *, follow: bool) -> Iterator[str]:
    container = pod["spec"]["containers"][0]["name"]
    query = {"container": container, "tailLines": str(lines)} | ({"follow": "true"} if follow else {})
    return api.lines(log_path(pod), query)
