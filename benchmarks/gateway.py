"""``python -m benchmarks.gateway``: the built-in gateway against a direct connection, llama-swap and LiteLLM.

The same real llama.cpp servers behind each, in one run. llama-swap is looked for on PATH or at ``$LLAMA_SWAP``; LiteLLM
is the installed one. What is missing is said and left out. Latency is what a kept connection sees of one small answer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import httpx

from labctl.emit import Value, yaml
from tests.swap.bench import GIB, Bench, bench, free_port, wait_for

CLIENTS: Final = (1, 16, 64)
BODY: Final = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
_LITELLM: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # a benchmark on loopback
}
AIM_ADDED_MS: Final = 1.0
AIM_WAITING_MB: Final = 150


@dataclass(frozen=True)
class Figures:
    """What one way to a server costs. Milliseconds and requests per second."""

    p50: float
    p99: float
    rate: float


async def _client(session: aiohttp.ClientSession, url: str, model: str, until: float, found: list[float]) -> None:
    while time.perf_counter() < until:
        begun = time.perf_counter()
        try:
            async with session.post(f"{url}/v1/chat/completions", json={**BODY, "model": model}) as response:
                await response.read()
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            continue  # llama.cpp closes a kept connection now and then, at the moment it is used
        if response.status != 200:
            message = f"{url}: {response.status}"
            raise RuntimeError(message)
        found.append((time.perf_counter() - begun) * 1000)


async def load(url: str, model: str, clients: int, seconds: float) -> Figures:
    """Ask again and again with so many clients at once."""
    found: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await _client(session, url, model, time.perf_counter() + 0.3, [])
        begun = time.perf_counter()
        await asyncio.gather(*(_client(session, url, model, begun + seconds, found) for _ in range(clients)))
    taken = time.perf_counter() - begun
    ordered = sorted(found)
    return Figures(statistics.median(ordered), ordered[int(len(ordered) * 0.99)], len(ordered) / taken)


async def first_token(url: str, model: str, times: int) -> float:
    """Return the median of the milliseconds until a stream begins."""
    found = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for _ in range(times):
            begun = time.perf_counter()
            async with session.post(
                f"{url}/v1/chat/completions", json={**BODY, "model": model, "stream": True}
            ) as response:
                await response.content.readany()
                found.append((time.perf_counter() - begun) * 1000)
                await response.read()
    return statistics.median(found)


async def in_turn(url: str, models: Sequence[str], rounds: int, clients: int) -> float:
    """Return the seconds that clients take who ask for models in turn."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(first: int) -> None:
            for i in range(rounds):
                model = models[(first + i) % len(models)]
                async with session.post(f"{url}/v1/chat/completions", json={**BODY, "model": model}) as response:
                    await response.read()

        begun = time.perf_counter()
        await asyncio.gather(*(one(i) for i in range(clients)))
        return time.perf_counter() - begun


async def waiting(url: str, model: str, pid: int, clients: int) -> float:
    """Return the gateway's resident memory in MB while so many clients wait."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> None:
            async with session.post(f"{url}/v1/chat/completions", json={**BODY, "model": model}) as response:
                await response.read()

        tasks = [asyncio.ensure_future(one()) for _ in range(clients)]
        most = 0.0
        while not all(task.done() for task in tasks):
            most = max(most, resident(pid))
            await asyncio.sleep(0.02)
        await asyncio.gather(*tasks)
    return most


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def running(command: Sequence[str], health: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block lasts."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        wait_for(health, process, 240)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def llama_swap(it: Bench, port: int, *, start: bool) -> list[str] | None:
    """Return llama-swap's command for the same servers; with ``start`` it starts them itself, one at a time."""
    program = os.environ.get("LLAMA_SWAP") or shutil.which("llama-swap")
    if program is None:
        return None
    models: dict[str, Value] = {}
    for name in it.names:
        own = free_port()
        flags = f"--model {it.folder}/{name}.gguf --host 127.0.0.1 --port {own} --parallel 2 --ctx-size 2048"
        models[name] = {
            "cmd": f"{sys.executable} -m labctl.embedded.llama_server {flags}" if start else "sleep 1000000",
            "proxy": f"http://127.0.0.1:{own}" if start else it.server_url(name),
            "checkEndpoint": "/health",
            "concurrencyLimit": 1000,
        }
    path = it.folder / "llama-swap.yaml"
    path.write_text(yaml.dump({"healthCheckTimeout": 60, "models": models}))
    return [program, "--config", str(path), "--listen", f"127.0.0.1:{port}"]


def litellm(it: Bench, port: int) -> list[str] | None:
    """Return LiteLLM's command for the same servers."""
    if shutil.which("litellm", path=str(Path(sys.executable).parent)) is None:
        return None
    entries: list[Value] = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": f"{it.server_url(name)}/v1", "api_key": "none"},
        }
        for name in it.names
    ]
    path = it.folder / "litellm.yaml"
    path.write_text(yaml.dump({"model_list": entries}))
    return [sys.executable, "-m", "labctl.embedded.litellm_proxy", "--config", str(path), "--port", str(port)]


