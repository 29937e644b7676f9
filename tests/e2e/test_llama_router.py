"""A lab with llama.cpp's router as its gateway, applied: a real llama-server with three models, of which any two fit.

The card is not there: what each server takes of it is declared, and llama.cpp is told to use none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import Place, ask, chat, place, said
from tests.embedded.servers import free_port

PROGRAM = shutil.which(os.environ.get("LLAMA_SERVER", "llama-server"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no llama-server on PATH or at $LLAMA_SERVER: its router is not tested"),
]
NAMES = ("ant", "bee", "cow")
GATEWAY = free_port()


def lab() -> str:
    """Return a lab whose servers say their names."""
    models = "".join(f"  {name}: {{tiny: {{says: I am {name}}}}}\n" for name in NAMES)
    deployments = "".join(
        f"  {name}: {{model: {name}, engine: llama.cpp, on: {{host: here, gpus: [0]}}, vram: {{declared: 5 GiB}},"
        f" start: on-demand, context: 512, serves: [{name}, {name}:1b], args: [--device, none]}}\n"
        for name in NAMES
    )
    return (
        "lab: quickstart\nhosts:\n  here: {target: local, gpus: [{model: RTX 3060}]}\n"
        f"models:\n{models}deployments:\n{deployments}groups: {{gpu: {{swap: [{', '.join(NAMES)}]}}}}\n"
        f"gateway: {{engine: llama-router, port: {GATEWAY}, preload: [cow], keys: {{master: ROUTER_KEY}}}}\n"
        "secrets: {from: environment, generate: ROUTER_KEY}\n"
    )


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    assert PROGRAM is not None
    beside = Path(PROGRAM).resolve()
    script = tmp_path / "llama-server"
    script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{beside.parent}" exec "{beside}" "$@"\n')
    script.chmod(0o755)
    with place(lab()) as made:
        yield replace(made, environment={**made.environment, "PATH": f"{tmp_path}:{made.environment['PATH']}"})


def test_lab_with_the_router(here: Place) -> None:
    """Applied; asked in turn; never more than two loaded; every option of the presets is one that it knows."""
    here.ok("apply", "--yes")
    assert set(here.programs()) == {"gateway"}
    url = f"http://127.0.0.1:{GATEWAY}"
    key = here.key_file.read_text().partition("=")[2].strip().strip("'\"")

    def loaded() -> set[str]:
        answer = ask(url, key, "/models").json()["data"]
        return {model["id"] for model in answer if model["status"]["value"] != "unloaded"}

    assert loaded() <= {"cow"}, "it may still be loading"
    assert ask(url, "wrong", "/v1/chat/completions", chat("ant")).status_code == 401
    for name in ("ant", "bee", "cow", "ant", "bee:1b"):
        assert said(ask(url, key, "/v1/chat/completions", chat(name))) == f"I am {name[:3]}"
        assert name[:3] in loaded()
        assert len(loaded()) <= 2
    assert here.run("plan", "--detailed-exitcode").code == ExitCode.OK
    here.ok("destroy", "--yes", "--data")
    assert here.processes() == {}
