"""A host's definitions against the table of NixOS options: what passes, and what each kind of mistake is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.emit.nix import Call, Lambda, Noted, PathRef, Ref, Text
from labctl.targets.nixos.options import Kind, Problem, check, merged, table, types

GOOD: dict[str, Any] = {
    "imports": [PathRef("./gpu.nix")],
    "networking": {"hostName": "gpu-lab", "firewall": {"allowedTCPPorts": [22], "checkReversePath": "loose"}},
    "system": {"stateVersion": "26.05"},
    "nixpkgs": {"hostPlatform": "x86_64-linux", "config": {"allowUnfreePredicate": Lambda("pkg", body=True)}},
    "boot": {"loader": {"systemd-boot": {"enable": True}}},
    "fileSystems": {"/": {"device": "/dev/disk/by-label/nixos", "fsType": "ext4"}},
    "hardware": {
        "nvidia": {"open": Noted(value=True, comment="Turing"), "package": Ref("config.boot.kernelPackages.nvidia_x11")}
    },
    "services": {
        "xserver": {"videoDrivers": ["nvidia"]},
        "ollama": {"enable": True, "package": Ref("pkgs.ollama-cuda"), "environmentVariables": {"A": "1"}},
        "litellm": {"enable": True, "port": 4000, "environmentFile": "/var/lib/labctl/l.env", "settings": {"x": [1]}},
        "open-webui": {"enable": Call("lib.mkDefault", *[True]), "port": 3000, "environmentFile": None},
        "prometheus": {
            "enable": True,
            "scrapeConfigs": [{"job_name": "a", "static_configs": [{"targets": ["127.0.0.1:9100"]}]}],
            "exporters": {"node": {"enable": True, "listenAddress": "127.0.0.1"}},
        },
    },
    "systemd": {
        "services": {
            "chat": {
                "environment": {"HOME": "/var/lib/chat", "OLD": None},
                "serviceConfig": {
                    "ExecStart": Text(Ref("pkgs.llama-cpp"), "/bin/llama-server"),
                    "DeviceAllow": ["char-drm"],
                    "NoNewPrivileges": True,
                    "EnvironmentFile": None,
                },
            }
        },
        "tmpfiles": {"rules": Call("lib.mkAfter", ["d /srv 0755 root root -"])},
    },
    "virtualisation": {
        "oci-containers": {
            "backend": "docker",
            "containers": {
                "db": {"image": "postgres:17", "ports": ["127.0.0.1:5432:5432"], "environmentFiles": ["/run/db.env"]},
                "web": {"image": "web:1", "dependsOn": ["db"], "ports": ["127.0.0.1:5433:5432"]},
            },
        }
    },
}


def problems(more: Mapping[str, Any], release: str = "26.05") -> list[Problem]:
    return list(check(merged([GOOD, more]), release))


def nested(path: str, value: object) -> dict[str, Any]:
    """Return the value at a path with ``/`` between its attributes."""
    for name in reversed(path.split("/")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("release", ["25.11", "26.05", "26.11"])
def test_a_good_host(release: str) -> None:
    assert not problems({}, release)


SERVICE = "systemd/services/chat"
CONTAINER = "virtualisation/oci-containers/containers/web"

REFUSED: list[tuple[str, object, Kind, str]] = [
    ("services/litellm/hosts", "127.0.0.1", Kind.UNKNOWN, "services.litellm.host"),
    ("servces/litellm/host", "127.0.0.1", Kind.UNKNOWN, "services"),
    ("services/prometheuss", {"enable": True}, Kind.UNKNOWN, "services.prometheus"),
    ("services/jellyfin/enable", True, Kind.UNCHECKED, "See that"),
    ("programs/zsh/enable", True, Kind.UNCHECKED, "See that"),
    ("powersave", True, Kind.UNCHECKED, "See that"),
    ("services/prometheus/exporters/dcgm/enable", True, Kind.UNKNOWN, ""),
    ("networking/firewall/allowedTCPPort", [22], Kind.UNKNOWN, "allowedTCPPorts"),
    (f"{SERVICE}/serviceconfig", {}, Kind.UNKNOWN, "serviceConfig"),
    (f"{CONTAINER}/enviroment", {}, Kind.UNKNOWN, "environment"),
    ("services/ollama/acceleration", "cuda", Kind.RELEASE, "pkgs.ollama-cuda"),
    ("services/ollama/modelsDir", "/srv", Kind.RELEASE, "services.ollama.models"),
    ("services/llama-cpp/settings", {"port": 8081}, Kind.RELEASE, "extraFlags"),
    ("hardware/opengl/enable", True, Kind.RELEASE, "hardware.graphics.enable"),
    ("services/openssh/permitRootLogin", "no", Kind.RELEASE, "settings.PermitRootLogin"),
    ("services/litellm/port", "4000", Kind.TYPE, ""),
    ("services/litellm/port", 70000, Kind.TYPE, ""),
    ("services/litellm", "on", Kind.TYPE, "enable"),
    ("services/open-webui/environment", {"A": True}, Kind.TYPE, ""),
    ("services/ollama/package", "ollama", Kind.TYPE, ""),
    ("services/ollama/host", Ref("pkgs.ollama"), Kind.TYPE, ""),
    ("services/prometheus/scrapeConfigs", [{"job_name": "b", "scheme": "ftp"}], Kind.TYPE, ""),
    ("services/prometheus/exporters/node/enabledCollectors", "systemd", Kind.TYPE, ""),
    ("virtualisation/oci-containers/backend", "rkt", Kind.TYPE, ""),
    (f"{CONTAINER}/cmd", ["a", 1], Kind.TYPE, ""),
    ("networking/hostName", "gpu.lab", Kind.TYPE, ""),
    ("networking/firewall/allowedTCPPorts", [22, "23"], Kind.TYPE, ""),
    (f"{SERVICE}/environment", {"A": 1}, Kind.TYPE, ""),
    ("services/openssh/settings/AllowUsers", ["lab", 1], Kind.TYPE, ""),
    ("networking/hosts", {"192.0.2.1": ["a", True]}, Kind.TYPE, ""),
    ("environment/pathsToLink", Call("lib.mkMerge", [["/share"], [1]]), Kind.TYPE, ""),
    (f"{SERVICE}/serviceConfig", {"A": {"B": 1}}, Kind.TYPE, ""),
    ("services/prometheus/scrapeConfigs", [{"scheme": "http"}], Kind.MISSING, ""),
    ("virtualisation/oci-containers/containers/new", {"cmd": []}, Kind.MISSING, ""),
    ("services/litellm/environmentFile", PathRef("./secret.env"), Kind.SECRET, "as text"),
    ("services/litellm/environmentFile", "/nix/store/x-secret.env", Kind.SECRET, "as text"),
    ("services/litellm/environmentFile", Text(PathRef("./files"), "/secret.env"), Kind.SECRET, "as text"),
    ("services/litellm/environmentFile", Call("pkgs.writeText", "secret.env", "KEY=1"), Kind.SECRET, "as text"),
    ("services/litellm/environmentFile", Text(Ref("pkgs.secrets"), "/secret.env"), Kind.SECRET, "as text"),
    ("services/litellm/environmentFile", Text("/run/", PathRef("./secret.env")), Kind.SECRET, "as text"),
    (f"{CONTAINER}/environmentFiles", [PathRef("./secret.env")], Kind.SECRET, "as text"),
    ("services/k3s/token", "hunter2", Kind.SECRET, "tokenFile"),
    ("users/users/root/password", "hunter2", Kind.SECRET, "hashedPasswordFile"),
    ("services/grafana/settings/security/admin_password", "hunter2", Kind.SECRET, ""),
    ("services/searx/settings/server/secret_key", "hunter2", Kind.SECRET, ""),
]


@pytest.mark.parametrize(("path", "value", "kind", "remedy"), REFUSED, ids=[f"{r[0]} {r[2]}" for r in REFUSED])
def test_what_is_refused(path: str, value: object, kind: Kind, remedy: str) -> None:
    found = problems(nested(path, value))
    assert [problem.kind for problem in found] == [kind]
    assert found[0].path[: len(path.split("/"))] == tuple(path.split("/")) or kind in {
        Kind.UNKNOWN,
        Kind.UNCHECKED,
        Kind.MISSING,
    }
    assert remedy in found[0].remedy
    assert found[0].remedy


ALLOWED: list[tuple[str, object, str]] = [
    ("services/ollama/acceleration", "cuda", "25.11"),
    ("services/ollama/acceleration", False, "25.11"),
    ("services/ollama/models", "/srv/ollama", "26.05"),
    ("services/ollama/modelsDir", "/srv/ollama", "26.11"),
    ("services/llama-cpp/settings", {"n-gpu-layers": 99, "port": 8081, "jinja": True}, "26.11"),
    ("services/litellm/environmentFile", Ref("config.sops.secrets", "lab/key", "path"), "26.05"),
    ("services/litellm/environmentFile", Text(Ref("config.age.secretsDir"), "/key"), "26.05"),
    ("services/grafana/settings/security/admin_password", "$__file{/run/grafana}", "26.05"),
    ("services/k3s/tokenFile", Call("lib.mkForce", "/run/token"), "26.05"),
    ("services/prometheus/ruleFiles", [PathRef("./files/rules.yaml")], "26.05"),
    ("services/prometheus/checkConfig", "syntax-only", "26.05"),
    ("environment/systemPackages", [Ref("pkgs.git")], "26.05"),
    ("users/users/lab/openssh/authorizedKeys/keys", Call("lib.mkMerge", [["a"], ["b"]]), "26.05"),
    ("nixpkgs/overlays", [Lambda("final", {})], "26.05"),
    ("disko/devices/disk/main/type", "disk", "26.05"),
]


@pytest.mark.parametrize(("path", "value", "release"), ALLOWED, ids=[f"{r[0]} {r[2]}" for r in ALLOWED])
def test_what_is_allowed(path: str, value: object, release: str) -> None:
    user = {"users": {"users": {"lab": {"isNormalUser": True}}}}
    assert not [p for p in problems(merged([nested(path, value), user]), release) if p.kind is not Kind.CONFLICT]


@pytest.mark.parametrize("option", ["networking", "system", "nixpkgs", "fileSystems", "boot"])
def test_what_every_host_needs(option: str) -> None:
    found = list(check({key: value for key, value in GOOD.items() if key != option}, "26.05"))
    assert {(problem.kind, problem.path[0]) for problem in found} == {(Kind.MISSING, option)}


def test_disks_that_another_file_defines_are_not_missed() -> None:
    rest = {key: value for key, value in GOOD.items() if key not in {"fileSystems", "boot"}}
    assert [problem.path for problem in check(rest, "26.05")] == [("fileSystems", "/"), ("boot", "loader")]
    assert not list(check(rest, "26.05", whole=False))


def test_every_row_is_well_formed() -> None:
    for option in table.options():
        assert str(option.type)
        assert option.since in {"", "26.05", "26.11"}, option.path
        assert option.until in {"", "25.11", "26.05"}, option.path
        forbidden = option.type.name in {"never", "secretValue"}
        assert option.remedy or not (forbidden or option.until), option.path


WORDS = sorted({name for option in table.options() for name in option.path} | {"x", "0"})
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(Ref("pkgs.x")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(table.options()), VALUES, st.sampled_from(["25.11", "26.05", "26.11"]))
def test_any_value_gets_an_answer(option: table.Option, value: object, release: str) -> None:
    """Whatever stands at an option's place is taken, or refused with a remedy: never an exception."""
    names = ["0" if name == table.ITEM else name for name in option.path]
    before = problems({}, release)
    for problem in set(problems(nested("/".join(names), value), release)) - set(before):
        assert problem.message
        assert problem.remedy


@pytest.mark.parametrize("text", ["strr", "listOf strr", "str str", "nullOr (str) str", "listOf (str"])
def test_types_that_are_none(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        types.parse(text)
