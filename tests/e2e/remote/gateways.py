"""Labs with the built-in gateway on a real host: the examples' own lab.yaml, with an overlay for what the rig lacks.

The overlay brings models of labctl's own, each of which says its name, and the rig's address and registry. Cards are
not there: llama.cpp runs on processors, and what each server takes of a card is declared.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from labctl.emit import Value, yaml
from tests.cli.running import Ran
from tests.e2e.place import ask, chat, said
from tests.e2e.remote.home import Home, home
from tests.rig.rig import PROGRAM, Rig

EXAMPLES = Path(__file__).parents[3] / "examples"
HOST = "lab1"
OBSERVE = """
import http.client, json, select, socket, sys
class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect('/run/docker.sock')
last = None
while not select.select([sys.stdin], [], [], 0.02)[0]:
    try:
        engine = Engine('docker', timeout=5)
        engine.request('GET', '/containers/json')
        now = sorted(c['Names'][0] for c in json.load(engine.getresponse()))
        engine.close()
    except (OSError, ValueError, http.client.HTTPException):
        continue
    if now != last:
        last = now
        print(json.dumps(now), flush=True)
"""
"""Asks Docker again and again what runs, from outside of the gateway, and tells when that changes."""


def sentence(name: str) -> str:
    """Return what a model answers."""
    return f"I am {name}"


@dataclass(frozen=True, slots=True)
class Lab:
    """An example that is applied to the rig's host, and how to ask its gateway."""

    home: Home
    port: int
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.home.rig.address(HOST)}:{self.port}"

    def run(self, command: str, *arguments: str) -> Ran:
        return self.home.run(command, "--overlay", "rig", *arguments)

    def ok(self, command: str, *arguments: str) -> Ran:
        ran = self.run(command, *arguments)
        assert ran.code == 0, ran.out + ran.err
        return ran

    def todo(self) -> set[str]:
        """Return what a plan would do, as ``action name``."""
        plan = json.loads(self.run("plan", "--json").out)
        return {f"{c['action']} {c['name']}" for c in plan["changes"] if c["action"] != "noop"}

    def chat(self, model: str) -> str:
        """Return what a model answers."""
        return said(self.post(model))

    def post(self, model: str) -> httpx.Response:
        """Ask a model."""
        return ask(self.url, self.key or None, "/v1/chat/completions", chat(model))

    def state(self) -> dict[str, Any]:
        """Return what the dashboard is told."""
        return dict(ask(self.url, self.key or None, "/api/state").json())

    def phases(self) -> dict[str, str]:
        """Return in which phase each server is, as the gateway believes."""
        return {server["name"]: server["phase"] for server in self.state()["servers"]}

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a script as root on the host."""
        return self.home.rig.sh(HOST, script, check=check)


@contextmanager
def example(rig: Rig, name: str, overlay: Mapping[str, Value], port: int, key: str = "") -> Iterator[Lab]:
    """Yield an example's folder with an overlay ``rig``; what was applied from it is destroyed afterwards."""
    text = (EXAMPLES / name / "lab.yaml").read_text()
    with home(rig, text, {"JETSON_API_KEY": key} if key else {}) as made:
        lab = Lab(made, port, key)
        (made.lab / "lab.rig.yaml").write_text(yaml.dump(overlay))
        yield lab
        lab.run("destroy", "--yes", "--data", "--break-lock")


@dataclass
class Observer:
    """What ran at the same time, as Docker says: not as the gateway believes."""

    seen: list[frozenset[str]] = field(default_factory=list)

    def most(self, memory: Mapping[str, int]) -> int:
        """Return the bytes that servers took at most at the same time."""
        return max(sum(memory.get(name, 0) for name in names) for names in self.seen)


@contextmanager
def observed(prefix: str) -> Iterator[Observer]:
    """Observe the containers whose names begin with ``prefix``."""
    command: Sequence[str] = [str(PROGRAM), "inside", HOST, "python3", "-c", OBSERVE]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    observer = Observer()
    assert process.stdin is not None
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            names = (name.removeprefix("/") for name in json.loads(line))
            observer.seen.append(frozenset(n.removeprefix(prefix) for n in names if n.startswith(prefix)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield observer
    finally:
        process.stdin.close()
        reader.join()
        process.stdout.close()
        assert process.wait() == 0
