"""Units, judged by the real ``systemd-analyze verify``: anything on stderr is a failure."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from labctl.artefact import Format, Manager, SecretFile, Tree
from labctl.diagnostics import LabctlError
from labctl.placed import PlacedHost
from labctl.workload import Accelerator, Native, Port, SecretRef, SecretText, Workload
from tests.emit.real_systemd import split
from tests.targets import samples

Lines = list[tuple[str, str]]


def verify(tree: Tree, folder: Path, *, user: bool = False) -> None:
    """Check every unit of a tree together. The samples start programs that exist: /usr/bin/true and env."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None or not Path("/usr/bin/curl").exists():
        pytest.skip("systemd-analyze and /usr/bin/curl are needed to check units")
    samples.write(tree, folder)
    units = sorted(str(path) for suffix in ("service", "target") for path in folder.rglob(f"labctl-*.{suffix}"))
    assert units
    manager = "--user" if user else "--system"
    command = [analyze, manager, "--man=no", "verify", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def lines(tree: Tree, name: str) -> Lines:
    text = samples.text(tree, f"labctl-lab-{name}.service")
    return [(key, value) for key, _, value in (line.partition("=") for line in text.splitlines()) if value]


def pairs(tree: Tree, name: str) -> set[tuple[str, str]]:
    text = samples.text(tree, f"labctl-lab-{name}.service")
    return {(key, value) for key, _, value in (line.partition("=") for line in text.splitlines())}


def values(tree: Tree, name: str, key: str) -> list[str]:
    return [value for found, value in lines(tree, name) if found == key]


@pytest.fixture
def whole() -> Tree:
    host = samples.host("systemd")
    return samples.render(host, samples.limited(host), samples.server(host), samples.gateway(host))


def test_systemd_accepts_every_unit(whole: Tree, tmp_path: Path) -> None:
    verify(whole, tmp_path)


def test_systemd_accepts_units_of_a_named_user(tmp_path: Path) -> None:
    host = samples.host("systemd", user="root")
    tree = samples.render(host, samples.server(host))
    assert values(tree, "chat", "User") == ["root"]
    assert not values(tree, "chat", "DynamicUser")
    verify(tree, tmp_path)


def test_systemd_accepts_units_of_the_user_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    host = samples.host("systemd", options={"user_units": True})
    tree = samples.render(host, samples.server(host), samples.gateway(host))
    assert tree.roots["box"].root == "~"
    assert values(tree, "gateway", "EnvironmentFile") == ["%h/.config/labctl/lab/secrets/gateway.env"]
    assert values(tree, "gateway", "WantedBy") == ["default.target"]
    assert samples.unit(tree, "chat").manager is Manager.SYSTEMD_USER
    assert samples.unit(tree, "chat").project == ".config/systemd/user/labctl-lab-chat.service"
    assert not values(tree, "chat", "SupplementaryGroups"), "a user's manager cannot change groups"
    verify(tree, tmp_path, user=True)


def test_verify_would_notice_a_wrong_key(tmp_path: Path) -> None:
    host = samples.host("systemd")
    wrong = samples.server(host, extra={"systemd": {"Service": {"MemoryMaximum": "1G"}}})
    with pytest.raises(AssertionError, match="MemoryMaximum"):
        verify(samples.render(host, wrong), tmp_path)


def test_the_command_reaches_the_program_unchanged(whole: Tree) -> None:
    (line,) = values(whole, "chat", "ExecStart")
    words = [word.replace("%%", "%").replace("$$", "$") for word in split(line)]
    assert words == ["/usr/bin/true", "--model", samples.MODEL, "--port", "8081", "--note", samples.AWKWARD]


def test_a_configuration_file_is_found_by_its_place(whole: Tree) -> None:
    assert values(whole, "gateway", "ExecStart") == ["/usr/bin/env --config /etc/labctl/lab/gateway/config.yaml"]
    assert samples.text(whole, "etc/labctl/lab/gateway/config.yaml") == "a: $b\n"


def test_what_a_service_may_not_do_and_what_its_cards_need() -> None:
    host = samples.host("systemd")
    tree = samples.render(host, samples.server(host), samples.gateway(host))
    for name in ("chat", "gateway"):
        assert values(tree, name, "NoNewPrivileges") == ["yes"]
        assert ("CapabilityBoundingSet", "") in pairs(tree, name)
        keys = {key for key, _ in pairs(tree, name)}
        assert not keys & {"DevicePolicy", "DeviceAllow", "MemoryDenyWriteExecute", "ProtectClock", "ProtectHome"}
    assert not values(tree, "chat", "PrivateDevices")
    assert values(tree, "gateway", "PrivateDevices") == ["yes"]
    made = "-+/usr/bin/nvidia-modprobe -c 0 -u"
    assert made in values(tree, "chat", "ExecStartPre")
    assert made not in values(tree, "gateway", "ExecStartPre")


def test_a_service_of_root_keeps_what_root_can() -> None:
    host = samples.host("systemd", user="root")
    assert ("CapabilityBoundingSet", "") not in pairs(samples.render(host, samples.server(host)), "chat")


@pytest.mark.parametrize(("user", "most"), [(None, 4.0), ("lab", 4.2)])
def test_systemds_own_figure_for_exposure(tmp_path: Path, user: str | None, most: float) -> None:
    """From 0 (good) to 10; 3.8 and 4.0 with systemd 252, 8.0 and 8.1 before the last eight settings."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is needed")
    host = samples.host("systemd", user=user)
    samples.write(samples.render(host, samples.server(host)), tmp_path)
    (unit,) = tmp_path.rglob("labctl-lab-chat.service")
    command = [analyze, "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout.splitlines()[-1].split(": ")[1].split()[0]) <= most


def reads_a_key(host: PlacedHost) -> Workload:
    native = Native(
        program="/usr/bin/env",
        args=("--key-file={credential:key}",),
        credentials={"key": SecretText((SecretRef("API_KEY"),))},
    )
    return samples.server(host, forms=(native,))


def test_a_secret_that_a_program_reads_from_a_file_is_a_credential(tmp_path: Path) -> None:
    host = samples.host("systemd")
    tree = samples.render(host, reads_a_key(host))
    assert values(tree, "chat", "LoadCredential") == ["key:/etc/labctl/lab/secrets/chat/key"]
    assert values(tree, "chat", "ExecStart") == ["/usr/bin/env --key-file=/run/credentials/labctl-lab-chat.service/key"]
    (secret,) = [a for a in tree.artefacts if isinstance(a, SecretFile)]
    assert (secret.path, secret.mode, secret.format) == ("etc/labctl/lab/secrets/chat/key", 0o600, Format.RAW)
    assert secret.path in samples.unit(tree, "chat").files
    verify(tree, tmp_path)


def test_a_users_service_reads_its_secret_where_it_lies() -> None:
    host = samples.host("systemd", options={"user_units": True})
    tree = samples.render(host, reads_a_key(host))
    assert values(tree, "chat", "ExecStart") == ["/usr/bin/env --key-file=.config/labctl/lab/secrets/chat/key"]
    assert values(tree, "chat", "WorkingDirectory") == ["%h"]


def test_boot_waits_for_a_neighbours_health(whole: Tree) -> None:
    assert "labctl-lab-chat.service" in values(whole, "gateway", "After")
    assert "labctl-lab-chat.service" in values(whole, "gateway", "Wants")
    (wait,) = values(whole, "gateway", "ExecStartPre")
    program, _, script = split(wait)
    assert program == "-/bin/sh"
    assert script.startswith("systemctl is-active --quiet labctl-lab-chat.service || exit 0; exec curl ")
    words = shlex.split(script)
    assert words[-1] == "http://127.0.0.1:8081/health"
    patience = int(words[words.index("--retry-max-time") + 1])
    assert patience == 120 + 3 * 15
    assert int(values(whole, "gateway", "TimeoutStartSec")[0]) > patience


def test_servers_on_cards_take_turns_and_can_be_started_alone() -> None:
    host = samples.host("systemd")
    second = samples.server(host, "second", 8082, after=("chat",))
    tree = samples.render(host, samples.server(host), second)
    assert "labctl-lab-chat.service" in values(tree, "second", "After")
    assert "labctl-lab-chat.service" not in values(tree, "second", "Wants")
    assert values(tree, "second", "ExecStartPre")


@pytest.mark.slow
def test_the_wait_ends_when_the_neighbour_answers(tmp_path: Path) -> None:
    """Runs the command of ``ExecStartPre`` against a server that says 503 at first, as model servers do."""
    server = HTTPServer(("127.0.0.1", 0), _Loading)
    host = samples.host("systemd")
    neighbour = samples.server(host, ports=(Port(name="http", listen=1, published=server.server_port),))
    tree = samples.render(host, neighbour, samples.gateway(host))
    (wait,) = values(tree, "gateway", "ExecStartPre")
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "systemctl").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = [word.replace("$$", "$").replace("%%", "%") for word in split(wait.removeprefix("-"))]
        assert subprocess.run(words, env=environment, timeout=60, check=False).returncode == 0
        server.shutdown()
    assert _Loading.asked == 3


class _Loading(BaseHTTPRequestHandler):
    """Answers the third request."""

    asked = 0

    def do_GET(self) -> None:
        _Loading.asked += 1
        self.send_response(200 if _Loading.asked >= 3 else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_nobody_pulls_in_what_starts_on_demand() -> None:
    host = samples.host("systemd")
    tree = samples.render(host, samples.limited(host), samples.gateway(host, after=("limited",)))
    assert "labctl-lab-limited.service" in values(tree, "gateway", "After")
    assert "labctl-lab-limited.service" not in values(tree, "gateway", "Wants")
    assert not values(tree, "gateway", "ExecStartPre")
    assert "limited" not in samples.text(tree, "labctl-lab.target")


def test_a_target_holds_the_lab_together(whole: Tree) -> None:
    target = samples.text(whole, "etc/systemd/system/labctl-lab.target")
    assert "Wants=labctl-lab-chat.service\nWants=labctl-lab-gateway.service\n" in target
    assert values(whole, "chat", "PartOf") == ["labctl-lab.target"]


def test_limits(whole: Tree) -> None:
    expected = {
        "LimitMEMLOCK": "infinity",
        "MemoryMax": str(3 * 1024**3),
        "MemorySwapMax": str(1024**3),
        "CPUQuota": "150%",
        "Restart": "on-failure",
    }
    assert {key: value for key, value in lines(whole, "limited") if key in expected} == expected


@pytest.mark.parametrize(
    ("vendor", "uuids", "accelerator", "variables"),
    [
        (
            "nvidia",
            True,
            Accelerator.CUDA,
            {"CUDA_DEVICE_ORDER=PCI_BUS_ID", f"CUDA_VISIBLE_DEVICES={samples.UUIDS[1]}"},
        ),
        ("nvidia", False, Accelerator.CUDA, {"CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=1"}),
        ("amd", False, Accelerator.ROCM, {"ROCR_VISIBLE_DEVICES=1"}),
        ("amd", False, Accelerator.VULKAN, {"GGML_VK_VISIBLE_DEVICES=1"}),
    ],
)
def test_cards(vendor: str, accelerator: Accelerator, variables: set[str], *, uuids: bool) -> None:
    host = samples.host("systemd", vendor=vendor, uuids=uuids)
    tree = samples.render(host, samples.server(host, gpu=samples.claim(host, accelerator, order=(1,))))
    assert variables <= set(values(tree, "chat", "Environment"))
    assert values(tree, "chat", "SupplementaryGroups") == ["video render"]
    hidden = {"PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock", "MemoryDenyWriteExecute"}
    assert not hidden & {key for key, _ in lines(tree, "chat")}


def test_a_card_is_counted_among_its_own_vendors() -> None:
    host = samples.host("systemd", uuids=False)
    mixed = dataclasses.replace(host, gpus=(dataclasses.replace(host.gpus[0], vendor="amd"), host.gpus[1]))
    tree = samples.render(mixed, samples.server(mixed, gpu=samples.claim(mixed, order=(1,))))
    assert "CUDA_VISIBLE_DEVICES=0" in values(tree, "chat", "Environment")


def test_secrets_are_in_their_own_file_only(whole: Tree) -> None:
    (secret,) = [a for a in whole.artefacts if isinstance(a, SecretFile)]
    assert (secret.path, secret.mode) == ("etc/labctl/lab/secrets/gateway.env", 0o600)
    assert values(whole, "gateway", "EnvironmentFile") == ["/etc/labctl/lab/secrets/gateway.env"]
    assert not [value for value in values(whole, "gateway", "Environment") if "DATABASE" in value]


def test_units(whole: Tree) -> None:
    unit = samples.unit(whole, "gateway")
    assert (unit.manager, unit.id) == (Manager.SYSTEMD, "labctl-lab-gateway.service")
    assert unit.project == "etc/systemd/system/labctl-lab-gateway.service"
    assert unit.files == (
        "etc/systemd/system/labctl-lab-gateway.service",
        "etc/labctl/lab/gateway/config.yaml",
        "etc/labctl/lab/secrets/gateway.env",
    )
    assert unit.check == "http://127.0.0.1:4000/health/liveliness"
    assert samples.unit(whole, "chat").check == "http://127.0.0.1:8081/health", (
        "a program's own port, not a container's"
    )


def test_extra_replaces_takes_away_and_adds(tmp_path: Path) -> None:
    host = samples.host("systemd")
    service: dict[str, Any] = {"Nice": 5, "RestartSec": 3, "PrivateTmp": None, "ReadWritePaths": ["/srv", "/tmp"]}
    extra = {"systemd": {"Service": service | {"OOMPolicy": "continue"}}}
    tree = samples.render(host, samples.server(host, extra=extra))
    found = lines(tree, "chat")
    assert [value for key, value in found if key == "RestartSec"] == ["3"]
    assert [value for key, value in found if key == "ReadWritePaths"] == ["/srv", "/tmp"]
    assert not [value for key, value in found if key == "PrivateTmp"]
    verify(tree, tmp_path)


def test_what_a_unit_cannot_say_is_a_located_diagnostic() -> None:
    host = samples.host("systemd")
    with pytest.raises(LabctlError) as caught:
        samples.render(host, samples.server(host, forms=(Native(program="/usr/bin/true", args=("\x07",)),)))
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.path) == ("LAB084", ("deployments", "chat"))


def test_a_task_runs_once_and_nothing_starts_it_again(tmp_path: Path) -> None:
    host = samples.host("systemd")
    tree = samples.render(host, samples.server(host), samples.task(host), samples.gateway(host, after=("task",)))
    assert (values(tree, "task", "Type"), values(tree, "task", "RemainAfterExit")) == (["oneshot"], ["yes"])
    assert not {key for key, _ in lines(tree, "task")} & {"Restart", "WantedBy"}
    assert values(tree, "task", "TimeoutStartSec") == [str(120 + 15 * 3 + 90)]
    assert "labctl-lab-task.service" in values(tree, "gateway", "After")
    assert "labctl-lab-task.service" not in values(tree, "gateway", "Wants")
    assert "task" not in samples.text(tree, "labctl-lab.target")
    verify(tree, tmp_path)
