"""What definitions have to be together, rule by rule: each assertion brought about, and gone with its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.emit.nix import Ref
from labctl.targets.nixos.options import Kind, check
from tests.nix.test_options import GOOD, nested, problems


def joined(*parts: tuple[str, object]) -> dict[str, Any]:
    """Return the definitions of ``path/with/slashes`` and value pairs."""
    whole: dict[str, Any] = {}
    for path, value in parts:
        inner = whole
        *above, last = path.split("/")
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return whole


WEB = "virtualisation.oci-containers.containers.web"
CONTAINERS = "virtualisation/oci-containers/containers"
K3S = "services/k3s"
AGENT = [
    (f"{K3S}/enable", True),
    (f"{K3S}/role", "agent"),
    (f"{K3S}/serverAddr", "https://a:6443"),
    (f"{K3S}/tokenFile", "/t"),
]

BROKEN: list[tuple[str, list[tuple[str, object]], str, Kind]] = [
    ("no open", [("hardware/nvidia/open", None)], "hardware.nvidia.open", Kind.MISSING),
    ("two kinds", [("hardware/nvidia/datacenter/enable", True)], "hardware.nvidia.datacenter.enable", Kind.CONFLICT),
    (
        "an old card",
        [("hardware/nvidia/package", Ref("config.boot.kernelPackages.nvidiaPackages.legacy_470"))],
        "hardware.nvidia.open",
        Kind.CONFLICT,
    ),
    ("two loaders", [("boot/loader/grub/enable", True)], "boot.loader.grub.enable", Kind.CONFLICT),
    (
        "dockerCompat",
        [("virtualisation/podman/dockerCompat", True)],
        "virtualisation.podman.dockerCompat",
        Kind.CONFLICT,
    ),
    (
        "dependsOn",
        [(f"{CONTAINERS}/web/dependsOn", ["bd"])],
        WEB,
        Kind.CONFLICT,
    ),
    (
        "podman's",
        [(f"{CONTAINERS}/web/podman/user", "a")],
        WEB,
        Kind.CONFLICT,
    ),
    (
        "newer",
        [(f"{CONTAINERS}/web/pull", "newer")],
        f"{WEB}.pull",
        Kind.CONFLICT,
    ),
    ("clusterInit", [*AGENT, (f"{K3S}/clusterInit", True)], "services.k3s.clusterInit", Kind.CONFLICT),
    ("disableAgent", [*AGENT, (f"{K3S}/disableAgent", True)], "services.k3s.disableAgent", Kind.CONFLICT),
    ("no server", [*AGENT, (f"{K3S}/serverAddr", "")], "services.k3s.serverAddr", Kind.MISSING),
    ("no token", [*AGENT, (f"{K3S}/tokenFile", None)], "services.k3s.tokenFile", Kind.MISSING),
    ("no model", [("services/llama-cpp/enable", True)], "services.llama-cpp.model", Kind.MISSING),
    (
        "no alerts",
        [("services/prometheus/alertmanager/enable", True)],
        "services.prometheus.alertmanager.configuration",
        Kind.MISSING,
    ),
    ("no key", [("services/tailscale/extraUpFlags", ["--ssh"])], "services.tailscale.extraUpFlags", Kind.CONFLICT),
    ("nobody", [("users/users/lab/home", "/srv")], "users.users.lab", Kind.CONFLICT),
    ("both", [("users/users/lab", {"isNormalUser": True, "uid": 900})], "users.users.lab", Kind.CONFLICT),
    ("no group", [("users/users/lab/isSystemUser", True)], "users.users.lab.group", Kind.MISSING),
    ("two commands", [("systemd/services/chat/script", "true")], "systemd.services.chat.script", Kind.CONFLICT),
    ("two contents", [("environment/etc/a", {"text": "a", "source": "/a"})], "environment.etc.a", Kind.CONFLICT),
]


@pytest.mark.parametrize(("parts", "path", "kind"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_an_assertion(parts: list[tuple[str, object]], path: str, kind: Kind) -> None:
    found = problems(joined(*parts))
    assert [(problem.kind, ".".join(problem.path)[: len(path)]) for problem in found] == [(kind, path)]
    assert found[0].remedy


def test_a_branch_for_old_cards() -> None:
    def host(**nvidia: object) -> dict[str, Any]:
        return {**GOOD, "hardware": {"nvidia": {"branch": "legacy_580", **nvidia}}}

    (found,) = check(host(open=True), "26.05")
    assert (found.kind, found.path) == (Kind.CONFLICT, ("hardware", "nvidia", "open"))
    assert not list(check(host(open=False), "26.05"))
    assert [problem.kind for problem in check(host(open=False), "25.11")] == [Kind.RELEASE]


def test_hardware_without_its_driver() -> None:
    toolkit = ("hardware/nvidia-container-toolkit/enable", True)
    found = problems(joined(("services/xserver", None), toolkit))
    assert {".".join(problem.path) for problem in found if problem.kind is Kind.CONFLICT} == {
        "hardware.nvidia",
        "hardware.nvidia-container-toolkit.enable",
    }


def test_the_driver_is_not_free_software() -> None:
    config = {**GOOD, "nixpkgs": {"hostPlatform": "x86_64-linux", "config": {"allowUnfree": False}}}
    (found,) = check(config, "26.05")
    assert (found.kind, found.path) == (Kind.MISSING, ("nixpkgs", "config"))
    config["nixpkgs"]["config"]["allowUnfree"] = True
    assert not list(check(config, "26.05"))


def test_users_that_other_modules_make() -> None:
    more = joined(("users/users/litellm/extraGroups", ["render"]), ("users/users/root/shell", Ref("pkgs.zsh")))
    assert not problems(more)


def test_an_agent_that_has_all_it_needs() -> None:
    assert not problems(joined(*AGENT))


def test_podman_may_stand_in_for_a_docker_that_is_not_there() -> None:
    podman = joined(("virtualisation/podman/dockerCompat", True), ("virtualisation/oci-containers/backend", "podman"))
    assert not problems(podman)


def test_grafana_needs_a_key_of_its_own() -> None:
    grafana = nested("services/grafana/enable", value=True)
    assert [problem.kind for problem in problems(grafana)] == [Kind.MISSING, Kind.CONFLICT]
    assert [problem.kind for problem in problems(grafana, "25.11")] == [Kind.CONFLICT], "only Open WebUI's port"


@pytest.mark.parametrize(
    ("parts", "met"),
    [
        ([("services/llama-swap/enable", True), ("services/searx/enable", True)], False),
        ([("services/llama-swap/enable", True), ("services/llama-swap/port", 4000)], True),
        ([("services/litellm/port", 9100)], True),
        ([("services/litellm/port", 9100), ("services/litellm/host", "127.0.0.2")], False),
        ([("services/litellm/port", 9100), ("services/litellm/host", "0.0.0.0")], True),  # noqa: S104 - what a lab may say
        ([("services/litellm/port", 9100), ("services/litellm/enable", False)], False),
        ([(f"{CONTAINERS}/web/ports", ["127.0.0.1:9100:80"])], True),
        ([(f"{CONTAINERS}/web/ports", ["9100:80"])], True),
        ([(f"{CONTAINERS}/web/ports", ["192.0.2.1:9100:80"])], False),
        ([(f"{CONTAINERS}/web/ports", ["127.0.0.1:9100:80/udp"])], False),
        ([(f"{CONTAINERS}/web/ports", ["127.0.0.1:5432:5432"])], True),
        ([("services/postgresql/enable", True)], True),
        ([("services/tailscale/enable", True), ("services/tailscale/port", 4000)], False),
    ],
)
def test_two_services_on_one_port(parts: list[tuple[str, object]], met: bool) -> None:  # noqa: FBT001 - of a row
    """The good host has LiteLLM on 4000, Open WebUI on 3000, an exporter on 9100, containers on 5432 and 5433."""
    found = problems(joined(*parts))
    assert [problem.kind for problem in found] == [Kind.CONFLICT] * met
