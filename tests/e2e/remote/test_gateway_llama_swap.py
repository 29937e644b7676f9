"""The swap-box example with llama-swap in a container on a real host: the real program, built as labctl builds it.

What is not what it would be: the card (/dev/dri holds a null device), the weights, llama-swap's own image, which is
made here of the program at $LLAMA_SWAP or on PATH, and `llama-server`, which is xllamacpp's and knows no `--device`.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from labctl.compat import builds
from tests.e2e.remote.gateways import HOST, Lab, example
from tests.e2e.remote.test_gateway_docker import SIZES, overlay
from tests.rig.rig import Rig, joined

PROGRAM = shutil.which(os.environ.get("LLAMA_SWAP", "llama-swap"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no llama-swap on PATH or at $LLAMA_SWAP: its container is not tested"),
]
CARD = 96
SERVER = """#!/usr/bin/env python3
import os, sys
given = sys.argv[1:]
if "--device" in given:
    del given[given.index("--device") : given.index("--device") + 2]
os.execvp("python3", ["python3", "-m", "labctl.embedded.llama_server", *given])
"""


@pytest.fixture(scope="module")
def machines(request: pytest.FixtureRequest) -> Rig:
    return joined(request.config, hosts=1)


@pytest.fixture(scope="module")
def lab(rig: Rig) -> Iterator[Lab]:
    assert PROGRAM is not None
    program = base64.b64encode(Path(PROGRAM).read_bytes()).decode()
    rig.inside(HOST, "sh", "-ec", "mkdir -p /root/b; base64 -d >/root/b/llama-swap; chmod 755 /root/b/*", stdin=program)
    rig.inside(HOST, "sh", "-ec", "cat >/root/b/llama-server; chmod 755 /root/b/llama-server", stdin=SERVER)
    llama = next(b.image for b in builds.of("llama.cpp") if b.flavour == "vulkan" and b.image)
    swap = next(b.image for b in builds.of("llama-swap") if b.image)
    server, front = (f"{rig.registry}/{image.partition('/')[2]}" for image in (llama, swap))
    script = (
        f"cd /root/b; printf 'FROM {server}\\nCOPY llama-swap llama-server /app/\\n' >Dockerfile;"
        f"docker build -q -t {front} .; docker tag {front} {server};"
        "mkdir -p /dev/dri; [ -e /dev/dri/renderD128 ] || mknod /dev/dri/renderD128 c 1 3"
    )
    rig.sh(HOST, script)
    gateway = {"engine": "llama-swap", "queue": None, "idle": "1 h"}
    with example(rig, "swap-box", {**overlay(rig), "gateway": gateway}, 8888) as made:
        made.ok("apply", "--yes")
        yield made
    rig.sh(HOST, f"rm -r /dev/dri /root/b; docker rmi {front} {server}", check=False)


def test_twelve_models_in_one_container(lab: Lab) -> None:
    """Each answers as itself; what is loaded fits the card at every step; Docker's socket is nobody's."""
    most = 0
    for name in (*SIZES, "gpt-oss-120b"):
        assert lab.chat(name) == f"I am {name}"
        loaded = {model["model"] for model in httpx.get(f"{lab.url}/running").json()["running"]}
        assert name in loaded
        assert sum(SIZES[one] for one in loaded) <= CARD, loaded
        most = max(most, len(loaded))
    assert most > 2, "what fits together stays"
    assert lab.sh("docker ps --format '{{.Names}}'").splitlines() == ["swap-box-gateway"]
    assert "docker.sock" not in lab.sh("docker inspect swap-box-gateway")
    assert lab.todo() == set()
