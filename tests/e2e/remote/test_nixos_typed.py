"""A lab on a NixOS host, as it is typed: lab.yaml, the target's own flake, and every command.

Real: labctl, Ansible, SSH, systemd, llama.cpp. In place of Nix stands ``tests/rig/nixos/stand-in``: it does not
evaluate the flake, but takes what that would give from a comment of the machine's own file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import ask, chat, said
from tests.e2e.remote.home import Home, home
from tests.e2e.remote.nixos import MACHINE, REFUSED
from tests.e2e.remote.test_nixos import STAND_IN, direct
from tests.rig.rig import Rig, joined

pytestmark = pytest.mark.slow
PORT = 8081
LAB = """
lab: nix
hosts:
  box:
    address: {address}
    target: nixos
    memory: 4 GiB
    ssh: {{user: lab}}
    nixos: {{hardware: machine.nix, boot: given, confirm: {confirm} s, interface: host0, keys: ["{key}"]}}
models: {{tiny: {{tiny: {{says: The words of a NixOS host}}}}}}
deployments: {{chat: {{model: tiny, engine: llama.cpp, on: {{host: box}}, context: 512, port: {port}}}}}
"""
MACHINE_FILE = """
/* stand-in: {spec} */
{{ fileSystems."/".device = "/dev/vda1"; boot.loader.grub.device = "/dev/vda"; }}
"""
SERVER = (
    "[Service]\nExecStart=/usr/local/bin/llama-server --model /var/lib/labctl/models/tiny.gguf --alias tiny"
    f" --host 0.0.0.0 --port {PORT} --ctx-size 512 --parallel 1\n"
)


def write(place: Home, confirm: int = 20, **spec: Any) -> None:
    key = place.rig.key.with_suffix(".pub").read_text().strip()
    place.write(LAB.format(address=place.rig.address(MACHINE), confirm=confirm, key=key, port=PORT))
    given = json.dumps({"services": {"llama-cpp": SERVER}, **spec})
    (place.lab / "machine.nix").write_text(MACHINE_FILE.format(spec=given))


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Home]:
    rig = joined(request.config, hosts=1)
    rig.inside(MACHINE, STAND_IN, "install")
    with rig.entered(), home(rig, "", {}) as made:
        write(made)
        yield made
        made.run("destroy", "--yes", "--data", "--break-lock")
    rig.inside(MACHINE, STAND_IN, "remove")


def answer(rig: Rig) -> str:
    return said(ask(f"http://{rig.address(MACHINE)}:{PORT}", None, "/v1/chat/completions", chat("tiny")))


def started(rig: Rig) -> str:
    return rig.sh(MACHINE, "systemctl show --property InvocationID llama-cpp")


def test_every_command(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible brings the files of the first apply; those of the others go the short way, which is quicker."""
    before = place.rig.sh(MACHINE, "readlink -f /run/current-system")
    assert "starting the following units: llama-cpp.service" in place.apply().err
    assert answer(place.rig) == "The words of a NixOS host"
    place.settled()
    assert {(u["unit"], u["state"]) for u in json.loads(place.ok("status", "--json").out)["units"]} == {
        ("nixos-system", "running"),
        ("chat", "running"),
    }
    assert "llama-cpp.service" in place.ok("logs", "nixos-system").out
    start = started(place.rig)
    monkeypatch.setattr("labctl.hosts.applying.placer_of", direct)

    write(place, confirm=2, firewall=REFUSED)
    ran = place.run("apply", "--yes")
    assert ran.code == ExitCode.PARTIAL
    assert "LAB244" in ran.out + ran.err
    assert place.units() == {"restart nixos-system@box"}
    assert (answer(place.rig), started(place.rig)) == ("The words of a NixOS host", start)

    write(place, note="another system, the same service")
    place.apply()
    second = place.rig.sh(MACHINE, "readlink -f /run/current-system")
    place.ok("rollback", "box", "--yes")
    assert place.rig.sh(MACHINE, "readlink -f /run/current-system") not in {before, second}
    assert started(place.rig) == start

    place.ok("destroy", "--yes", "--data")
    assert place.rig.sh(MACHINE, "readlink -f /run/current-system") == before
    assert place.rig.sh(MACHINE, "ls -d /etc/labctl /var/lib/labctl /run/labctl* 2>/dev/null || true") == ""
