"""A home of its own for a lab: nothing of the person who runs the tests is seen or touched."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from labctl.cli.funnel import run
from labctl.hosts.supervisor import Call
from tests.cli.running import Ran

for module in ("xllamacpp", "supervisor"):
    pytest.importorskip(module, reason=f"{module} is not installed: no real servers to run")

PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with a home, a state folder and a lab; short, because a unix socket lies in it."""

    folder: Path
    lab: Path
    name: str = "quickstart"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "home/.local/state/labctl" / self.name

    @property
    def key_file(self) -> Path:
        return self.folder / "state/labctl/secrets" / f"{self.name}.env"

    def write(self, text: str) -> None:
        self.lab.joinpath("lab.yaml").write_text(text)

    def run(self, *arguments: str) -> Ran:
        """Run labctl in this process: a start of Python less each time."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        before = Path.cwd()
        with patch.dict(os.environ, self.environment, clear=True), redirect_stdout(out), redirect_stderr(err):
            os.chdir(self.lab)
            try:
                code = run(list(arguments))
            finally:
                os.chdir(before)
        texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
        assert "bug in labctl" not in texts[1], texts[1]
        return Ran(code, *texts)

    def ok(self, *arguments: str) -> Ran:
        ran = self.run(*arguments)
        assert ran.code == 0, ran.out + ran.err
        return ran

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Start labctl as a process of its own, to be killed or to run beside another."""
        command = [sys.executable, "-m", "labctl", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.lab, env=dict(self.environment), **pipes)  # type: ignore[call-overload, no-any-return]

    def changes(self, *arguments: str) -> list[tuple[str, str, str]]:
        """Return what a plan would do: kind, name and action, without what stays."""
        plan = json.loads(self.ok("plan", "--json", *arguments).out)
        return sorted((c["kind"], c["name"], c["action"]) for c in plan["changes"] if c["action"] != "noop")

    def supervisor(self) -> Call:
        return Call(str(self.root / "supervisor.sock"))

    def programs(self) -> dict[str, tuple[int, int]]:
        """Return the process number and start time of each program that runs."""
        known = self.supervisor()("getAllProcessInfo")
        return {p["name"]: (p["pid"], started(p["pid"])) for p in known if p["pid"]}

    def processes(self) -> dict[int, str]:
        """Return every process that lives in this place, by its home."""
        mark = f"HOME={self.folder / 'home'}".encode()
        return dict(_processes(mark))

    def files(self) -> list[str]:
        """Return every file and socket that is left in the home and in the state folder."""
        places = (self.folder / "home", self.folder / "state")
        return sorted(str(p.relative_to(self.folder)) for place in places for p in place.rglob("*") if not p.is_dir())


def _processes(mark: bytes) -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:
                    yield int(path.name), command
        except OSError:
            continue


def started(pid: int) -> int:
    """Return when a process started, in ticks since boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@contextmanager
def place(text: str) -> Iterator[Place]:
    """Yield a place with this lab; afterwards whatever still runs there is killed and everything removed."""
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    for name in ("home", "state", "lab"):
        (folder / name).mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "XDG_STATE_HOME": str(folder / "state")}
    made = Place(folder, folder / "lab", environment=environment)
    made.write(text)
    try:
        yield made
    finally:
        for _ in range(3):
            for pid in made.processes():
                _kill(pid)
        shutil.rmtree(folder)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def until(condition: Any, patience: float = PATIENCE) -> None:
    """Wait until a condition holds; fails when it does not."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def is_free(port: int) -> bool:
    """Tell whether nothing answers at a port."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/health", timeout=5)
    except httpx.ConnectError:
        return True
    return False


def ask(url: str, key: str | None, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
    """Send a request to a gateway or server, with or without a key."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if body is None:
        return httpx.get(f"{url}{path}", headers=headers, timeout=60)
    return httpx.post(f"{url}{path}", json=dict(body), headers=headers, timeout=60)


def said(answer: httpx.Response) -> str:
    """Return the text of a chat answer."""
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Who are you?"}]}


def lines_until(process: subprocess.Popen[str], number: int) -> Sequence[str]:
    """Read that many lines of a process's output, or as many as come."""
    assert process.stdout is not None
    lines: list[str] = []
    while len(lines) < number and (line := process.stdout.readline()):
        lines.append(line)
    return lines
