"""Every way in which a connection does not come about, or ends, with real servers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from labctl.artefact import Login
from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError, LostError
from labctl.hosts.ssh import SshShell
from tests.ssh.servers import Net, Sshd, can_have_own_users, free_port, kill, make_key, own_users

PASSWORD = "correct horse"


def shell_of(server: Sshd, *, sudo: bool = True, password: str | None = None, **login: str) -> SshShell:
    there = Login(port=server.port, **login)  # type: ignore[arg-type]
    return SshShell("far", server.address, there, sudo=sudo, password=lambda _: password)


def problem(shell: SshShell) -> Diagnostic:
    with pytest.raises(LostError) as raised:
        shell.me()
    with pytest.raises(LostError) as again:
        shell.read("/etc/hostname")
    assert again.value.diagnostic == raised.value.diagnostic, "said once, tried once"
    found = raised.value.diagnostic
    assert found.path is not None
    assert found.path[:2] == ("hosts", "far")
    assert found.hint
    return found


def test_an_unknown_key(net: Net) -> None:
    server = net.serve(known=False)
    found = problem(shell_of(server))
    assert found.code == "LAB160"
    assert "labctl trust far" in found.hint
    assert "Accepted" not in server.log
    assert net.known_hosts.read_text() == ""


def test_a_changed_key_is_loud(net: Net, server: Sshd) -> None:
    server.stop()
    server.new_key()
    server.start()
    server.await_ready()
    found = problem(shell_of(server))
    assert found.code == "LAB161"
    assert found.summary.isupper() or "HAS CHANGED" in found.summary
    assert f"{net.known_hosts}:1" in found.detail
    now = subprocess.run(["ssh-keygen", "-lf", server.key], capture_output=True, text=True, check=True).stdout.split()
    assert now[1] in found.detail
    assert "Accepted" not in server.log


def test_a_refused_login(net: Net, server: Sshd) -> None:
    make_key(net.folder / "other")
    net.config.write_text(net.config.read_text().replace(str(net.folder / "client"), str(net.folder / "other")))
    found = problem(shell_of(server))
    assert found.code == "LAB162"
    assert "publickey" in found.summary


def test_an_identity_of_lab_yaml_is_used(net: Net, server: Sshd) -> None:
    make_key(net.folder / "other")
    key = net.folder / "client"
    net.config.write_text(net.config.read_text().replace(str(key), str(net.folder / "other")))
    assert shell_of(server, identity=str(key)).me().uid == os.geteuid()


def test_a_name_that_nobody_knows(net: Net) -> None:  # noqa: ARG001 - its environment
    shell = SshShell("far", "no..name", Login(), sudo=False, password=lambda _: None)
    found = problem(shell)
    assert (found.code, "no..name" in found.summary) == ("LAB163", True)


def test_a_port_where_nothing_listens(net: Net) -> None:  # noqa: ARG001 - its environment
    login = Login(port=free_port("127.0.0.9"))
    found = problem(SshShell("far", "127.0.0.9", login, sudo=False, password=lambda _: None))
    assert (found.code, "Connection refused" in found.summary) == ("LAB164", True)


@pytest.mark.slow
def test_a_server_that_says_nothing(net: Net) -> None:  # noqa: ARG001 - its environment
    with socket.create_server(("127.0.0.9", 0)) as silent:
        login = Login(port=silent.getsockname()[1])
        started = time.monotonic()
        found = problem(SshShell("far", "127.0.0.9", login, sudo=False, password=lambda _: None))
    assert found.code == "LAB164"
    assert time.monotonic() - started < 30


@pytest.mark.skipif(not can_have_own_users(), reason="needs root and unshare")
def test_a_host_without_python(net: Net) -> None:
    hide = "for p in $(realpath -q /usr/bin/python3 /usr/local/bin/python3); do mount --bind /dev/null $p; done"
    plain = 'ForceCommand PATH=/usr/bin:/bin exec sh -c "$SSH_ORIGINAL_COMMAND"'
    server = net.serve(plain, within=("unshare", "--mount", "sh", "-c", f'{hide}; exec "$@"', "sh"))
    found = problem(shell_of(server))
    assert (found.code, "no python3" in found.summary) == ("LAB165", True)


def test_a_host_with_an_old_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("python3")
    script(tmp_path / "python3", f'exec {real} -IS -c "import sys; sys.version_info=(3,6,8);$3"')
    script(tmp_path / "pipe", 'for last; do :; done; exec sh -c "$last"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LABCTL_SSH", str(tmp_path / "pipe"))
    found = problem(SshShell("far", "127.0.0.1", Login(), sudo=False, password=lambda _: None))
    assert (found.code, "3.6" in found.summary) == ("LAB165", True)


def test_what_a_login_script_prints_is_skipped(net: Net) -> None:
    noisy = "ForceCommand echo Welcome; printf 'half a line'; echo oops >&2; exec sh -c \"$SSH_ORIGINAL_COMMAND\""
    shell = shell_of(net.serve(noisy))
    assert shell.run(["echo", "x"]).out == "x\n"


def test_no_ssh_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_SSH", "/no/such/ssh")
    found = problem(SshShell("far", "127.0.0.1", Login(), sudo=False, password=lambda _: None))
    assert (found.code, "/no/such/ssh" in found.summary) == ("LAB169", True)


def test_a_folder_of_sockets_that_others_may_enter(net: Net) -> None:
    (net.folder / "run" / "labctl").mkdir(mode=0o755)
    with pytest.raises(HostError) as raised:
        SshShell("far", "127.0.0.1", Login(), sudo=False, password=lambda _: None).me()
    assert raised.value.diagnostic.code == "LAB169"


def test_a_jump_host(net: Net) -> None:
    gate, inner = net.serve(), net.serve()
    shell = shell_of(inner, jump=f"{gate.address}:{gate.port}")
    assert shell.run(["echo", "x"]).out == "x\n"
    assert "Accepted publickey" in gate.log
    assert "Accepted publickey" in inner.log


def test_two_jump_hosts(net: Net) -> None:
    first, second, inner = net.serve(), net.serve(), net.serve()
    shell = shell_of(inner, jump=f"{first.address}:{first.port},{second.address}:{second.port}")
    assert shell.run(["echo", "x"]).out == "x\n"
    assert all("Accepted publickey" in s.log for s in (first, second, inner))


def test_an_unknown_key_of_a_jump_host(net: Net) -> None:
    gate, inner = net.serve(known=False), net.serve()
    found = problem(shell_of(inner, jump=f"{gate.address}:{gate.port}"))
    assert (found.code, gate.address in found.summary) == ("LAB160", True)
    assert "Accepted" not in gate.log + inner.log


@pytest.mark.skipif(not can_have_own_users(), reason="needs root, unshare, sudo and openssl: apt-get install sudo")
class TestSudo:
    """Logins that are not root, with real sudo. User and rules exist for the server alone."""

    def served(self, net: Net, rules: str) -> Sshd:
        place = net.folder / "users"
        place.mkdir()
        return net.serve(within=own_users(place, PASSWORD, rules))

    def test_without_a_password(self, net: Net) -> None:
        server = self.served(net, "lab ALL=(ALL:ALL) NOPASSWD: ALL")
        assert shell_of(server, user="lab").me().uid == 0
        assert shell_of(server, user="lab", sudo=False).me().uid == 54321
        assert shell_of(server, user="root").me().uid == 0

    def test_it_asks_for_one(self, net: Net) -> None:
        server = self.served(net, "lab ALL=(ALL:ALL) ALL")
        found = problem(shell_of(server, user="lab"))
        assert found.code == "LAB166"
        assert "LABCTL_SUDO_PASSWORD" in found.hint

    def test_it_is_given_on_standard_input_alone(self, net: Net) -> None:
        server = self.served(net, "lab ALL=(ALL:ALL) ALL")
        seen, done = list[str](), threading.Event()
        watcher = threading.Thread(target=watch, args=(seen, done))
        watcher.start()
        shell = shell_of(server, user="lab", password=PASSWORD)
        assert shell.me().uid == 0
        assert shell.run(["id", "-u"]).out == "0\n"
        done.set()
        watcher.join()
        assert any("sudo" in line for line in seen)
        assert not any("horse" in line for line in seen)

    def test_a_wrong_one(self, net: Net) -> None:
        server = self.served(net, "lab ALL=(ALL:ALL) ALL")
        found = problem(shell_of(server, user="lab", password="wrong"))
        assert (found.code, "password" in found.summary) == ("LAB167", True)

    def test_a_login_that_may_not(self, net: Net) -> None:
        server = self.served(net, "root ALL=(ALL:ALL) ALL")
        found = problem(shell_of(server, user="lab", password=PASSWORD))
        assert found.code == "LAB167"


def watch(seen: list[str], done: threading.Event) -> None:
    """Note every command line and environment of the machine until told to stop."""
    while not done.wait(0.005):
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    seen.append((process / name).read_bytes().decode(errors="replace"))
                except OSError:
                    continue


def test_a_connection_that_breaks_in_the_middle(server: Sshd) -> None:
    shell = shell_of(server)
    problems: list[HostError] = []

    def work() -> None:
        try:
            shell.run(["sleep", "30"])
        except HostError as error:
            problems.append(error)

    first = shell.whoami()
    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    server.drop_connections()
    thread.join(10)
    assert [p.diagnostic.code for p in problems] == ["LAB168"]
    assert "not known whether" in problems[0].diagnostic.hint
    assert shell.run(["echo", "x"]).out == "x\n", "what comes later connects anew"
    assert shell.whoami() != first


def test_what_only_looks_is_repeated(server: Sshd, tmp_path: Path) -> None:
    shell = shell_of(server)
    (tmp_path / "f").write_text("x")
    assert shell.read(str(tmp_path / "f")) == b"x"
    server.drop_connections()
    assert shell.read(str(tmp_path / "f")) == b"x"


def test_with_a_lock_nothing_goes_on_by_itself(server: Sshd, tmp_path: Path) -> None:
    """The lock belongs to the agent, which has gone: somebody else may hold it by now."""
    shell = shell_of(server)
    assert shell.swap(str(tmp_path / "lock"), None, b"mine")
    server.drop_connections()
    time.sleep(0.2)
    for _ in range(2):
        with pytest.raises(LostError) as raised:
            shell.read(str(tmp_path / "lock"))
        assert raised.value.diagnostic.code == "LAB168"
    assert not shell.usable


def test_the_agent_ends_with_its_connection(server: Sshd, tmp_path: Path) -> None:
    shell = shell_of(server)
    process = shell.whoami()
    shell.run(["true"])
    server.drop_connections()
    later = shell_of(server)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and later.alive(process):
        time.sleep(0.1)
    assert not later.alive(process)
    assert list(tmp_path.iterdir()) == []


def test_a_shared_connection_that_died_is_made_anew(net: Net, server: Sshd) -> None:
    """The second command finds the socket of a connection whose master was killed."""
    first = shell_of(server)
    assert first.me().uid == os.geteuid()
    first.close()
    for master in masters(net):
        kill(master)
    assert shell_of(server).run(["echo", "x"]).out == "x\n"


def masters(net: Net) -> list[int]:
    """Return the processes that keep shared connections open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if line.startswith(b"ssh: ") and str(net.folder / "run").encode() in line:
            found.append(int(process.name))
    return found


def test_a_second_login_costs_no_second_connection(server: Sshd) -> None:
    for _ in range(3):
        shell = shell_of(server)
        assert shell.run(["true"]).ok
        shell.close()
    assert server.log.count("Accepted publickey") == 1


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
