"""A lab with llama-swap as its gateway, applied: the real program, in front of real llama.cpp servers that it runs.

Three models share a card of which two fit, and one is pinned. llama.cpp runs on the CPU and the card is not there; what
each server takes of it is declared. A server that is no child of llama-swap's is one of its peers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import Place, ask, chat, place, said
from tests.embedded.servers import free_port

PROGRAM = shutil.which(os.environ.get("LLAMA_SWAP", "llama-swap"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no llama-swap on PATH or at $LLAMA_SWAP: its part is not tested here"),
]
NAMES = ("ant", "bee", "cow", "dog")
GATEWAY = free_port()


def lab(**more: str) -> str:
    """Return a lab whose servers say their names: 2 GiB for the pinned one, room for one or two of the others."""
    sizes = {"ant": "4 GiB", "bee": "5 GiB", "cow": "6 GiB", "dog": "2 GiB"}
    models = "".join(f"  {name}: {{tiny: {{says: I am {name}}}}}\n" for name in (*NAMES, "fox"))
    deployments = "".join(
        f"  {name}: {{model: {name}, engine: llama.cpp, flavour: embedded, on: {{host: here, gpus: [0]}},"
        f" vram: {{declared: {sizes[name]}}}, start: on-demand, context: 512, startup: 60 s,"
        f" serves: [{name}, {name}:1b]}}\n"
        for name in NAMES
    )
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    return (
        "lab: quickstart\nhosts:\n  here: {target: local, gpus: [{model: RTX 3060}]}\n"
        f"models:\n{models}deployments:\n{deployments}"
        "  fox: {model: fox, engine: llama.cpp, flavour: embedded, on: {host: here}, context: 512}\n"
        f"groups: {{gpu: {{swap: [{', '.join(NAMES)}]}}}}\n"
        f"gateway: {{engine: llama-swap, host: here, port: {GATEWAY}, pin: [dog]{keys},"
        " keys: {master: GATEWAY_KEY}}\n"
        "secrets: {from: environment, generate: GATEWAY_KEY}\n"
    )


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    assert PROGRAM is not None
    (tmp_path / "llama-swap").symlink_to(PROGRAM)
    with place(lab()) as made:
        yield replace(made, environment={**made.environment, "PATH": f"{tmp_path}:{made.environment['PATH']}"})


def test_lab_with_llama_swap(here: Place) -> None:
    """Applied; asked; what it holds always fits; peers and further names answer; nothing is left when destroyed."""
    here.ok("apply", "--yes")
    assert set(here.programs()) == {"gateway", "fox"}, "its children are nobody else's"
    url = f"http://127.0.0.1:{GATEWAY}"
    key = here.key_file.read_text().partition("=")[2].strip().strip("'\"")
    assert ask(url, "wrong", "/v1/chat/completions", chat("ant")).status_code == 401
    assert httpx.get(f"{url}/v1/models").status_code == 401

    def loaded() -> set[str]:
        answer = ask(url, key, "/running")
        return {model["model"] for model in answer.json()["running"]}

    fits = [{"ant", "bee", "dog"}, {"cow", "dog"}, {"ant", "dog"}]
    for name in ("ant", "bee", "ant", "cow", "cow:1b", "bee:1b", "fox", "ant"):
        assert said(ask(url, key, "/v1/chat/completions", chat(name))) == f"I am {name[:3]}"
        held = loaded()
        assert name[:3] in held | {"fox"}
        assert "dog" in held, "what is pinned stays"
        assert any(held <= some for some in fits), held
    assert loaded() == {"ant", "bee", "dog"}, "what fits together stays together"
    listed = {model["id"] for model in ask(url, key, "/v1/models").json()["data"]}
    assert {*NAMES, "cow:1b", "fox"} <= listed
    assert here.run("plan", "--detailed-exitcode").code == ExitCode.OK, "what llama-swap does is no drift"
    assert key not in here.root.joinpath("gateway/config.yaml").read_text()
    here.write(lab(idle="5 min"))
    assert here.changes() == [("file", "gateway/config.yaml", "update"), ("unit", "gateway", "restart")]
    here.ok("destroy", "--yes", "--data")
    assert here.processes() == {}
    assert here.files() == []
