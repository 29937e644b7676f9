"""Which kinds a server has, and at which address their objects are.

Asked per API version of the objects at hand: a handful of small requests. So there is no cache that could be stale or
lie in a folder that others write, and a broken extension API elsewhere in the cluster does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from labctl.kube.api import Api, ApiError, segment
from labctl.values import dataclass

CHARTS: Final = {
    "cert-manager.io": "the chart `cert-manager`",
    "gateway.networking.k8s.io": "the Gateway API's own manifests, or the chart `traefik`",
    "helm.cattle.io": "k3s itself: its Helm controller (not started with --disable-helm-controller)",
    "monitoring.coreos.com": "the chart `kube-prometheus-stack`",
    "nvidia.com": "the chart `gpu-operator`",
    "resource.nvidia.com": "the chart `nvidia-dra-driver-gpu`",
    "traefik.io": "k3s's own traefik, or the chart `traefik`",
}
"""Who brings the kinds of an API group that a bare cluster has not."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of one API version."""

    version: str
    """``v1``, ``apps/v1``"""
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """Return the address of the objects of a namespace (None: of all), or of one of them."""
        base = f"/apis/{self.version}" if "/" in self.version else f"/api/{self.version}"
        inside = f"/namespaces/{segment(namespace)}" if self.namespaced and namespace is not None else ""
        return f"{base}{inside}/{self.plural}" + (f"/{segment(name)}" if name is not None else "")


Kinds = Mapping[tuple[str, str], Resource]
"""(apiVersion, kind) → where it is."""


def discover(api: Api, versions: Iterable[str]) -> Kinds:
    """Return the kinds that the server has of some API versions; those of a version that it lacks are left out."""
    wanted = sorted(set(versions))
    found = api.each(lambda version: _of(api, version), wanted)
    return {(r.version, r.kind): r for resources in found for r in resources}


def _of(api: Api, version: str) -> list[Resource]:
    path = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        value = api.call("GET", path).value
    except ApiError as error:
        if error.code == 404:
            return []
        raise
    return [
        Resource(version, str(r["kind"]), str(r["name"]), bool(r.get("namespaced")))
        for r in value.get("resources") or ()
        if "/" not in r["name"]
    ]


def brought_by(version: str) -> str:
    """Return who brings the kinds of an API version, "" when nobody knows."""
    return CHARTS.get(version.partition("/")[0], "")
