"""First contact through the command line, with real servers."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.cli.running import Ran, labctl
from tests.ssh.servers import Net, Sshd

LAB = """\
lab: far
hosts:
  far:
    address: {address}
    target: compose
    ssh: {{port: {port}{more}}}
models: {{}}
deployments: {{}}
"""


def lab_of(folder: Path, server: Sshd, more: str = "") -> Path:
    path = folder / "lab.yaml"
    path.write_text(LAB.format(address=server.address, port=server.port, more=more))
    return path


def fingerprint(server: Sshd) -> str:
    words = subprocess.run(["ssh-keygen", "-lf", server.key], capture_output=True, text=True, check=True).stdout.split()
    return words[1]


def trust(net: Net, lab: Path, *more: str) -> Ran:
    return labctl("trust", "far", str(lab), *more, environment=net.environment)


def test_a_key_is_shown_and_accepted_by_its_fingerprint(net: Net, tmp_path: Path) -> None:
    server = net.serve(known=False)
    lab = lab_of(tmp_path, server)
    shown = trust(net, lab)
    assert shown.code == 1
    assert fingerprint(server) in shown.err
    assert "LAB160" in shown.err
    assert net.known_hosts.read_text() == ""
    assert "LAB160" in trust(net, lab, "--fingerprint", "SHA256:other").err
    assert net.known_hosts.read_text() == ""
    accepted = trust(net, lab, "--fingerprint", fingerprint(server))
    assert (accepted.code, "accepted" in accepted.err) == (0, True)
    assert net.known_hosts.read_text() == server.known_line()
    again = trust(net, lab)
    assert (again.code, "known and right" in again.err) == (0, True)
    assert "Accepted" not in server.log, "nobody logged in"


def test_on_a_terminal_it_asks(net: Net, tmp_path: Path) -> None:
    server = net.serve(known=False)
    argv = [sys.executable, "-m", "labctl", "trust", "far", str(lab_of(tmp_path, server))]
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        main, side = pty.openpty()
        process = subprocess.Popen(argv, stdin=side, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(main, answer)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert fingerprint(server).encode() in err
        for end in (main, side):
            os.close(end)
    assert net.known_hosts.read_text() == server.known_line()


def test_a_changed_key_is_not_accepted(net: Net, server: Sshd, tmp_path: Path) -> None:
    server.stop()
    server.new_key()
    server.start()
    server.await_ready()
    before = net.known_hosts.read_text()
    ran = trust(net, lab_of(tmp_path, server), "--fingerprint", fingerprint(server))
    assert (ran.code, "LAB161" in ran.err) == (1, True)
    assert net.known_hosts.read_text() == before


def test_jump_hosts_come_first(net: Net, tmp_path: Path) -> None:
    gate, inner = net.serve(known=False), net.serve(known=False)
    lab = lab_of(tmp_path, inner, f", jump: '{gate.address}:{gate.port}'")
    first = trust(net, lab)
    assert (first.code, fingerprint(gate) in first.err, fingerprint(inner) in first.err) == (1, True, False)
    both = trust(net, lab, "--fingerprint", fingerprint(gate), "--fingerprint", fingerprint(inner))
    assert both.code == 0, both.err
    assert net.known_hosts.read_text() == gate.known_line() + inner.known_line()


def test_a_host_out_of_reach(net: Net, tmp_path: Path) -> None:
    server = net.serve()
    server.stop()
    ran = trust(net, lab_of(tmp_path, server))
    assert (ran.code, "LAB164" in ran.err, "lab.yaml:4" in ran.err) == (1, True, True)
