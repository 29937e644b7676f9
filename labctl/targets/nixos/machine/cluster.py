"""k3s as NixOS runs it: a server or an agent, with its token outside the store and the cards' runtime in its reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final

from labctl.artefact import File, Format, SecretFile
from labctl.emit import nix, yaml
from labctl.emit.nix import Value
from labctl.placed import PlacedHost
from labctl.targets.nixos import folder, secret
from labctl.targets.nixos.machine import cards, tailscale
from labctl.targets.nixos.machine.gpu import GENERATOR
from labctl.targets.nixos.needs import Needs, Node
from labctl.targets.nixos.values import all_of, given
from labctl.workload import SecretRef, SecretText

UNIT: Final = "k3s.service"
RUNTIME: Final = "nvidia-cdi"
"""The runtime of containerd that hands out NVIDIA's cards on NixOS, and the class of the pods that get them: k3s finds
``nvidia-container-runtime.cdi`` on its path (k3s-io/k3s#10761, #11065; seen to work in davealtena/homelab#1848). What
k3s calls ``nvidia`` needs a program that NixOS does not have. With containerd 2 cards have to be described by UUID, as
the device plugin names them."""
TOKEN: Final = "k3s-token"  # noqa: S105 - the name of a file
REGISTRIES: Final = "rancher/k3s/registries.yaml"
"""Below /etc: where k3s reads which mirrors there are."""
_OWN_FILE: Final = "files/k3s/registries.yaml"
_CLASS: Final[Mapping[str, Value]] = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": RUNTIME},
    "handler": RUNTIME,
}


def module(host: PlacedHost, needs: Needs) -> Mapping[str, Value]:
    """Return ``k3s.nix``; nothing for a host that is no node of a cluster."""
    node = needs.node
    if node is None:
        return {}
    agent = node.server is not None
    driven = bool(cards.nvidia(host))
    service: dict[str, Value] = {
        "enable": True,
        "role": "agent" if agent else "server",
        "serverAddr": node.server,
        "tokenFile": secret.place(host, TOKEN) if node.token else None,
        "nodeName": node.name,
        "nodeLabel": ["nvidia.com/gpu.present=true"] if driven else None,
        "disable": None if agent else list(node.disable),
        "nodeIP": _own_address(host),
        "extraFlags": list(_flags(host, node)),
        "manifests": {RUNTIME: {"content": _CLASS}} if node.runtime and not agent else None,
    }
    return all_of(
        [
            {"services": {"k3s": given(service)}},
            _runtime() if driven else {},
            _mirror() if node.registries else {},
            secret.credential(host, TOKEN, _token(node)) if node.token else {},
        ]
    )


def files(host: PlacedHost, needs: Needs) -> Iterator[File]:
    """Yield k3s' configuration of mirrors, where the lab has one."""
    if needs.node is not None and needs.node.registries:
        content = yaml.dump(needs.node.registries).encode()
        origin = (*host.origin, "k3s")
        yield File(host=host.name, path=folder.module(host, _OWN_FILE), content=content, origin=origin)


def secrets(host: PlacedHost, needs: Needs) -> Iterator[SecretFile]:
    """Yield the file with the token that nodes join with, where labctl itself brings it."""
    node = needs.node
    if node is not None and node.token:
        origin = (*host.origin, "k3s", "token")
        yield from secret.files(host, TOKEN, {"token": _token(node)}, Format.RAW, origin)


def _token(node: Node) -> SecretText:
    return SecretText((SecretRef(str(node.token)),))


def _own_address(host: PlacedHost) -> str | None:
    """Return the address that the other nodes know, where lab.yaml has one; k3s takes the default route's otherwise."""
    try:
        return str(ipaddress.ip_address(host.bind)) if host.bind not in {"0.0.0.0", "::"} else None  # noqa: S104
    except ValueError:
        return None


def _flags(host: PlacedHost, node: Node) -> Iterator[str]:
    """Yield what has no option of its own (docs.k3s.io/cli/server, /cli/agent)."""
    if node.server is None:
        yield f"--tls-san={host.address}"
    inside = tailscale.joins(host)
    if inside and node.others:
        yield f"--flannel-iface={tailscale.INTERFACE}"
    if inside:
        # ports of nodes go past the firewall: kube-proxy redirects them before it
        yield f"--kube-proxy-arg=nodeport-addresses={tailscale.ADDRESSES}"


def _runtime() -> Mapping[str, Value]:
    """Return what lets k3s find the runtime, and starts it when the cards are described."""
    unit: dict[str, Value] = {
        "path": [nix.Ref("pkgs.nvidia-container-toolkit.tools")],
        "after": [GENERATOR],
        "wants": [GENERATOR],
    }
    return {"systemd": {"services": {"k3s": unit}}}


def _mirror() -> Mapping[str, Value]:
    source = nix.PathRef(f"./{_OWN_FILE}")
    return {
        "environment": {"etc": {REGISTRIES: {"source": source}}},
        "systemd": {"services": {"k3s": {"restartTriggers": [source]}}},
    }
