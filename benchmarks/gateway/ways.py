"""The ways to a server that are compared, each started for the same real servers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from labctl.emit import Value, yaml
from tests.swap.bench import Bench, free_port

START: Final = 240.0
"""Seconds that LiteLLM may take to start on a busy machine."""
_LITELLM: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # a benchmark on loopback
}


@dataclass(frozen=True)
class Way:
    """One way to a server; ``process`` is what stands between, None when nothing does."""

    name: str
    url: str
    process: subprocess.Popen[bytes] | None = None

    def cpu(self) -> float:
        """Return the seconds for which processors worked for what stands between, all its threads."""
        return 0.0 if self.process is None else _cpu(self.process.pid)

    def resident(self) -> float:
        """Return its resident memory in MB."""
        return 0.0 if self.process is None else resident(self.process.pid)


def _cpu(pid: int) -> float:
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            nanoseconds += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # a thread that has just ended
    return nanoseconds / 1e9


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def launched(name: str, command: Sequence[str], url: str, environment: Mapping[str, str]) -> Iterator[Way]:
    """Run a server while the block lasts; it need not answer yet."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env={**os.environ, **environment})
    try:
        yield Way(name, url, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(way: Way, model: str) -> bool:
    """Wait until a way leads to an answer of ``model``; False when what stands between has ended."""
    deadline = time.monotonic() + START
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    while time.monotonic() < deadline and (way.process is None or way.process.poll() is None):
        try:
            if httpx.post(f"{way.url}/v1/chat/completions", json=body, timeout=60).status_code == 200:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    return False


def bare(it: Bench) -> tuple[list[str], str]:
    """Return the bare pass-through's command and address."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway.bare", "--to", it.server_url(it.names[0]), "--port", str(port)]
    return command, f"http://127.0.0.1:{port}"


def llama_swap(it: Bench, *, start: bool) -> tuple[list[str], str] | None:
    """Return llama-swap's command and address; with ``start`` it starts the servers itself, one at a time.

    Each start leaves a line in the bench's ``starts``.
    """
    program = os.environ.get("LLAMA_SWAP") or shutil.which("llama-swap")
    if program is None:
        return None
    models: dict[str, Value] = {}
    for name in it.names:
        own = free_port()
        flags = f"--model {it.folder}/{name}.gguf --host 127.0.0.1 --port {own} --parallel 2 --ctx-size 2048"
        server = f"exec {sys.executable} -m labctl.embedded.llama_server {flags}"
        models[name] = {
            "cmd": f"sh -c 'echo {name} >>{it.folder}/starts; {server}'" if start else "sleep 1000000",
            "proxy": f"http://127.0.0.1:{own}" if start else it.server_url(name),
            "checkEndpoint": "/health",
            "concurrencyLimit": 2000,
        }
    path, port = it.folder / "llama-swap.yaml", free_port()
    path.write_text(yaml.dump({"healthCheckTimeout": 60, "models": models}))
    return [program, "--config", str(path), "--listen", f"127.0.0.1:{port}"], f"http://127.0.0.1:{port}"


def litellm(it: Bench) -> tuple[list[str], str, Mapping[str, str]] | None:
    """Return LiteLLM's command, address and environment."""
    if shutil.which("litellm", path=str(Path(sys.executable).parent)) is None:
        return None
    entries: list[Value] = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": f"{it.server_url(name)}/v1", "api_key": "none"},
        }
        for name in it.names
    ]
    path, port = it.folder / "litellm.yaml", free_port()
    path.write_text(yaml.dump({"model_list": entries}))
    command = [sys.executable, "-m", "labctl.embedded.litellm_proxy", "--config", str(path), "--port", str(port)]
    return [*command, "--host", "127.0.0.1"], f"http://127.0.0.1:{port}", _LITELLM
