"""A lab with the built-in gateway, applied: three models share a card of which two fit. The card itself is not there.

llama.cpp runs on the CPU; what each server takes of the card is declared, so that the gateway's books are real and the
memory is not.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import Place, ask, chat, place, said
from tests.embedded.servers import free_port

for module in ("uvicorn", "aiohttp", "prometheus_client"):
    pytest.importorskip(module, reason=f"{module} is not installed: no gateway to run")
pytestmark = pytest.mark.slow
NAMES = ("ant", "bee", "cow")
GATEWAY = free_port()
PORTS = {name: free_port() for name in NAMES}


def lab(**more: str) -> str:
    """Return a lab whose servers say their names."""
    models = "".join(f"  {name}: {{tiny: {{says: I am {name}}}}}\n" for name in NAMES)
    deployments = "".join(
        f"  {name}: {{model: {name}, engine: llama.cpp, flavour: embedded, on: {{host: here, gpus: [0]}},"
        f" vram: {{declared: 5 GiB}}, start: on-demand, port: {PORTS[name]}, context: 512, startup: 60 s}}\n"
        for name in NAMES
    )
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    return (
        "lab: quickstart\nhosts:\n  here: {target: local, gpus: [{model: RTX 3060}]}\n"
        f"models:\n{models}deployments:\n{deployments}groups: {{gpu: {{swap: [{', '.join(NAMES)}]}}}}\n"
        f"gateway: {{engine: builtin, host: here, port: {GATEWAY}, keys: {{master: GATEWAY_KEY}}{keys}}}\n"
        "secrets: {from: environment, generate: GATEWAY_KEY}\n"
    )


@pytest.fixture
def here() -> Iterator[Place]:
    with place(lab()) as made:
        yield made


def up(where: Place) -> set[str]:
    return set(where.programs()) - {"gateway"}


def test_swapping_lab(here: Place) -> None:
    """Applied; asked; never more than fit; no change on the second apply; gone when destroyed."""
    here.ok("apply", "--yes")
    assert up(here) == set()
    url = f"http://127.0.0.1:{GATEWAY}"
    key = here.key_file.read_text().partition("=")[2].strip().strip("'\"")
    assert ask(url, "wrong", "/v1/chat/completions", chat("ant")).status_code == 401
    for name in ("ant", "bee", "ant", "cow", "bee"):
        assert said(ask(url, key, "/v1/chat/completions", chat(name))) == f"I am {name}"
        assert name in up(here)
        assert len(up(here)) <= 2
    assert here.run("plan", "--detailed-exitcode").code == ExitCode.OK, "what the gateway does is no drift"
    assert here.run("status").code == ExitCode.OK
    figures = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    assert "labctl_loads_total" in figures
    assert key not in here.root.joinpath("gateway/gateway.json").read_text()
    here.write(lab(queue="{requests: 7}"))
    assert here.changes() == [("file", "gateway/gateway.json", "update"), ("unit", "gateway", "restart")]
    before = here.programs()
    here.ok("apply", "--yes")
    assert {n: p for n, p in here.programs().items() if n != "gateway"} == {
        n: p for n, p in before.items() if n != "gateway"
    }, "a new gateway goes on with the servers that run"
    assert said(ask(url, key, "/v1/chat/completions", chat("bee"))) == "I am bee"
    assert httpx.get(f"{url}/health").json()["queue"]["capacity"] == 7
    here.ok("destroy", "--yes", "--data")
    assert here.processes() == {}
    assert here.files() == []