def latency(it: Bench, seconds: float) -> dict[str, dict[int, Figures]]:
    """Measure every way to the first server."""
    name, found = it.names[0], dict[str, dict[int, Figures]]()
    ways: list[tuple[str, str, list[str] | None]] = [("direct", it.server_url(name), [])]
    ports = {"llama-swap": free_port(), "LiteLLM": free_port()}
    commands = {
        "llama-swap": llama_swap(it, ports["llama-swap"], start=False),
        "LiteLLM": litellm(it, ports["LiteLLM"]),
    }
    ways += [(label, f"http://127.0.0.1:{port}", commands[label]) for label, port in ports.items()]
    it.gateway(it.config(queue=2000))
    ways.insert(1, ("labctl", it.url, []))
    for label, url, command in ways:
        if command is None:
            print(f"skipped: {label} is not installed")
        elif command:
            health = f"{url}/health/liveliness" if label == "LiteLLM" else f"{url}/health"
            with running(command, health, _LITELLM):
                found[label] = _each(url, name, seconds)
        else:
            found[label] = _each(url, name, seconds)
    return found


def _each(url: str, name: str, seconds: float) -> dict[int, Figures]:
    asyncio.run(first_token(url, name, 3))
    figures = {clients: asyncio.run(load(url, name, clients, seconds)) for clients in CLIENTS}
    ttft = asyncio.run(first_token(url, name, 40))
    return {**figures, 0: Figures(ttft, ttft, 0)}


def _table(found: Mapping[str, Mapping[int, Figures]]) -> None:
    direct = found["direct"]
    print(f"{'':12}" + "".join(f"{f'{c} clients: p50 / p99 ms, req/s':>34}" for c in CLIENTS) + f"{'first token':>14}")
    for label, figures in found.items():
        cells = (f"{figures[c].p50:8.2f} / {figures[c].p99:7.2f}, {figures[c].rate:7.0f}" for c in CLIENTS)
        print(f"{label:12}" + "".join(f"{cell:>34}" for cell in cells) + f"{figures[0].p50:11.2f} ms")
    print("\nadded over a direct connection at p50, one client (ms), and to the first token:")
    added = {label: figures[1].p50 - direct[1].p50 for label, figures in found.items() if label != "direct"}
    for label, value in added.items():
        print(f"  {label:12} {value:7.2f} {found[label][0].p50 - direct[0].p50:7.2f}")
    print(f"  aim of labctl: ≤ {AIM_ADDED_MS} ms: {'met' if added['labctl'] <= AIM_ADDED_MS else 'missed'}")
    for label in added.keys() - {"labctl"}:
        print(f"  labctl adds {added['labctl'] / added[label]:.2f}x of what {label} adds")


def _loads(it: Bench) -> int:
    figures = httpx.get(f"{it.url}/metrics").text.splitlines()
    return int(sum(float(line.split()[-1]) for line in figures if line.startswith("labctl_loads_total{")))


def swapping(rounds: int, clients: int) -> None:
    """Two models of which one fits, asked for in turn."""
    with bench(["ant", "bee"]) as it:
        it.gateway(it.config(cards={"gpu": 5 * GIB}, queue=2000, patience=20))
        taken = asyncio.run(in_turn(it.url, it.names, rounds, clients))
        print(f"\n{clients} clients, {rounds} requests each, A/B in turn, one fits:")
        print(f"  labctl       {taken:6.1f} s, {_loads(it)} loads")
        port = free_port()
        command = llama_swap(it, port, start=True)
        if command is not None:
            log = it.folder / "llama-swap.log"
            with running(command, f"http://127.0.0.1:{port}/health", {}):
                taken = asyncio.run(in_turn(f"http://127.0.0.1:{port}", it.names, rounds, clients))
            starts = "" if not log.exists() else log.read_text()
            print(f"  llama-swap   {taken:6.1f} s{starts}")


def memory(clients: int) -> None:
    """How much the gateway takes while many wait."""
    with bench(["ant"]) as it:
        process = it.gateway(it.config(queue=clients + 10))
        it.ask("ant")
        before = resident(process.pid)
        most = asyncio.run(waiting(it.url, "ant", process.pid, clients))
        verdict = "met" if most <= AIM_WAITING_MB else "missed"
        print(f"\nmemory: {before:.0f} MB at rest, {most:.0f} MB with {clients} clients waiting")
        print(f"  aim: ≤ {AIM_WAITING_MB} MB: {verdict}")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seconds per figure instead of eight")
    chosen = parser.parse_args()
    with bench(["ant", "bee"], autostart=["ant"]) as it:
        _table(latency(it, 2 if chosen.quick else 8))
    swapping(10 if chosen.quick else 30, 8)
    memory(1000)


if __name__ == "__main__":
    main()
