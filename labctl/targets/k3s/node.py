"""The machines under a cluster. One with a ``nixos`` block is described as a whole, k3s included (``targets.nixos``).

Of any other, files where lab.yaml asks for them (``prepare: true``): k3s' configuration and the images' mirror.

They go to the host over SSH like the files of any other host, and k3s reads them when it starts. A first
``labctl apply`` before k3s is installed leaves them there for its first start: labels count at registration only.
k3s itself is not installed, and never restarted unasked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from labctl.artefact import File, Format, HostRoot, Item, Manager, SecretFile
from labctl.emit import yaml
from labctl.placed import PlacedHost
from labctl.targets import shared
from labctl.targets.k3s.settings import Settings, node
from labctl.targets.nixos import node as nixos
from labctl.targets.power import power_unit
from labctl.workload import SecretRef, SecretText

FOLDER: Final = "etc/rancher/k3s"
TOKEN: Final = f"{FOLDER}/labctl-token"
_RESTART: Final = "k3s reads this when it starts: `systemctl restart k3s` (of an agent: k3s-agent) after a change"


def artefacts(host: PlacedHost, site: Settings, hosts: Sequence[PlacedHost]) -> Iterator[Item]:
    """Yield the root of one of a cluster's hosts and what goes there; nothing when lab.yaml does not ask for it."""
    if host.machine is not None:
        yield from nixos.artefacts(host, of_machine(host, site, hosts))
        return
    if not host.options.get("prepare"):
        return
    limits = list(power_unit(host))
    managers = (Manager.SYSTEMD,) if limits else ()
    yield replace(shared.root(host, Manager.SYSTEMD), managers=managers)
    yield from limits
    yield _file(host, "config.yaml.d/50-labctl.yaml", _config(host, site))
    if site.mirror:
        yield _file(host, "registries.yaml", _registries(site.mirror))
    token = host.options.get("token")
    if token:
        text = SecretText((SecretRef(str(token)),))
        yield SecretFile(host=host.name, path=TOKEN, entries={"token": text}, format=Format.RAW, origin=host.origin)


def of_machine(host: PlacedHost, site: Settings, hosts: Sequence[PlacedHost]) -> nixos.Node:
    """Return what a NixOS machine is to its cluster, whose nodes are ``hosts``."""
    server, token = host.options.get("server"), host.options.get("token")
    return nixos.Node(
        name=node(host),
        server=str(server) if server else None,
        token=str(token) if token else None,
        disable=tuple(site.disable),
        others=len(hosts) > 1,
        runtime=any(gpu.vendor == "nvidia" for h in hosts for gpu in h.gpus),
        registries=_registries(site.mirror) if site.mirror else None,
    )


def server_root(hosts: Sequence[PlacedHost]) -> HostRoot | None:
    """Return the root of the machine that is the cluster's server, None where labctl does not look after that one."""
    servers = [host for host in hosts if host.machine is not None and not host.options.get("server")]
    return nixos.root(servers[0]) if servers else None


def _file(host: PlacedHost, name: str, value: dict[str, Any]) -> File:
    """Return a file that only root reads: k3s writes its own so, too."""
    content = yaml.dump(value, header=_RESTART).encode()
    return File(host=host.name, path=f"{FOLDER}/{name}", content=content, mode=0o600, origin=(*host.origin, "k3s"))


def _config(host: PlacedHost, site: Settings) -> dict[str, Any]:
    """Return k3s' configuration (docs.k3s.io/installation/configuration): a list is a flag given several times."""
    agent = host.options.get("server")
    has_cards = any(g.vendor == "nvidia" for g in host.gpus)
    config: dict[str, Any] = {
        "server": agent,
        "token-file": f"/{TOKEN}" if host.options.get("token") else None,
        "node-name": node(host),
        "node-label": ["nvidia.com/gpu.present=true"] if has_cards else [],
        "disable": [] if agent else list(site.disable),
        "tls-san": [] if agent else [host.address],
        "write-kubeconfig-mode": None if agent else "0600",
    }
    return {k: v for k, v in config.items() if v is not None and v != []}


def _registries(mirror: str) -> dict[str, Any]:
    """Return the mirror for every image that labctl does not name, k3s' own and those of charts among them."""
    registry, _, folder = mirror.rstrip("/").partition("/")
    everything: dict[str, Any] = {"endpoint": [f"https://{registry}"]}
    if folder:
        everything["rewrite"] = {"^(.*)$": f"{folder}/$1"}
    return {"mirrors": {registry: {"endpoint": [f"https://{registry}"]}, "*": everything}}
