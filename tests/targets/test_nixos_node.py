"""A node of a cluster on NixOS: k3s among the machine's services, the cluster after its machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from labctl.artefact import HostRoot, Manager, SecretFile, Tree
from labctl.diagnostics import Diagnostic
from labctl.emit.nix import PathRef, Ref
from labctl.placed import PlacedHost
from labctl.targets.k3s import target
from labctl.targets.nixos.needs import Needs, Node
from tests.targets import samples
from tests.targets.test_nixos_machine import ANY, BASE, host, options

GPU = Needs(contained=frozenset({"nvidia"}), node=Node(name="n1", runtime=True))


def node(name: str = "box", *models: str, k3s: Mapping[str, Any] | None = None, **machine: object) -> PlacedHost:
    """Return a host of the cluster ``k3s`` with NixOS underneath."""
    block = {"namespace": "lab", "disable": ("traefik",), **(k3s or {})}
    found = dataclasses.replace(host(*models, **({"tailscale": "AUTH"} | machine)), name=name, target="k3s")
    places = target.places("lab", block, None)
    return dataclasses.replace(found, places=places, options=block, origin=("hosts", name))


def tree(*hosts: PlacedHost) -> Tree:
    return Tree.of(target.render_site(hosts, [], []))


def problems(*hosts: PlacedHost) -> list[Diagnostic]:
    return list(target.check(hosts, []))


def service(where: PlacedHost, needs: Needs) -> Any:
    return options(where, "k3s.nix", needs)["services"]["k3s"]


def test_a_server_and_an_agent() -> None:
    server = service(host(), Needs(node=Node(name="n1", token="T", disable=("traefik",), others=True)))
    assert (server["role"], server["disable"]) == ("server", ["traefik"])
    assert server["tokenFile"] == "/var/lib/labctl/lab/secrets/k3s-token"
    assert "token" not in server
    assert (server["nodeName"], server["nodeIP"]) == ("n1", "10.0.0.1")
    assert server["extraFlags"] == ["--tls-san=10.0.0.1"]
    joined = Node(name="n2", token="T", server="https://10.0.0.1:6443", disable=("traefik",), others=True)
    agent = service(host(), Needs(node=joined))
    assert (agent["role"], agent["serverAddr"]) == ("agent", "https://10.0.0.1:6443")
    assert {"disable", "extraFlags", "manifests"}.isdisjoint(agent)


def test_on_a_tailnet_nodes_talk_over_it_and_show_no_port_elsewhere() -> None:
    where = dataclasses.replace(host(tailscale="AUTH"), bind=ANY)
    flags = service(where, Needs(node=Node(name="n1", others=True)))["extraFlags"]
    assert "--flannel-iface=tailscale0" in flags
    assert "--kube-proxy-arg=nodeport-addresses=100.64.0.0/10" in flags
    firewall = options(where, "networking.nix", Needs(node=Node(name="n1", others=True)))["networking"]["firewall"]
    assert firewall == {"enable": True, "trustedInterfaces": ["tailscale0", "cni0", "flannel.1"]}


@pytest.mark.parametrize(
    ("of", "tcp", "udp"),
    [
        (Node(name="n1"), [6443], None),
        (Node(name="n1", others=True), [6443, 10250], [8472]),
        (Node(name="n1", others=True, server="https://10.0.0.9:6443"), [10250], [8472]),
    ],
)
def test_a_private_network_has_k3s_own_ports_open(of: Node, tcp: list[int], udp: list[int] | None) -> None:
    firewall = options(host(interface="eno1"), "networking.nix", Needs(node=of))["networking"]["firewall"]
    opened = {"allowedTCPPorts": tcp} | ({"allowedUDPPorts": udp} if udp else {})
    assert firewall["interfaces"] == {"eno1": opened}
    assert "allowedTCPPorts" not in firewall


def test_cards_reach_pods_by_the_runtime_that_nixos_has() -> None:
    where = host("RTX 3090")
    body = options(where, "k3s.nix", GPU)
    assert body["services"]["k3s"]["nodeLabel"] == ["nvidia.com/gpu.present=true"]
    runtime = body["services"]["k3s"]["manifests"]["nvidia-cdi"]["content"]
    assert (runtime["kind"], runtime["handler"]) == ("RuntimeClass", runtime["metadata"]["name"])
    unit = body["systemd"]["services"]["k3s"]
    assert unit["path"] == [Ref("pkgs.nvidia-container-toolkit.tools")]
    assert unit["after"] == unit["wants"] == ["nvidia-container-toolkit-cdi-generator.service"]
    toolkit = options(where, "gpu.nix", GPU)["hardware"]["nvidia-container-toolkit"]
    assert toolkit == {"enable": True, "device-name-strategy": "uuid"}  # the device plugin names cards by UUID
    pods = tree(node("box", "RTX 3090", k3s={"charts": {"nvidia-device-plugin": None}}))
    chart = next(o for o in pods.objects if o.value["kind"] == "HelmChart")
    assert "runtimeClassName: nvidia-cdi" in chart.value["spec"]["valuesContent"]


def test_the_server_knows_the_runtime_of_its_agents_cards() -> None:
    agent = node("b", "RTX 3090", k3s={"token": "T", "server": "https://10.0.0.1:6443"})
    found = tree(node("a", k3s={"token": "T"}), agent)
    assert 'handler = "nvidia-cdi"' in samples.text(found, "hosts/a/k3s.nix")
    assert "nvidia" not in samples.text(found, "hosts/b/k3s.nix").partition("systemd.services")[0].replace(
        "nvidia.com/gpu.present", ""
    )


def test_power_limits_are_the_systems_and_no_unit_beside_it() -> None:
    where = node("box", "RTX 3090")
    where = dataclasses.replace(where, gpus=(dataclasses.replace(where.gpus[0], power_limit=250),))
    assert problems(where) == []
    found = tree(where)
    assert "-pl 250" in samples.text(found, "hosts/box/gpu.nix")
    assert "gpu-power" not in {u.name for u in found.units}
    assert not [a for a in found.artefacts if a.host == "box" and a.path.startswith("etc/systemd")]


def test_a_runtime_that_lab_yaml_names_stays() -> None:
    where = node("box", "RTX 3090", k3s={"runtime_class": "mine", "charts": {"nvidia-device-plugin": None}})
    chart = next(o for o in tree(where).objects if o.value["kind"] == "HelmChart")
    assert "runtimeClassName: mine" in chart.value["spec"]["valuesContent"]


def test_a_mirror_is_a_file_of_the_flake() -> None:
    found = tree(dataclasses.replace(node(), mirror="mirror.example:5000/lab"))
    text = samples.text(found, "hosts/box/files/k3s/registries.yaml")
    assert '"^(.*)$": lab/$1' in text
    body = options(host(), "k3s.nix", Needs(node=Node(name="n1", registries={"mirrors": {}})))
    source = PathRef("./files/k3s/registries.yaml")
    assert body["environment"]["etc"]["rancher/k3s/registries.yaml"]["source"] == source
    assert body["systemd"]["services"]["k3s"]["restartTriggers"] == [source]


def test_the_cluster_comes_after_its_machines_and_is_entered_through_its_server() -> None:
    first = node("a", k3s={"token": "TOKEN"})
    second = node("b", k3s={"token": "TOKEN", "server": "https://10.0.0.1:6443"})
    assert problems(first, second) == []
    found = tree(first, second)
    cluster = found.roots["k3s"]
    assert cluster.after == ("a", "b")
    assert cluster.cluster is not None
    assert cluster.cluster.server == found.roots["a"]
    for name in ("a", "b"):
        root = found.roots[name]
        assert isinstance(root, HostRoot)
        assert (root.root, root.managers, root.after) == ("/", (Manager.NIXOS,), ())
        units = {u.name: u for u in found.units if u.host == name}
        assert set(units) == {"nixos-system", "nixos-k3s", "nixos-tailscale"}
        assert units["nixos-k3s"].files == ("var/lib/labctl/lab/secrets/k3s-token",)
    assert 'role = "agent"' in samples.text(found, "hosts/b/k3s.nix")
    tokens = [a for a in found.artefacts if isinstance(a, SecretFile) and a.path.endswith("k3s-token")]
    assert [t.host for t in tokens] == ["a", "b"]
    assert {name for t in tokens for text in t.entries.values() for name in text.names} == {"TOKEN"}


def test_a_cluster_of_other_machines_comes_by_itself() -> None:
    by_hand = dataclasses.replace(node(), machine=None)
    cluster = tree(by_hand).roots["k3s"]
    assert cluster.after == ()
    assert cluster.cluster is not None
    assert cluster.cluster.server is None


def test_two_servers_are_two_clusters() -> None:
    assert [d.code for d in problems(node("a", k3s={"token": "T"}), node("b", k3s={"token": "T"}))] == ["LAB256"]


def test_nodes_join_with_a_token() -> None:
    second = node("b", k3s={"server": "https://10.0.0.1:6443"})
    found = problems(node("a"), second)
    assert [(d.code, d.path) for d in found] == [
        ("LAB256", ("hosts", "a", "k3s")),
        ("LAB256", ("hosts", "b", "k3s")),
    ]
    assert problems(node("a")) == []  # alone, k3s makes one up


def test_what_traefik_publishes_goes_past_the_firewall() -> None:
    (found,) = problems(node("a", k3s={"disable": ()}))
    assert (found.code, found.is_error) == ("LAB255", False)
    assert problems(node("a", k3s={"disable": ("servicelb",)})) == []


def test_a_machine_that_cannot_be_is_said_with_the_cluster() -> None:
    where = node("a", disk=None, tailscale=None)
    assert {d.code for d in problems(where)} == {"LAB250", "LAB253"}
    assert BASE["disk"]
