"""What lab.yaml says about a cluster, put together from the blocks of its hosts, and the tables of names beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, cast

from labctl.compat.tables import toml
from labctl.diagnostics import Diagnostic, DocPath, Related
from labctl.placed import PlacedHost
from labctl.quantity import GIB
from labctl.targets.nixos.node import RUNTIME
from labctl.values import dataclass

CLUSTER: Final = "k3s"
"""Name of a cluster that lab.yaml gives none."""
OF_NODE: Final = frozenset({"cluster", "node", "prepare", "server", "token"})
"""Keys that are each node's own; the others are the cluster's, and its nodes must not differ in them."""
_FILE: Final = "kubernetes.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A cluster, as its nodes' blocks together declare it; sizes in bytes."""

    name: str
    lab: str
    namespace: str = "labctl"
    domain: str | None = None
    storage_class: str | None = "local-path"
    disable: tuple[str, ...] = ()
    context: str | None = None
    time_slicing: int | None = None
    runtime_class: str | None = "nvidia"
    ingress_class: str | None = None
    tls: str | None = None
    issuer: str | None = None
    volume_size: int = 20 * GIB
    models_size: int = 100 * GIB
    hub_token: str | None = None
    charts: Mapping[str, Any] | None = None
    mirror: str | None = None

    @property
    def ingress(self) -> str:
        """Class of its ingresses: as declared, else Traefik, which k3s brings along; without Traefik, nginx."""
        return self.ingress_class or ("nginx" if "traefik" in self.disable else "traefik")


def settings(hosts: Sequence[PlacedHost]) -> Settings:
    """Return the cluster of these hosts: what one of them says holds for all."""
    values: dict[str, Any] = {}
    for host in hosts:
        for key, value in host.options.items():
            if key not in OF_NODE:
                values.setdefault(key, value)
    if any(host.machine is not None and _has_nvidia(host) for host in hosts):
        values.setdefault("runtime_class", RUNTIME)
    return Settings(name=hosts[0].network, lab=hosts[0].lab, mirror=hosts[0].mirror, **values)


def _has_nvidia(host: PlacedHost) -> bool:
    return any(gpu.vendor == "nvidia" for gpu in host.gpus)


def disagreements(hosts: Sequence[PlacedHost]) -> Iterator[Diagnostic]:
    """Yield a problem for each setting of the cluster that two of its hosts give different values."""
    first: dict[str, PlacedHost] = {}
    for host in hosts:
        for key, value in host.options.items():
            if key in OF_NODE:
                continue
            other = first.setdefault(key, host)
            if other.options[key] != value:
                path: DocPath = (*host.origin, "k3s", key)
                yield Diagnostic(
                    code="LAB210",
                    summary=f"`{other.name}` and `{host.name}` are nodes of one cluster, and `{key}` differs",
                    path=path,
                    hint=f"say it once: leave `{key}` out here, or put the hosts into clusters of their own",
                    related=(Related("the other value", (*other.origin, "k3s", key)),),
                )


def node(host: PlacedHost) -> str:
    """Return what Kubernetes calls a host."""
    return str(host.options.get("node") or host.name)


@cache
def fetch_image() -> str:
    """Return the image that fetches model files."""
    return next(str(row["image"]) for row in toml(_FILE)["image"] if row["name"] == "fetch")


@cache
def resource_of(vendor: str) -> str:
    """Return the name under which a cluster hands out the cards of a vendor."""
    return next((str(row["name"]) for row in toml(_FILE)["resource"] if row["vendor"] == vendor), "nvidia.com/gpu")


@cache
def ingress_annotations(name: str) -> Mapping[str, str]:
    """Return what an ingress controller is to be told so that long answers come through."""
    found: Iterable[Mapping[str, Any]] = toml(_FILE)["ingress"]
    return next((cast("Mapping[str, str]", row["annotations"]) for row in found if row["class"] == name), {})


@cache
def charts() -> Mapping[str, Mapping[str, Any]]:
    """Return the charts that labctl knows, by name."""
    return {str(row["name"]): row for row in toml(_FILE)["chart"]}
