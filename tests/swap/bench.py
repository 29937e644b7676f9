"""Real llama.cpp servers under a real supervisord, and the gateway in front of them. Each model says its own name."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from labctl.emit.ini import dump
from labctl.swap.drivers import Supervisor
from labctl.tiny.scripted import scripted

GIB = 1 << 30
PATIENCE = 60.0


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Bench:
    """A folder with models, a supervisord and what the gateway is told."""

    folder: Path
    names: tuple[str, ...]
    ports: dict[str, int]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    commands: Mapping[str, str] = field(default_factory=dict)
    context: int = 2048
    url: str = ""

    @property
    def socket(self) -> str:
        """Where supervisord listens."""
        return str(self.folder / "s.sock")

    def server_url(self, name: str) -> str:
        """Where a model server is reached without the gateway."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def config(self, **changes: Any) -> dict[str, Any]:
        """Return a configuration: every model takes 4 of 9 GiB."""
        backends = [
            {
                "name": name,
                "url": self.server_url(name),
                "serves": [name],
                "memory": {"gpu": 4 * GIB},
                "slots": 2,
                "startup": 30,
                "timeout": 30,
                "driver": {"kind": "supervisor", "id": name, "at": self.socket},
            }
            for name in self.names
        ]
        return {"backends": backends, "cards": {"gpu": 9 * GIB}, "port": free_port(), **changes}

    def call(self, method: str, *arguments: Any) -> Any:
        """Ask supervisord."""
        return Supervisor(self.socket)._call(method, arguments)

    def running(self) -> set[str]:
        """Return which servers have a process, as supervisord says: not as the gateway believes."""
        up = {"RUNNING", "STARTING", "STOPPING"}
        return {p["name"] for p in self.call("getAllProcessInfo") if p["statename"] in up}

    def gateway(self, config: Mapping[str, Any], *, before: str = "", files: int = 0) -> subprocess.Popen[bytes]:
        """Start a gateway and wait until it answers.

        Args:
            config: what it is told.
            before: Python that its process runs first, to be given another clock or less patience.
            files: files that it may open unless it asks for more.
        """
        path = self.folder / "gateway.json"
        path.write_text(json.dumps(config))
        program = f"{before}\nimport sys\nfrom labctl.swap.__main__ import main\nsys.exit(main())"
        command = [sys.executable, "-c", program, "--config", str(path)]
        few = ["prlimit", f"--nofile={files}:8192"] if files else []
        with (self.folder / "gateway.log").open("ab") as log:
            process = subprocess.Popen([*few, *command], stdout=log, stderr=log)
        self.processes.append(process)
        self.url = f"http://127.0.0.1:{config['port']}"
        wait_for(f"{self.url}/health", process)
        return process

    def log(self) -> str:
        """Return what gateways have said."""
        return (self.folder / "gateway.log").read_text()

    def reset(self) -> None:
        """End every gateway and every server."""
        for process in self.processes:
            process.kill()
            process.wait(30)
        self.processes.clear()
        self.call("stopAllProcesses")

    def ask(self, model: str, client: httpx.Client | None = None, **more: Any) -> str:
        """Ask for a chat answer and return it."""
        body = {"model": model, "messages": [{"role": "user", "content": "who are you?"}], **more}
        response = (client or httpx).post(f"{self.url}/v1/chat/completions", json=body, timeout=PATIENCE)
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"]).strip()


def sentence(name: str) -> str:
    """Return what a model answers."""
    return f"I am {name}."


def wait_for(url: str, process: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """Wait until something answers."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, f"it ended with {process.returncode}"
        time.sleep(0.05)
    message = f"{url} does not answer"
    raise AssertionError(message)


@contextmanager
def bench(
    names: Sequence[str],
    *,
    autostart: Sequence[str] = (),
    broken: Sequence[str] = (),
    commands: Mapping[str, str] | None = None,
    models: Mapping[str, bytes] | None = None,
    context: int = 2048,
) -> Iterator[Bench]:
    """Give a bench with a server for each name.

    Args:
        names: the servers; each says its own name.
        autostart: those that run from the start.
        broken: those without a model file: they end at once.
        commands: a shell's command for a name; in it ``{server}`` is the usual one, ``{port}`` its port.
        context: tokens of both slots of a server together.
        models: model files that say something else.
    """
    folder = Path(tempfile.mkdtemp(prefix="swap", dir="/tmp"))
    it = Bench(folder, tuple(names), {name: free_port() for name in names}, commands=commands or {}, context=context)
    for name in names:
        if name not in broken:
            (folder / f"{name}.gguf").write_bytes((models or {}).get(name) or scripted(sentence(name)))
    (folder / "supervisord.conf").write_text(_conf(it, autostart))
    daemon = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-n", "-c", str(folder / "supervisord.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        _wait_for_socket(it, daemon)
        yield it
    finally:
        for process in (*it.processes, daemon):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (*it.processes, daemon):
            process.wait(30)
        shutil.rmtree(folder)


def _wait_for_socket(it: Bench, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            it.call("getState")
        except OSError:
            assert daemon.poll() is None
            time.sleep(0.05)
        else:
            return
    message = "supervisord does not answer"
    raise AssertionError(message)


def _conf(it: Bench, autostart: Sequence[str]) -> str:
    sections: dict[str, dict[str, str]] = {
        "unix_http_server": {"file": it.socket, "chmod": "0600"},
        "supervisord": {"logfile": str(it.folder / "supervisord.log"), "pidfile": str(it.folder / "pid")},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    for name in it.names:
        flags = (
            f"--model {it.folder}/{name}.gguf --host 127.0.0.1 --port {it.ports[name]} --parallel 2 --ctx-size 65536"
        )
        usual = f"{sys.executable} -m labctl.embedded.llama_server {flags} --ctx-size {it.context}"
        other = it.commands.get(name, "").format(server=usual, port=it.ports[name], python=sys.executable)
        sections[f"program:{name}"] = {
            "command": f"sh -c {shlex.quote(other)}" if other else usual,
            "autostart": str(name in autostart).lower(),
            "autorestart": "false",
            "startsecs": "0",
            "stopwaitsecs": "20" if not other else "1",
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(it.folder / f"{name}.log"),
        }
    return dump([(name, list(values.items())) for name, values in sections.items()])


class Observer:
    """Looks from the outside, again and again, at how many servers have a process at the same time."""

    def __init__(self, it: Bench) -> None:
        self._socket = it.socket
        self.seen: set[frozenset[str]] = set()

    @property
    def most(self) -> int:
        """The largest number of servers that were there at once."""
        return max((len(names) for names in self.seen), default=0)

    def __enter__(self) -> Observer:
        command = [sys.executable, "-m", "tests.swap.observer", self._socket]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"looking\n"
        return self

    def __exit__(self, *_: object) -> None:
        said, _nothing = self._process.communicate(timeout=30)
        assert self._process.returncode == 0
        self.seen = {frozenset(names) for names in json.loads(said)}
