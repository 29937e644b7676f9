"""The program that runs on hosts: small, old Pythons, facts, cancelling, and what happens when it fails."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import labctl.agent
from labctl.agent.call import Refusal
from labctl.agent.operations import OPERATIONS
from labctl.artefact import Login
from labctl.hosts.base import HostError
from labctl.hosts.bootstrap import HOT, OLDEST, Sudo, command, payload
from labctl.hosts.shell import AgentShell
from labctl.hosts.ssh import SshShell

MODULES = sorted(Path(labctl.agent.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.stem)
def test_it_is_written_for_old_pythons_and_the_standard_library(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=OLDEST)
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    foreign = {n for n in names if n.split(".")[0] not in sys.stdlib_module_names and not n.startswith("labctl.agent")}
    assert not foreign
    assert not any(isinstance(n, ast.Match) for n in ast.walk(tree))


def test_every_operation_is_there() -> None:
    for operation in OPERATIONS.values():
        assert callable(operation.load())


def test_what_is_compiled_beforehand_exists() -> None:
    assert HOT - {"labctl", "agent"} <= {m.stem for m in MODULES}


def test_another_python_compiles_the_sources_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a host whose Python has another bytecode."""
    monkeypatch.setattr("labctl.hosts.bootstrap.MAGIC_NUMBER", b"none")
    payload.cache_clear()
    try:
        shell = piped(monkeypatch, tmp_path)
        assert shell.run(["echo", "x"]).out == "x\n"
        shell.close()
    finally:
        payload.cache_clear()


@pytest.mark.parametrize("sudo", list(Sudo))
def test_the_command_holds_no_secret_and_works_in_any_shell(sudo: Sudo) -> None:
    said = command(sudo)
    assert said.count("'") == 2
    assert len(said) < 1000
    assert subprocess.run(["sh", "-n", "-c", said], check=False).returncode == 0


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AgentShell]:
    """A shell whose agent has operations that misbehave."""
    folder = Path(labctl.agent.__file__).parent
    copy = tmp_path / "agent"
    copy.mkdir()
    for module in MODULES:
        text = module.read_text()
        if module.stem == "operations":
            text += "\n".join(
                f"\nOPERATIONS['{name}'] = Operation('misbehaving', '{name}', changes=False)"
                for name in ("refuse", "fail", "count")
            )
        (copy / module.name).write_text(text)
    (copy / "misbehaving.py").write_text(MISBEHAVING)
    assert folder != copy
    monkeypatch.setattr(labctl.agent, "__file__", str(copy / "__init__.py"))
    monkeypatch.setattr("labctl.hosts.bootstrap.MAGIC_NUMBER", b"none")
    for name in ("refuse", "fail", "count"):
        monkeypatch.setitem(OPERATIONS, name, OPERATIONS["read"])
    payload.cache_clear()
    shell = piped(monkeypatch, tmp_path)
    yield shell
    shell.close()
    payload.cache_clear()


MISBEHAVING = """
import time
from labctl.agent.call import Refusal, answer

def refuse(call):
    raise Refusal("no space", {"free": 3})

def fail(call):
    raise KeyError("nobody thought of this")

def count(call):
    for number in range(1000):
        call.event({"number": number})
        time.sleep(0.02)
        try:
            call.check()
        except Exception:
            open(call.values["note"], "w").write(str(number))
            raise
    return answer()
"""


def test_a_refusal_arrives_as_one(broken: AgentShell) -> None:
    with pytest.raises(Refusal) as refused:
        broken.call("refuse", {})
    assert (refused.value.reason, refused.value.data) == ("no space", {"free": 3})


def test_a_bug_is_said_to_be_one(broken: AgentShell) -> None:
    with pytest.raises(HostError) as failed:
        broken.call("fail", {})
    assert "nobody thought of this" in failed.value.diagnostic.detail
    assert "bug" in failed.value.diagnostic.summary
    assert broken.run(["true"]).ok, "the others go on"


