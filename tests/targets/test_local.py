"""supervisord's configuration, judged by supervisor's own parser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.artefact import Manager, SecretFile, Tree
from labctl.workload import Native, Start
from tests.emit import real_supervisor
from tests.targets import samples


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_PYTHON", sys.executable)


@pytest.fixture
def whole() -> Tree:
    host = samples.host("local")
    module = Native(program="{python}", args=("-m", "labctl.swap"))
    helper = samples.server(host, "helper", 8090, forms=(module,), gpu=None, start=Start.ON_DEMAND, after=("gateway",))
    return samples.render(host, samples.server(host), samples.gateway(host), helper)


def programs(tree: Tree, folder: Path) -> dict[str, real_supervisor.Program]:
    samples.write(tree, folder)
    text = samples.text(tree, "supervisord.conf")
    return {program.name: program for program in real_supervisor.programs(text, folder)}


def test_supervisor_reads_back_commands_and_variables(whole: Tree, tmp_path: Path) -> None:
    read = programs(whole, tmp_path)
    assert read["chat"].arguments == [
        "/usr/bin/true",
        "--model",
        samples.MODEL,
        "--port",
        "8081",
        "--note",
        samples.AWKWARD,
    ]
    assert read["chat"].environment == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": samples.UUIDS[0],
    }
    assert read["helper"].arguments == [sys.executable, "-m", "labctl.swap"]


def test_programs_are_started_by_labctl_in_order(whole: Tree, tmp_path: Path) -> None:
    configs = {name: program.config for name, program in programs(whole, tmp_path).items()}
    assert configs["chat"].priority < configs["gateway"].priority < configs["helper"].priority
    assert not [name for name, config in configs.items() if config.autostart]
    assert all(config.stopasgroup and config.killasgroup for config in configs.values())
    assert configs["chat"].directory == str(tmp_path)
    assert configs["chat"].stdout_logfile == f"{tmp_path}/logs/chat.log"
    assert configs["chat"].stdout_logfile_maxbytes == 10 * 1024 * 1024


def test_the_daemon_listens_on_a_private_socket_only(whole: Tree, tmp_path: Path) -> None:
    samples.write(whole, tmp_path)
    options = real_supervisor.load(samples.text(whole, "supervisord.conf"), tmp_path)
    (server,) = options.configroot.supervisord.server_configs
    assert (server["file"], server["chmod"]) == (f"{tmp_path}/supervisor.sock", 0o700)
    assert options.pidfile == f"{tmp_path}/supervisord.pid"


def test_a_program_with_secrets_gets_them_and_nobody_sees_them(tmp_path: Path) -> None:
    host = samples.host("local")
    show = Native(program="{python}", args=("-c", "import os; print(os.environ['PLAIN'], os.environ['DATABASE_URL'])"))
    tree = samples.render(host, samples.gateway(host, forms=(show,)))
    program = programs(tree, tmp_path)["gateway"]
    assert not [word for word in program.arguments if "secret@" in word]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])} | program.environment
    done = subprocess.run(program.arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{samples.AWKWARD} postgresql://lab:secret@db/lab\n"
    (secret,) = [a for a in tree.artefacts if isinstance(a, SecretFile)]
    assert (secret.path, secret.mode) == ("secrets/gateway.env", 0o600)
    assert list(secret.entries) == ["PLAIN", "DATABASE_URL"], "what supervisor cannot quote goes along"


def test_units(whole: Tree) -> None:
    unit = samples.unit(whole, "gateway")
    assert (unit.manager, unit.id, unit.project) == (Manager.SUPERVISOR, "gateway", "supervisord.conf")
    assert unit.files == ("gateway/config.yaml", "secrets/gateway.env")
    assert samples.unit(whole, "chat").files == (f"models/{samples.MODEL}",)
    assert samples.unit(whole, "helper").start is Start.ON_DEMAND
    assert whole.roots["box"].root == "~/.local/state/labctl/lab"


def test_the_file_is_the_same_on_every_machine(whole: Tree) -> None:
    text = samples.text(whole, "supervisord.conf")
    assert sys.executable not in text
    assert str(Path.home()) not in text


def test_a_task_may_end_at_once_and_is_not_brought_back(tmp_path: Path) -> None:
    host = samples.host("local")
    config = programs(samples.render(host, samples.server(host), samples.task(host)), tmp_path)["task"].config
    assert (config.startsecs, config.startretries) == (0, 0)
    assert config.autorestart is not True
