"""A lab with LiteLLM in front and labctl's own gateway behind it: real LiteLLM, real llama.cpp, one of two models fits.

llama.cpp runs on the CPU; what each server takes of the card is declared, and the card is not there.
"""

from __future__ import annotations

import json

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import ask, chat, place, said
from tests.embedded.servers import free_port

for module in ("litellm", "prisma", "uvicorn", "aiohttp", "prometheus_client"):
    pytest.importorskip(module, reason=f"{module} is not installed: no gateways to run")
pytestmark = pytest.mark.slow
NAMES = ("ant", "bee")


def test_litellm_before_a_gateway_that_swaps() -> None:
    """Asked in turn, each answers as itself, and never are both loaded; a server that always runs is asked directly."""
    ports = {name: free_port() for name in ("gateway", "swap")}
    models = "".join(f"  {name}: {{tiny: {{says: I am {name}}}}}\n" for name in (*NAMES, "fox"))
    common = "engine: llama.cpp, flavour: embedded, context: 512"
    deployments = "".join(
        f"  {name}: {{model: {name}, {common}, on: {{host: here, gpus: [0]}}, vram: {{declared: 7 GiB}},"
        f" start: on-demand, startup: 60 s, serves: [{name}, {name}:1b]}}\n"
        for name in NAMES
    )
    lab = (
        "lab: quickstart\nhosts:\n  here: {target: local, gpus: [{model: RTX 3060}]}\n"
        f"models:\n{models}deployments:\n{deployments}  fox: {{model: fox, {common}, on: {{host: here}}}}\n"
        f"groups: {{gpu: {{swap: [{', '.join(NAMES)}]}}}}\n"
        f"gateway: {{engine: litellm, port: {ports['gateway']}, swap: {{port: {ports['swap']}, key: SWAP_KEY}}}}\n"
        "secrets: {from: environment, generate: [LITELLM_MASTER_KEY, SWAP_KEY]}\n"
    )
    with place(lab) as here:
        here.ok("apply", "--yes")
        assert set(here.programs()) == {"gateway", "gateway-here", "fox"}
        keys = dict(line.split("=", 1) for line in here.key_file.read_text().splitlines() if "=" in line)
        key = keys["LITELLM_MASTER_KEY"].strip("'\"")
        url = f"http://127.0.0.1:{ports['gateway']}"
        for name in ("ant", "bee", "fox", "ant:1b"):
            assert said(ask(url, key, "/v1/chat/completions", chat(name))) == f"I am {name[:3]}"
            up = set(here.programs()) - {"gateway", "gateway-here", "fox"}
            assert up <= {name[:3]} or name == "fox"
        behind = f"http://127.0.0.1:{ports['swap']}"
        assert ask(behind, None, "/v1/models").status_code == 401
        listed = {model["id"] for model in ask(url, key, "/v1/models").json()["data"]}
        assert {"ant", "bee", "fox", "ant:1b"} <= listed
        assert here.run("plan", "--detailed-exitcode").code == ExitCode.OK
        shown = json.loads(here.root.joinpath("gateway-here/gateway.json").read_text())
        assert {backend["name"] for backend in shown["backends"]} == {*NAMES, "fox"}
        here.ok("destroy", "--yes", "--data")
        assert here.processes() == {}
