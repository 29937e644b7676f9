"""Workloads on NixOS: what Nix evaluates of the modules is what the lab says, and what the release knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labctl.emit.nix import Ref
from labctl.gateways.builtin.sources import shipped
from labctl.targets.nixos import release
from labctl.targets.nixos.options import check
from labctl.targets.nixos.products import PRODUCTS, adapter
from labctl.workload import Native
from tests.resolve import labs
from tests.targets import nixos_labs as nixos

FULL: dict[str, Any] = {
    "gateway": {"engine": "litellm", "host": "box"},
    "services": {
        "open-webui": {"host": "box", "database": "postgres"},
        "postgres": {"host": "box"},
        "searxng": {"host": "box"},
        "monitoring": {"host": "box"},
        "phoenix": {"host": "box"},
    },
}


@pytest.fixture(scope="module", params=nixos.RELEASES)
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """The options of a host with something of everything, in each release."""
    release = str(request.param)
    data = nixos.lab(
        {"chat": nixos.ollama(0), "story": nixos.llama(1), "draw": {"model": "qwen", "engine": "vllm",
         "on": {"host": "box", "gpus": (2,)}, "vram": "16 GiB", "context": 4096}},
        nixos.box("RTX 3090", "RTX 3090", "RTX 3090", release=release), **FULL,
    )  # fmt: skip
    return release, nixos.options(data, tmp_path_factory.mktemp(f"flake-{release}"))


def test_nothing_is_refused_in_any_release(full: tuple[str, Any]) -> None:
    release, found = full
    assert list(check(found, release)) == []


def test_a_machine_stays_what_it_was_installed_as(full: tuple[str, Any]) -> None:
    """Whoever moves on to another release does not move this."""
    release, found = full
    assert found["system"]["stateVersion"] == ("25.11" if release == "25.11" else "26.05")


def test_every_product_has_the_module_that_nixos_has_for_it(full: tuple[str, Any]) -> None:
    services = full[1]["services"]
    enabled = {name for name, value in services.items() if isinstance(value, dict) and value.get("enable") is True}
    assert enabled >= {"grafana", "litellm", "llama-cpp", "ollama", "open-webui", "postgresql", "prometheus", "searx"}
    assert services["prometheus"]["alertmanager"]["enable"] is True
    assert services["prometheus"]["exporters"]["nvidia-gpu"]["enable"] is True
    assert sorted(full[1]["virtualisation"]["oci-containers"]["containers"]) == ["draw", "phoenix"]


def test_no_port_is_left_to_a_default(full: tuple[str, Any]) -> None:
    services = full[1]["services"]
    llama = services["llama-cpp"].get("settings", services["llama-cpp"])
    ports = [
        llama["port"], services["litellm"]["port"], services["ollama"]["port"], services["open-webui"]["port"],
        services["searx"]["settings"]["server"]["port"], services["grafana"]["settings"]["server"]["http_port"],
        services["postgresql"]["settings"]["port"], services["prometheus"]["port"],
        services["prometheus"]["alertmanager"]["port"], services["prometheus"]["exporters"]["nvidia-gpu"]["port"],
    ]  # fmt: skip
    assert len(set(ports)) == len(ports)


def test_what_only_neighbours_ask_listens_on_the_loopback_address(full: tuple[str, Any]) -> None:
    services = full[1]["services"]
    llama = services["llama-cpp"].get("settings", services["llama-cpp"])
    assert {llama["host"], services["ollama"]["host"], services["prometheus"]["listenAddress"]} == {"127.0.0.1"}
    assert services["searx"]["settings"]["server"]["bind_address"] == "127.0.0.1"
    assert {services["litellm"]["host"], services["open-webui"]["host"]} == {"192.0.2.20"}
    assert all(
        p.startswith("127.0.0.1:") for p in full[1]["virtualisation"]["oci-containers"]["containers"]["draw"]["ports"]
    )


def test_environments_are_strings(full: tuple[str, Any]) -> None:
    services = full[1]["services"]
    for values in (services["open-webui"]["environment"], services["ollama"]["environmentVariables"]):
        assert values
        assert all(isinstance(value, str) for value in values.values())
    assert services["open-webui"]["environment"]["ENABLE_SIGNUP"] == "False"


def test_ollama_is_told_how_to_drive_its_card_as_the_release_wants_it(full: tuple[str, Any]) -> None:
    release, found = full
    ollama = found["services"]["ollama"]
    if release == "25.11":
        assert (ollama["acceleration"], "package" in ollama) == ("cuda", False)
    else:
        assert (nixos.name_of(ollama["package"]), "acceleration" in ollama) == ("pkgs.ollama-cuda", False)
    assert ollama["loadModels"] == ["llama3.1:8b"]


def test_litellm_gets_its_settings_as_values_and_its_secrets_from_a_file(full: tuple[str, Any]) -> None:
    litellm = full[1]["services"]["litellm"]
    assert {m["model_name"] for m in litellm["settings"]["model_list"]} == {"tags", "llama", "qwen"}
    assert litellm["settings"]["general_settings"]["master_key"] == "os.environ/LITELLM_MASTER_KEY"
    assert ("package" in litellm) is (full[0] != "26.11")  # with what the callbacks import
    assert litellm["environmentFile"] == "/var/lib/labctl/test/secrets/gateway.env"


def test_the_databases_password_is_set_from_a_credential(full: tuple[str, Any]) -> None:
    services = full[1]["systemd"]["services"]
    assert services["test-postgres-password"]["serviceConfig"]["LoadCredential"] == [
        "password:/var/lib/labctl/test/secrets/postgres.password"
    ]
    assert "createdb --owner=litellm" in services["test-postgres-databases"]["script"]
    assert "test-postgres-databases.service" in services["open-webui"]["after"]


def test_the_cards_figures_keep_the_driver_that_is_loaded(full: tuple[str, Any]) -> None:
    assert full[1]["systemd"]["services"]["prometheus-nvidia-gpu-exporter"]["restartIfChanged"] is False


def test_open_webui_has_the_driver_of_its_database() -> None:
    with_database, without = (
        labs.rendered(nixos.lab({"chat": nixos.ollama(0)}, gateway=FULL["gateway"], services=services))
        for services in (FULL["services"], {"open-webui": {"host": "box"}})
    )
    driver = "old.optional-dependencies.postgres"
    for rendered, wanted in ((with_database, True), (without, False)):
        (services_nix,) = (f.content.decode() for f in nixos.files(rendered) if f.path.endswith("services.nix"))
        assert (driver in services_nix) is wanted


def test_who_needs_another_waits_for_it(full: tuple[str, Any]) -> None:
    unit = full[1]["systemd"]["services"]["open-webui"]
    assert {"litellm.service", "searx.service"} <= set(unit["wants"])
    assert "http://192.0.2.20:4000/health/liveliness" in unit["preStart"]
    assert unit["path"] == [Ref("pkgs.curl")]


def test_the_gateways_libraries_are_those_that_it_is_shipped_with() -> None:
    pinned = (line.partition("==")[0] for line in shipped("requirements.txt").splitlines())
    assert set(release.libraries("labctl")) == set(pinned)


def test_every_adapter_is_there() -> None:
    assert all(adapter(product) is not None for product in PRODUCTS)
    assert adapter("vllm") is None


@pytest.mark.parametrize("release", nixos.RELEASES)
@pytest.mark.parametrize("servers", [1, 2])
def test_arguments_of_llama_cpp_stay_exact(release: str, servers: int, tmp_path: Path) -> None:
    cards = ["RTX 3090"] * servers
    deployments = {f"chat{n}": nixos.llama(n, slots=2, chat_template="chatml") for n in range(servers)}
    data = nixos.lab(deployments, nixos.box(*cards, release=release))
    rendered = labs.rendered(data)
    (workload, *_) = rendered.workloads
    (native,) = [form for form in workload.forms if isinstance(form, Native)]
    found = nixos.options(data, tmp_path)
    args = native.args
    if release == "25.11":  # its llama.cpp has no --fit, and behaves as `--fit off` says
        args = tuple(" ".join(args).replace(" --fit off", "").split(" "))
    if servers == 1:
        assert _words(found["services"]["llama-cpp"]) == _pairs(args)
    else:
        unit = found["systemd"]["services"][f"llama-cpp-{workload.name}"]
        assert unit["serviceConfig"]["ExecStart"].endswith(" ".join(f'"{word}"' for word in args))


def _pairs(args: tuple[str, ...]) -> dict[str, str | None]:
    """Return flags with their values, as llama-server reads them."""
    return {
        word: after if after is not None and not after.startswith("--") else None
        for word, after in zip(args, (*args[1:], None), strict=True)
        if word.startswith("--")
    }


def _words(module: dict[str, Any]) -> dict[str, str | None]:
    """Return the flags that the module makes of its options (nixos/modules/services/misc/llama-cpp.nix)."""
    if "settings" in module:
        return {f"--{name}": None if value is True else str(value) for name, value in module["settings"].items()}
    own = ("--host", module["host"], "--port", str(module["port"]), "--model", module["model"])
    return _pairs((*own, *module["extraFlags"]))


def test_a_flag_that_the_module_cannot_say_makes_a_service_of_its_own(tmp_path: Path) -> None:
    found = nixos.options(nixos.lab({"chat": nixos.llama(0, args=("-sm", "none"))}), tmp_path)
    assert "llama-cpp" not in found.get("services", {})
    assert '"-sm" "none"' in found["systemd"]["services"]["llama-cpp-chat"]["serviceConfig"]["ExecStart"]


@pytest.mark.parametrize(("card", "package"), [("RX 7900 XTX", "pkgs.llama-cpp-vulkan"), (None, "pkgs.llama-cpp")])
def test_packages_follow_the_cards(card: str | None, package: str, tmp_path: Path) -> None:
    host = nixos.box(*([card] if card else []))
    where = {"host": "box", "gpus": (0,)} if card else {"host": "box"}
    found = nixos.options(nixos.lab({"chat": labs.llama(on=where)}, host), tmp_path)
    assert nixos.name_of(found["services"]["llama-cpp"]["package"]) == package


@pytest.mark.parametrize(("card", "wanted"), [("P106-100", ["6.1"]), ("RTX 3090", None)])
def test_cards_that_nixpkgs_leaves_out_are_asked_for(card: str, wanted: list[str] | None, tmp_path: Path) -> None:
    embed = {"model": "nomic", "engine": "llama.cpp", "task": "embed", "on": {"host": "box", "gpus": (0,)}}
    data = nixos.lab({"embed": {**embed, "context": 2048}}, nixos.box(card))
    found = nixos.options(data, tmp_path)["nixpkgs"]["config"]
    assert found.get("cudaCapabilities") == wanted


def test_a_licence_that_nixpkgs_asks_for_is_accepted(tmp_path: Path) -> None:
    for card, accepted in (("Tesla K80", {"acceptLicense": True}), ("GTX 1080 Ti", None)):
        data = nixos.lab({}, nixos.box(card), services={"grafana": {"host": "box"}})
        assert nixos.options(data, tmp_path / card.replace(" ", "-"))["nixpkgs"]["config"].get("nvidia") == accepted


def test_a_container_gets_its_cards_by_their_place_among_nvidias(tmp_path: Path) -> None:
    draw = {"model": "qwen", "engine": "vllm", "on": {"host": "box", "gpus": (2,)}, "vram": "16 GiB", "context": 4096}
    host = nixos.box("RX 7900 XTX", "RTX 3090", "RTX 3090")
    found = nixos.options(nixos.lab({"draw": draw}, host), tmp_path)
    container = found["virtualisation"]["oci-containers"]["containers"]["draw"]
    assert "--device=nvidia.com/gpu=1" in container["extraOptions"]
    described = "nvidia-container-toolkit-cdi-generator.service"
    unit = found["systemd"]["services"]["docker-draw"]
    assert described in unit["wants"]
    assert described in unit["after"]
    assert found["virtualisation"]["oci-containers"]["backend"] == "docker"


def test_a_containers_secrets_are_read_by_systemd_and_handed_on(tmp_path: Path) -> None:
    draw = {"model": "qwen", "engine": "vllm", "on": {"host": "box", "gpus": (0,)}, "vram": "16 GiB", "context": 4096}
    data = nixos.lab({"draw": {**draw, "env": {"HF_TOKEN": {"secret": "HUB"}, "PLAIN": "seen"}}})
    found = nixos.options(data, tmp_path)
    container = found["virtualisation"]["oci-containers"]["containers"]["draw"]
    assert container["environment"]["PLAIN"] == "seen"
    assert "--env=HF_TOKEN" in container["extraOptions"]
    unit = found["systemd"]["services"]["docker-draw"]
    assert unit["serviceConfig"] == {"RestartSec": 10, "EnvironmentFile": "/var/lib/labctl/test/secrets/draw.env"}


def test_several_ollamas_are_services_of_their_own_whose_models_labctl_can_look_for(tmp_path: Path) -> None:
    data = nixos.lab({"one": nixos.ollama(0), "two": nixos.ollama(1)}, nixos.box("RTX 3090", "RTX 3090"))
    found = nixos.options(data, tmp_path)
    assert "ollama" not in found.get("services", {})
    assert Ref("pkgs.ollama-cuda") in found["environment"]["systemPackages"]
    for name in ("one", "two"):
        unit = found["systemd"]["services"][f"ollama-{name}"]
        assert unit["path"] == [Ref("pkgs.ollama-cuda")]
        assert '"llama3.1:8b"' in unit["serviceConfig"]["ExecStart"]


def test_services_run_as_the_hosts_user(tmp_path: Path) -> None:
    data = nixos.lab({"chat": nixos.llama(0)}, nixos.box("RTX 3090") | {"user": "lab"})
    found = nixos.options(data, tmp_path)
    unit = found["systemd"]["services"]["llama-cpp-chat"]["serviceConfig"]
    assert (unit["User"], "DynamicUser" in unit) == ("lab", False)
    assert found["users"]["users"]["lab"] == {"isSystemUser": True, "group": "lab"}


def test_an_image_that_the_lab_names_is_what_runs(tmp_path: Path) -> None:
    data = nixos.lab(
        {"chat": nixos.ollama(0, image="registry.lan/ollama:1")},
        gateway={"engine": "litellm", "host": "box"},
        services={"open-webui": {"host": "box", "image": "registry.lan/webui:1"}},
    )
    found = nixos.options(data, tmp_path)
    containers = found["virtualisation"]["oci-containers"]["containers"]
    assert {name: c["image"].partition("/")[2] for name, c in containers.items()} == {
        "chat": "ollama:1", "open-webui": "webui:1",
    }  # fmt: skip
    assert not {"ollama", "open-webui"} & set(found["services"])


def test_what_is_started_on_demand_does_not_start_with_the_machine(tmp_path: Path) -> None:
    draw = {"model": "qwen", "engine": "vllm", "on": {"host": "box", "gpus": (2,)}, "vram": "16 GiB", "context": 4096}
    deployments = {
        "chat": nixos.ollama(0, start="on-demand"),
        "story": nixos.llama(1, start="on-demand"),
        "draw": {**draw, "start": "on-demand"},
        "own": {"engine": "command", "program": "/run/current-system/sw/bin/serve", "on": {"host": "box"},
                "start": "on-demand"},
    }  # fmt: skip
    data = nixos.lab(deployments, nixos.box("RTX 3090", "RTX 3090", "RTX 3090"))
    units = (found := nixos.options(data, tmp_path))["systemd"]["services"]
    assert (
        units["ollama"]["wantedBy"] == units["ollama-model-loader"]["wantedBy"] == units["llama-cpp"]["wantedBy"] == []
    )
    assert "wantedBy" not in units["test-own"]
    assert found["virtualisation"]["oci-containers"]["containers"]["draw"]["autoStart"] is False


def test_the_gateways_servers_can_be_started_by_it_and_nothing_else(tmp_path: Path) -> None:
    deployments = {"story": nixos.llama(0, start="on-demand"), "tale": nixos.llama(0, start="on-demand")}
    data = nixos.lab(
        deployments, gateway={"engine": "builtin", "host": "box"}, groups={"card": {"swap": ("story", "tale")}}
    )
    found = nixos.options(data, tmp_path)
    rule = found["security"]["polkit"]["extraConfig"]
    for name in ("story", "tale"):
        unit = found["systemd"]["services"][f"llama-cpp-{name}"]
        assert unit["aliases"] == [f"labctl-test-{name}.service"]
        assert f'"llama-cpp-{name}.service"' in rule
    assert 'subject.user == "test-gateway"' in rule
    command = found["systemd"]["services"]["test-gateway"]["serviceConfig"]["ExecStart"]
    assert "gateway.py" in command


@pytest.mark.parametrize("lab", ["a-lab-whose-name-is-as-long-as-names-get", "3rd"])
def test_the_rule_knows_the_user_whatever_the_lab_is_called(lab: str, tmp_path: Path) -> None:
    data = nixos.lab({"story": nixos.llama(0, start="on-demand")}, gateway={"engine": "builtin", "host": "box"})
    found = nixos.options({**data, "lab": lab}, tmp_path)
    user = found["systemd"]["services"][f"{lab}-gateway"]["serviceConfig"]["User"]
    assert len(user) <= 31
    assert user[0].isalpha()
    assert f'subject.user == "{user}"' in found["security"]["polkit"]["extraConfig"]