def test_events_arrive_and_a_check_cancels(broken: AgentShell, tmp_path: Path) -> None:
    seen: list[int] = []

    class EnoughError(Exception):
        pass

    def check() -> None:
        if len(seen) > 5:
            raise EnoughError

    with pytest.raises(EnoughError):
        broken.call("count", {"note": str(tmp_path / "note")}, event=lambda v: seen.append(v["number"]), check=check)
    assert seen[:6] == [0, 1, 2, 3, 4, 5]
    assert int((tmp_path / "note").read_text()) < 900


def test_changes_under_way_may_finish_when_the_connection_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shell = piped(monkeypatch, tmp_path)
    done = tmp_path / "done"
    thread = threading.Thread(target=lambda: quietly(shell, ["sh", "-c", f"sleep 1; touch {done}"]))
    thread.start()
    time.sleep(0.5)
    shell.close()
    thread.join()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not done.exists():
        time.sleep(0.1)
    assert done.exists()


def quietly(shell: AgentShell, argv: list[str]) -> None:
    try:
        shell.run(argv)
    except HostError:
        return


def test_facts_of_this_machine(shell: AgentShell) -> None:
    told = shell.facts("/")
    assert told["arch"] == os.uname().machine
    assert told["memory"] > 1 << 28
    assert told["disks"]["/"]["free"] > 0
    assert told["features"]


def test_facts_of_cards(shell: AgentShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files as the kernel has them; nvidia-smi is a stand-in."""
    if not isinstance(shell, SshShell):
        smi = tmp_path / "bin" / "nvidia-smi"
        smi.parent.mkdir()
        smi.write_text(
            "#!/bin/sh\necho 'GPU-0a, NVIDIA GeForce RTX 3090, 24576, 580.65.06'\necho 'No devices were found'\n"
        )
        smi.chmod(0o755)
        monkeypatch.setenv("PATH", f"{smi.parent}:{os.environ['PATH']}")
    top = tmp_path / "top"
    for path, text in {
        "proc/driver/nvidia/version": "x",
        "proc/meminfo": "MemTotal:       16384 kB\n",
        "proc/cpuinfo": "flags\t\t: fpu avx2 sse4_2\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 13"\n',
        "sys/class/drm/card1/device/mem_info_vram_total": "17163091968\n",
        "sys/class/drm/card1/device/unique_id": "1234abcd\n",
        "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
        "sys/bus/pci/devices/0000:02:00.0/class": "0x030000\n",
        "sys/bus/pci/devices/0000:02:00.0/vendor": "0x1002\n",
        "sys/bus/pci/devices/0000:03:00.0/class": "0x020000\n",
        "sys/bus/pci/devices/0000:03:00.0/vendor": "0x8086\n",
    }.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    told = shell.call("facts", {"top": str(top)})
    assert (told["memory"], told["features"], told["system"]) == (
        16 << 20,
        ["avx2", "fpu", "sse4_2"],
        "Debian GNU/Linux 13",
    )
    assert told["bus"] == {"nvidia": 1, "amd": 1}
    amd = {"vendor": "amd", "name": "", "uuid": "GPU-1234abcd", "memory": 17163091968, "driver": ""}
    assert told["cards"][-1] == amd
    if not isinstance(shell, SshShell):
        nvidia = {"vendor": "nvidia", "name": "NVIDIA GeForce RTX 3090", "uuid": "GPU-0a", "memory": 24 << 30}
        assert told["cards"][0] == {**nvidia, "driver": "580.65.06"}


def piped(monkeypatch: pytest.MonkeyPatch, folder: Path) -> SshShell:
    """Return a shell whose ssh is a plain sh on this machine."""
    fake = folder / "pipe"
    fake.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("LABCTL_SSH", str(fake))
    return SshShell("far", "127.0.0.1", Login(), sudo=False, password=lambda _: None)
