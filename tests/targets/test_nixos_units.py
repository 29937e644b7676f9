"""Secrets and units of a NixOS host: nothing secret is in the store, and each unit answers for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labctl.artefact import SYSTEM, Format, Manager
from labctl.emit.nix import Ref
from labctl.plan.diff import diff
from labctl.plan.model import Kind
from labctl.plan.narrow import narrow
from labctl.plan.observed import Observed, SeenHost
from labctl.render import Rendered
from labctl.targets.nixos.folder import SYSTEM_UNIT
from tests.resolve import labs
from tests.targets import nixos_labs as nixos

SECTIONS: dict[str, Any] = {
    "gateway": {"engine": "litellm", "host": "box"},
    "services": {"open-webui": {"host": "box"}, "prometheus": {"host": "box"}, "grafana": {"host": "box"}},
}
STATE = "var/lib/labctl/test/secrets"


def whole(**machine: Any) -> dict[str, Any]:
    return nixos.lab({"chat": nixos.ollama(0)}, nixos.box("RTX 3090", **machine), **SECTIONS)


def definition(data: dict[str, Any], folder: Path, *path: str) -> Any:
    found: Any = nixos.options(data, folder)
    for name in path:
        found = found[name]
    return found


def test_labctl_brings_secrets_outside_the_store() -> None:
    found = nixos.secrets(labs.rendered(whole()))
    assert sorted(found) == [
        f"{STATE}/gateway.env", f"{STATE}/grafana.env", f"{STATE}/open-webui.env", f"{STATE}/prometheus.gateway-key",
    ]  # fmt: skip
    assert {file.mode for file in found.values()} == {0o600}
    key = found[f"{STATE}/prometheus.gateway-key"]
    assert (key.format, len(key.entries)) == (Format.RAW, 1)


def test_whoever_is_applied_alone_brings_the_whole_flake() -> None:
    """The system is built from all of it: what is applied of one workload must not be built from half of another's."""
    tree = labs.rendered(whole()).tree
    plan = diff(tree, Observed({"box": SeenHost(host="box")}), {})
    alone = narrow(plan, tree, ["prometheus"])
    assert {c.name for c in alone.changes if c.kind is Kind.UNIT} == {SYSTEM_UNIT, "prometheus"}
    flake = {file.path for file in tree.files() if "/flake/" in file.path}
    assert flake == {c.name for c in alone.changes if c.kind is Kind.FILE}


def test_modules_name_secrets_by_strings(tmp_path: Path) -> None:
    webui = definition(whole(), tmp_path, "services", "open-webui")
    assert webui["environmentFile"] == f"/{STATE}/open-webui.env"
    assert "WEBUI_SECRET_KEY" not in webui["environment"]


def test_grafana_reads_its_secrets_when_it_starts(tmp_path: Path) -> None:
    security = definition(whole(), tmp_path, "services", "grafana", "settings", "security")
    assert security == {
        "admin_password": "$__env{GF_SECURITY_ADMIN_PASSWORD}",
        "secret_key": "$__file{/var/lib/grafana/labctl-secret-key}",
    }


def test_a_secret_key_of_grafanas_own_is_taken_where_lab_yaml_names_one(tmp_path: Path) -> None:
    data = whole()
    data["services"] = {"grafana": {"host": "box", "secret_env": {"GF_SECURITY_SECRET_KEY": "GRAFANA_KEY"}}}
    found = nixos.options(data, tmp_path)
    assert found["services"]["grafana"]["settings"]["security"]["secret_key"] == "$__env{GF_SECURITY_SECRET_KEY}"
    assert "preStart" not in found["systemd"]["services"]["grafana"]


def test_sops_brings_them_where_it_is_asked_to(tmp_path: Path) -> None:
    data = whole(secrets="sops-nix")
    assert not nixos.secrets(labs.rendered(data))
    found = nixos.options(data, tmp_path)
    assert found["services"]["open-webui"]["environmentFile"] == Ref("config.sops.templates.open-webui.env.path")
    assert set(found["sops"]["secrets"]) >= {"LITELLM_MASTER_KEY", "OPEN_WEBUI_SECRET_KEY"}
    flake = (tmp_path / "flake.nix").read_text(encoding="utf-8")
    assert "sops-nix.nixosModules.sops" in flake


def test_agenix_brings_them_where_it_is_asked_to(tmp_path: Path) -> None:
    data = whole(secrets="agenix", secrets_folder="/srv/agenix")
    assert not nixos.secrets(labs.rendered(data))
    kept = definition(data, tmp_path, "age", "secrets")
    assert kept["open-webui.env"] == {"file": "/srv/agenix/open-webui.env.age"}


