"""Starts real servers as child processes of a test and ends exactly those."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Running:
    """A child process that answers at ``url``; ``started`` is how many seconds it took."""

    process: subprocess.Popen[bytes]
    url: str
    started: float

    def ask(self, path: str, body: Mapping[str, Any], key: str = "none", timeout: float = 60) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{self.url}{path}", json=dict(body), headers=headers, timeout=timeout)

    def say(self, model: str, key: str = "none", **more: Any) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], **more}
        answer = self.ask("/v1/chat/completions", body, key)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def stream(self, model: str, key: str = "none") -> list[str]:
        body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], "stream": True}
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{self.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        deltas = [json.loads(line)["choices"] for line in lines if line != "[DONE]"]
        return [choices[0]["delta"].get("content") or "" for choices in deltas if choices]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(
    module: str, *args: str, health: str, log: Path, patience: float = 30, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run ``python -m module`` with ``--port`` until the block ends; fail with its log when it stays unhealthy."""
    port = free_port()
    command = [sys.executable, "-m", module, *args, "--host", "127.0.0.1", "--port", str(port)]
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(env or {})})
    try:
        url = f"http://127.0.0.1:{port}"
        while not _healthy(url + health):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - begin < patience, log.read_text()
            time.sleep(0.02)
        yield Running(process, url, time.monotonic() - begin)
    finally:
        process.kill()
        process.wait()


def llama(model: Path, *args: str) -> Any:
    """Serve a model with the embedded llama.cpp, one thread, beside it a log."""
    log = model.with_suffix(".log")
    words = ["-m", str(model), "-t", "1", "-fit", "off", "-c", "1024", *args]
    return running("labctl.embedded.llama_server", *words, health="/health", log=log)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
