"""Compose files, judged by the real ``docker compose config``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml as pyyaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labctl.artefact import File, Image, Manager, ModelFile, SecretFile, Tree
from labctl.workload import Accelerator, ConfigFile, Container, GpuAccess, Health, Mount, Port, Probe, Start, Workload
from tests.targets import samples
from tests.tools import compose

CONFIG = "opt/labctl/lab/compose.yaml"


def services(tree: Tree) -> dict[str, Any]:
    found: dict[str, Any] = pyyaml.safe_load(samples.text(tree, "compose.yaml"))["services"]
    return found


def service(workload: Workload, **host: Any) -> dict[str, Any]:
    found: dict[str, Any] = services(samples.render(samples.host(**host), workload))[workload.name]
    return found


def resolved(tree: Tree, folder: Path, *arguments: str) -> dict[str, Any]:
    """Return what compose itself makes of the file, with every profile on."""
    samples.write(tree, folder)
    found: dict[str, Any] = json.loads(compose.run(folder / CONFIG, "--format", "json", *arguments))
    return found


@pytest.fixture
def whole() -> Tree:
    host = samples.host()
    return samples.render(host, samples.limited(host), samples.server(host), samples.gateway(host))


def test_compose_accepts_the_whole_file(whole: Tree, tmp_path: Path) -> None:
    samples.write(whole, tmp_path)
    compose.run(tmp_path / CONFIG, "--quiet")


def test_compose_reads_back_every_awkward_value(whole: Tree, tmp_path: Path) -> None:
    """``config`` doubles each ``$`` again in its output."""
    read = resolved(whole, tmp_path)["services"]
    assert read["chat"]["command"][-1].replace("$$", "$") == samples.AWKWARD
    variables = read["gateway"]["environment"]
    assert variables["PLAIN"].replace("$$", "$") == samples.AWKWARD
    assert variables["DATABASE_URL"] == "postgresql://lab:secret@db/lab"


TEXTS = st.one_of(
    st.text(st.sampled_from("ab \n\t'\"\\$%;#{}[]:,&*!|>-?@`0.=é😀\u2028\x85"), max_size=12),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)


@settings(max_examples=4, deadline=None)
@given(st.lists(TEXTS, min_size=150, max_size=150))
@example(
    ["on", "12:30", "0x1f", "1e3", "~", "", "${A:-b}", "$$", "a\n b\n", "{config}", "2026-11-20", "<<", "=", "1_0"]
)
def test_any_argument_and_variable_comes_back(texts: list[str]) -> None:
    host = samples.host()
    form = Container(image="example.org/a:1", args=tuple(texts), env={f"V{n}": text for n, text in enumerate(texts)})
    with compose.folder() as folder:
        read = resolved(samples.render(host, samples.server(host, forms=(form,), gpu=None)), folder)["services"]["chat"]
    assert [word.replace("$$", "$") for word in read["command"]] == texts
    assert [read["environment"][f"V{n}"].replace("$$", "$") for n in range(len(texts))] == texts


def test_what_is_created_on_demand_is_not_started_with_the_lab(whole: Tree, tmp_path: Path) -> None:
    assert set(resolved(whole, tmp_path)["services"]) == {"chat", "gateway"}
    limited = services(whole)["limited"]
    assert (limited["profiles"], limited["restart"]) == (["on-demand"], "no")


def test_a_service_waits_for_its_neighbours_health(whole: Tree) -> None:
    assert services(whole)["gateway"]["depends_on"] == {"chat": {"condition": "service_healthy"}}


def test_nobody_waits_for_health_that_cannot_be_asked_inside(tmp_path: Path) -> None:
    host = samples.host()
    blind = Container(image="example.org/blind:1", probe=Probe.NONE)
    tree = samples.render(host, samples.server(host, forms=(blind,)), samples.gateway(host))
    assert services(tree)["chat"]["healthcheck"] == {"disable": True}
    assert services(tree)["gateway"]["depends_on"] == {"chat": {"condition": "service_started"}}
    assert samples.unit(tree, "chat").check == "http://127.0.0.1:8081/health"
    resolved(tree, tmp_path)


def test_nobody_depends_on_what_compose_does_not_start(tmp_path: Path) -> None:
    host = samples.host()
    tree = samples.render(host, samples.limited(host), samples.gateway(host, after=("limited", "elsewhere")))
    assert "depends_on" not in services(tree)["gateway"]
    resolved(tree, tmp_path)


def test_limits(whole: Tree) -> None:
    limited = services(whole)["limited"]
    assert limited["deploy"]["resources"]["limits"] == {"memory": "3g", "cpus": "1.5"}
    assert limited["memswap_limit"] == "4g"
    assert limited["shm_size"] == "2g"
    assert limited["ulimits"] == {"memlock": {"soft": -1, "hard": -1}}
    assert limited["pull_policy"] == "never"
    assert "init" not in limited


def test_an_image_is_built_once(whole: Tree) -> None:
    assert whole.images == (
        Image(
            host="box", reference="labctl/own:1", context="opt/labctl/lab/images/own", origin=("deployments", "limited")
        ),
    )
    assert samples.text(whole, "images/own/Dockerfile") == "FROM scratch\n"
    host = samples.host()
    twice = samples.render(host, samples.limited(host), dataclasses.replace(samples.limited(host), name="second"))
    assert len(twice.images) == 1


def test_data_survives_a_renamed_folder(whole: Tree) -> None:
    project = pyyaml.safe_load(samples.text(whole, "compose.yaml"))
    assert project["volumes"] == {"gateway-data": {"name": "lab_gateway-data"}}
    assert project["name"] == "lab"


def test_what_is_only_read_must_exist_and_stays_unchanged() -> None:
    host = samples.host()
    mounts = service(samples.server(host))["volumes"]
    assert mounts == [
        {
            "type": "bind",
            "source": "/var/lib/labctl/models",
            "target": "/models",
            "read_only": True,
            "bind": {"create_host_path": False},
        }
    ]


def test_secrets_are_in_their_own_file_only(whole: Tree) -> None:
    (secret,) = [a for a in whole.artefacts if isinstance(a, SecretFile)]
    assert (secret.path, secret.mode, list(secret.entries)) == (
        "opt/labctl/lab/secrets/gateway.env",
        0o600,
        ["DATABASE_URL"],
    )
    assert services(whole)["gateway"]["env_file"] == ["./secrets/gateway.env"]
    assert "DATABASE_URL" not in samples.text(whole, "compose.yaml")


def test_units(whole: Tree) -> None:
    chat = samples.unit(whole, "chat")
    assert (chat.manager, chat.id, chat.project) == (Manager.COMPOSE, "chat", CONFIG)
    assert chat.files == (f"var/lib/labctl/models/{samples.MODEL}",)
    gateway = samples.unit(whole, "gateway")
    assert gateway.files == ("opt/labctl/lab/gateway/config.yaml", "opt/labctl/lab/secrets/gateway.env")
    assert gateway.check == "http://127.0.0.1:4000/health/liveliness"
    assert gateway.after == ("chat",)
    assert any(isinstance(a, ModelFile) for a in whole.artefacts)
    assert whole.roots["box"].managers == (Manager.COMPOSE,)


def test_an_image_is_pulled_before_unless_it_is_built_or_extra_says_otherwise() -> None:
    host = samples.host()

    def image(**changes: Any) -> str | None:
        return samples.unit(samples.render(host, samples.server(host, **changes)), "chat").image

    assert image() == "example.org/llama.cpp:server-cuda-b1"
    assert image(extra={"compose": {"image": "own:2"}}) == "own:2"
    assert image(extra={"compose": {"pull_policy": "always"}}) is None
    assert image(extra={"compose": {"build": "."}}) is None
    whole = samples.render(host, samples.limited(host))
    assert [u.image for u in whole.units if u.name != "gpu-power"] == [None]


def test_a_server_has_time_to_end_and_a_database_more() -> None:
    host = samples.host()
    chat = samples.server(host)
    assert service(chat)["stop_grace_period"] == "30s"
    form = chat.forms[0]
    assert isinstance(form, Container)
    keeps = dataclasses.replace(form, mounts=(Mount(source="data", target="/data", volume=True),))
    assert service(dataclasses.replace(chat, forms=(keeps,)))["stop_grace_period"] == "120s"


def test_a_port_inside_the_network_is_not_published_and_cannot_be_asked() -> None:
    host = samples.host()
    inside = samples.server(host, ports=(Port(name="http", listen=8080, published=None),))
    tree = samples.render(host, inside)
    assert "ports" not in services(tree)["chat"]
    assert samples.unit(tree, "chat").check is None


def test_addresses_of_both_families(tmp_path: Path) -> None:
    host = samples.host()
    ports = (
        Port(name="http", listen=8080, published=8081, bind="::1"),
        Port(name="grpc", listen=8090, published=8091, bind="10.0.0.5"),
    )
    tree = samples.render(host, samples.server(host, ports=ports))
    assert services(tree)["chat"]["ports"] == ["[::1]:8081:8080", "10.0.0.5:8091:8090"]
    assert samples.unit(tree, "chat").check == "http://[::1]:8081/health"
    read = resolved(tree, tmp_path)["services"]["chat"]["ports"]
    assert [(port["host_ip"], port["published"], port["target"]) for port in read] == [
        ("::1", "8081", 8080),
        ("10.0.0.5", "8091", 8090),
    ]


def test_nvidia_cards_by_uuid_and_by_position(tmp_path: Path) -> None:
    known, unknown = samples.host(), samples.host(uuids=False)
    device = {"driver": "nvidia", "device_ids": [samples.UUIDS[0]], "capabilities": ["gpu"]}
    chat = service(samples.server(known))
    assert chat["deploy"]["resources"]["reservations"]["devices"] == [device]
    assert chat["environment"] == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert set(chat["labels"]) == {"labctl.lab", "labctl.workload", "labctl.fingerprint"}
    chat = service(samples.server(unknown), uuids=False)
    assert chat["deploy"]["resources"]["reservations"]["devices"] == [device | {"device_ids": ["0"]}]
    resolved(samples.render(unknown, samples.server(unknown)), tmp_path)


def test_an_order_of_cards_that_is_not_the_buses_order_is_kept() -> None:
    host = samples.host()
    workload = samples.server(host, gpu=samples.claim(host, order=(1, 0)))
    chat = service(workload)
    assert chat["environment"]["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert chat["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == list(reversed(samples.UUIDS))


def test_nvidia_cards_by_cdi(tmp_path: Path) -> None:
    host = samples.host()
    tree = samples.render(host, samples.server(host, gpu=samples.claim(host, access=GpuAccess.CDI)))
    devices = services(tree)["chat"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "cdi", "device_ids": [f"nvidia.com/gpu={samples.UUIDS[0]}"], "capabilities": ["gpu"]}]
    resolved(tree, tmp_path)


@pytest.mark.parametrize(("unified", "seen"), [(True, "all"), (False, samples.UUIDS[0])])
def test_nvidia_cards_by_runtime(tmp_path: Path, *, unified: bool, seen: str) -> None:
    host = samples.host()
    gpu = dataclasses.replace(samples.claim(host, access=GpuAccess.RUNTIME), unified=unified)
    tree = samples.render(host, samples.server(host, gpu=gpu))
    chat = services(tree)["chat"]
    assert chat["runtime"] == "nvidia"
    assert "deploy" not in chat
    assert chat["environment"]["NVIDIA_VISIBLE_DEVICES"] == seen
    resolved(tree, tmp_path)


@pytest.mark.parametrize(
    ("accelerator", "devices", "mask"),
    [
        (Accelerator.ROCM, ["/dev/kfd", "/dev/dri"], {"ROCR_VISIBLE_DEVICES": "1"}),
        (Accelerator.VULKAN, ["/dev/dri"], {"GGML_VK_VISIBLE_DEVICES": "1"}),
    ],
)
def test_amd_cards(tmp_path: Path, accelerator: Accelerator, devices: list[str], mask: dict[str, str]) -> None:
    host = samples.host(vendor="amd")
    tree = samples.render(host, samples.server(host, gpu=samples.claim(host, accelerator, order=(1,))))
    chat = services(tree)["chat"]
    assert (chat["devices"], chat["group_add"], chat["environment"]) == (devices, ["44", "109"], mask)
    assert "deploy" not in chat
    resolved(tree, tmp_path)


def test_vulkan_on_an_nvidia_card_asks_for_graphics(tmp_path: Path) -> None:
    host = samples.host()
    tree = samples.render(host, samples.server(host, gpu=samples.claim(host, Accelerator.VULKAN)))
    device = services(tree)["chat"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["capabilities"] == ["gpu", "graphics", "utility"]
    resolved(tree, tmp_path)


@pytest.mark.parametrize(("probe", "program"), [(Probe.CURL, "curl"), (Probe.WGET, "wget"), (Probe.PYTHON, "python3")])
def test_health_is_asked_with_what_the_image_has(probe: Probe, program: str) -> None:
    host = samples.host()
    check = service(samples.server(host, forms=(Container(image="example.org/a:1", probe=probe),)))["healthcheck"]
    assert check["test"][:2] == ["CMD", program]
    assert any("http://127.0.0.1:8080/health" in word for word in check["test"])
    assert (check["interval"], check["timeout"], check["retries"], check["start_period"]) == ("15s", "5s", 3, "120s")


def test_a_health_command_of_its_own() -> None:
    host = samples.host()
    check = service(samples.server(host, health=Health(command=("pg_isready", "-U", "$USER"))))["healthcheck"]
    assert check["test"] == ["CMD", "pg_isready", "-U", "$$USER"]


def test_the_fingerprint_follows_definition_and_files_of_one_service_only(whole: Tree) -> None:
    host = samples.host()
    other = samples.gateway(host, files=(ConfigFile(name="config.yaml", content="a: 2\n", target="/app/config.yaml"),))
    changed = samples.render(host, samples.limited(host), samples.server(host), other)
    before, after = samples.digests(whole), samples.digests(changed)
    assert {name for name in before if before[name] != after[name]} == {"gateway"}
    assert services(changed)["gateway"]["labels"]["labctl.fingerprint"] == after["gateway"]
    build = samples.limited(host).forms[0]
    assert isinstance(build, Container)
    assert build.build is not None
    rebuilt = dataclasses.replace(build, build=dataclasses.replace(build.build, files={"Dockerfile": "FROM a\n"}))
    again = samples.render(host, dataclasses.replace(samples.limited(host), forms=(rebuilt,)))
    assert samples.digests(again)["limited"] != before["limited"]


def test_the_order_of_workloads_does_not_matter(whole: Tree) -> None:
    host = samples.host()
    again = samples.render(host, samples.gateway(host), samples.server(host), samples.limited(host))
    assert again.digest() == whole.digest()


def test_extra_is_merged_last(tmp_path: Path) -> None:
    host = samples.host()
    extra = {
        "compose": {"init": None, "labels": {"mine": "$1"}, "cap_add": ["SYS_NICE"]},
        "systemd": {"Unit": {"A": 1}},
    }
    tree = samples.render(host, samples.server(host, extra=extra))
    chat = services(tree)["chat"]
    assert "init" not in chat
    assert chat["cap_add"] == ["SYS_NICE"]
    assert chat["labels"]["mine"] == "$$1"
    assert chat["labels"]["labctl.workload"] == "chat"
    resolved(tree, tmp_path)


def test_another_folder() -> None:
    host = samples.host(options={"dir": "/srv/stacks"})
    tree = samples.render(host, samples.gateway(host, after=()))
    assert "srv/stacks/lab/compose.yaml" in samples.paths(tree)
    assert samples.unit(tree, "gateway").project == "srv/stacks/lab/compose.yaml"


def test_a_host_without_workloads_has_a_root_and_no_file() -> None:
    tree = samples.render(samples.host())
    assert tree.hosts == ("box",)
    assert not [a for a in tree.artefacts if isinstance(a, File)]


def test_a_volume_of_two_services_is_one_volume() -> None:
    host = samples.host()
    form = Container(image="a:1", mounts=(Mount(source="data", target="/d", volume=True),))
    tree = samples.render(
        host, samples.server(host, "a", 1, forms=(form,)), samples.server(host, "b", 2, forms=(form,))
    )
    assert list(pyyaml.safe_load(samples.text(tree, "compose.yaml"))["volumes"]) == ["data"]


def test_a_task_runs_once_and_others_wait_for_its_end(tmp_path: Path) -> None:
    host = samples.host()
    tree = samples.render(host, samples.server(host), samples.task(host), samples.gateway(host, after=("task",)))
    task, gateway = services(tree)["task"], services(tree)["gateway"]
    assert task["restart"] == "no"
    assert not {"profiles", "healthcheck"} & set(task)
    assert gateway["depends_on"] == {"task": {"condition": "service_completed_successfully"}}
    assert (samples.unit(tree, "task").start, samples.unit(tree, "task").time_limit) == (Start.ONCE, 90)
    assert "task" in resolved(tree, tmp_path)["services"]


def test_who_controls_others_has_the_engine_and_nothing_else() -> None:
    """A sealed container writes nothing and has no privileges; the engine's socket is for whoever starts others."""
    host = samples.host()
    form = Container(image="example.org/gateway:1", sealed=True)
    gateway = service(samples.gateway(host, forms=(form,), controls=("chat",)))
    assert (gateway["read_only"], gateway["tmpfs"], gateway["cap_drop"]) == (True, ["/tmp"], ["ALL"])
    assert gateway["security_opt"] == ["no-new-privileges:true"]
    assert [m["source"] for m in gateway["volumes"] if "docker" in m["source"]] == ["/var/run/docker.sock"]
    plain = service(samples.gateway(host))
    assert not {"read_only", "cap_drop"} & plain.keys()
    assert not [m for m in plain.get("volumes", ()) if "docker" in m["source"]]
