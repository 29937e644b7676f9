"""What the built-in gateway is given on its host: its own container, or a Python and no more rights than it needs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from labctl.artefact import File
from labctl.gateways.builtin.sources import shipped
from labctl.render import Rendered
from labctl.swap.listener import listener
from tests.resolve import labs


def rendered(target: str, **gateway: Any) -> Rendered:
    servers = {
        name: labs.llama(
            serves=(name,), on={"host": "box", "gpus": (0,)}, start="on-demand", vram={"declared": "20 GiB"}, port=port
        )
        for name, port in (("one", 9001), ("two", 9002))
    }
    host = labs.box("RTX 3090", target=target, user="lab")
    asked = {"engine": "builtin", "host": "box", **gateway}
    return labs.rendered(labs.lab(servers, {"box": host}, gateway=asked, groups={"gpu": {"swap": ("one", "two")}}))


def text(found: Rendered, suffix: str) -> str:
    (file,) = [a for a in found.tree.artefacts if isinstance(a, File) and a.path.endswith(suffix)]
    return file.content.decode()


def test_its_container_has_the_engines_socket_and_may_do_nothing_else() -> None:
    services = yaml.safe_load(text(rendered("compose"), "compose.yaml"))["services"]
    gateway = services["gateway"]
    assert (gateway["read_only"], gateway["cap_drop"]) == (True, ["ALL"])
    having = [n for n, s in services.items() if any("docker.sock" in m["source"] for m in s["volumes"])]
    assert having == ["gateway"]


def test_its_unit_runs_on_the_python_that_is_named() -> None:
    assert "ExecStart=/usr/bin/python3 -B /etc" in text(rendered("systemd"), "gateway.service")
    assert "ExecStart=/opt/gateway/bin/python -B /etc" in text(
        rendered("systemd", python="/opt/gateway/bin/python"), "gateway.service"
    )


def test_a_python_that_is_too_old_says_what_to_do() -> None:
    code = compile(shipped("gateway.py"), "gateway.py", "exec")
    with patch.object(sys, "version_info", (3, 10)), pytest.raises(SystemExit, match=r"this is 3\.10.*python: /path"):
        exec(code, {})  # noqa: S102 - the program itself


def test_who_listens_is_named() -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        port = mine.getsockname()[1]
        assert listener(port) == "", "it is bound, and nobody listens"
        mine.listen()
        name = subprocess.run(["ps", "-o", "comm=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
        assert listener(port) == f"the program {name.stdout.strip()} (process {os.getpid()})"