def test_units_are_those_of_systemd_and_start_after_the_system() -> None:
    rendered = labs.rendered(whole())
    units = {u.name: u for u in rendered.tree.units}
    assert {name: u.id for name, u in units.items()} == {
        SYSTEM_UNIT: SYSTEM, "chat": "ollama.service", "gateway": "litellm.service", "grafana": "grafana.service",
        "open-webui": "open-webui.service", "prometheus": "prometheus.service",
    }  # fmt: skip
    assert {u.manager for u in units.values()} == {Manager.NIXOS}
    assert {u.project for u in units.values()} == {"etc/labctl/test/flake/flake.nix"}
    assert units[SYSTEM_UNIT].after == ()
    assert all(SYSTEM_UNIT in u.after for name, u in units.items() if name != SYSTEM_UNIT)
    assert "gateway" in units["open-webui"].after
    assert units["gateway"].check == "http://192.0.2.20:4000/health/liveliness"


def fingerprints(rendered: Rendered) -> dict[str, str]:
    return {u.name: u.fingerprint for u in rendered.tree.units}


def test_a_change_restarts_what_it_changes_and_the_system() -> None:
    data = whole()
    before = fingerprints(labs.rendered(data))
    data["services"] = {**SECTIONS["services"], "open-webui": {"host": "box", "env": {"LOG_LEVEL": "DEBUG"}}}
    after = fingerprints(labs.rendered(data))
    assert {name for name in after if after[name] != before[name]} == {"open-webui", SYSTEM_UNIT}


def test_a_file_that_goes_into_the_store_counts_for_its_unit() -> None:
    data = whole()
    before = fingerprints(labs.rendered(data))
    data["services"] = {**SECTIONS["services"], "prometheus": {"host": "box", "slow": "30 s"}}
    after = fingerprints(labs.rendered(data))
    assert after["prometheus"] != before["prometheus"]
    assert after["open-webui"] == before["open-webui"]


def test_rendering_is_the_same_every_time() -> None:
    assert labs.rendered(whole()).tree.digest() == labs.rendered(whole()).tree.digest()


def test_options_of_ones_own_are_laid_over(tmp_path: Path) -> None:
    data = whole(options={"services.open-webui.openFirewall": True, "time.timeZone": "Europe/Berlin"})
    data["services"] = {"open-webui": {"host": "box", "extra": {"nixos": {"services.open-webui.port": 9090}}}}
    found = nixos.options(data, tmp_path)
    assert found["time"]["timeZone"] == "Europe/Berlin"
    assert (found["services"]["open-webui"]["port"], found["services"]["open-webui"]["openFirewall"]) == (9090, True)


def test_modules_of_ones_own_do_not_take_the_place_of_labctls() -> None:
    found = labs.written(whole(options={"imports": ("/etc/nixos/mine.nix",)}))
    (problem,) = [d for d in found.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB230", ("hosts", "box", "nixos", "options"))


@pytest.mark.parametrize(("given", "wanted"), [(None, "nixos-26.05"), ("a" * 40, "a" * 40)])
def test_the_flake_is_pinned(given: str | None, wanted: str) -> None:
    data = whole(**({"revision": given} if given else {}))
    (flake,) = [f for f in nixos.files(labs.rendered(data)) if f.path.endswith("flake.nix")]
    assert f'"github:NixOS/nixpkgs/{wanted}"' in flake.content.decode()


def test_how_the_host_gets_a_new_system() -> None:
    (root,) = labs.rendered(whole(confirm="2 min", build="root@forge")).tree.roots.values()
    assert root.activation is not None
    assert (root.activation.confirm, root.activation.build) == (120, "root@forge")
    assert root.managers == (Manager.NIXOS,)


@pytest.mark.parametrize(
    ("bind", "machine", "waits"),
    [
        ("127.0.0.1", {}, []),
        ("0.0.0.0", {"interface": "eno1"}, []),  # noqa: S104 - nothing is bound
        ("192.0.2.20", {}, ["network-online.target"]),
        ("100.64.0.5", {}, ["network-online.target", "tailscaled.service"]),
        ("100.64.0.5", {"tailscale": "KEY"}, ["network-online.target", "tailscaled-autoconnect.service"]),
    ],
)
def test_who_is_bound_to_an_address_waits_for_it(
    bind: str, machine: dict[str, Any], waits: list[str], tmp_path: Path
) -> None:
    host = nixos.box("RTX 3090", **machine) | {"bind": bind}
    found = nixos.options(nixos.lab({}, host, services={"grafana": {"host": "box"}}), tmp_path)
    unit = found["systemd"]["services"]["grafana"]
    assert unit.get("after", []) == waits
    assert unit.get("wants", []) == waits[:1]
