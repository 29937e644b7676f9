"""An apply that is killed at any step, or anywhere at all: the next one finishes the work, and nothing is left over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from labctl.artefact import File, ModelFile
from labctl.hosts.work import CRASH
from tests.hosts.labs import HOST, Lab, Program, free_port, snapshot

pytestmark = pytest.mark.slow
pytest.importorskip("supervisor", reason="the package supervisor is not installed")

APPLY = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
from tests.hosts.test_crash import Labs
sys.exit(Labs(**json.loads(sys.argv[1])).lab().apply().exit_code)
"""
DESTROY = APPLY.replace("apply()", "destroy()")


@dataclass
class Labs:
    """Two versions of a lab: a file goes, one comes, one changes, a program goes, one changes."""

    folder: str
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(3)])
    version: int = 1
    slow: float = 0

    def lab(self) -> Lab:
        """Return the version."""
        folder = Path(self.folder)
        source = folder / "weights"
        if not source.exists():
            source.write_bytes(b"weights" * 1000)
        model = ModelFile(host=HOST, path="models/m", url=source.as_uri())
        if self.version == 1:
            return Lab(
                folder / "root",
                {"web": Program(port=self.ports[0], secret=True, slow=self.slow), "old": Program(port=self.ports[1])},
                [
                    File(host=HOST, path="deep/er/old.txt", content=b"old"),
                    File(host=HOST, path="same.txt", content=b"first"),
                    model,
                ],
            )
        return Lab(
            folder / "root",
            {
                "web": Program(port=self.ports[0], text="second", secret=True),
                "new": Program(port=self.ports[2], after=("web",)),
            },
            [
                File(host=HOST, path="same.txt", content=b"second"),
                File(host=HOST, path="quite/new.txt", content=b"new"),
                model,
            ],
        )

    def second(self) -> Labs:
        """Return the second version in the same place."""
        return replace(self, version=2)

    def arguments(self, script: str) -> list[str]:
        """Return a process that does the script's work on this version."""
        return [sys.executable, "-c", script, json.dumps(asdict(self))]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lab-"))
    yield made
    daemon = made / "root" / "d.pid"
    if daemon.exists():  # a test has failed: its daemon must not outlive it
        os.kill(int(daemon.read_text()), signal.SIGTERM)
        time.sleep(2)
    shutil.rmtree(made)


def run(labs: Labs, script: str, step: int) -> int:
    """Do the work in a process of its own that dies before a step; return its exit status."""
    return subprocess.run(labs.arguments(script), env={**os.environ, CRASH: str(step)}, check=False).returncode


def as_the_second(lab: Lab) -> None:
    """Everything is exactly as if the second version had been applied undisturbed."""
    assert lab.apply().ok
    assert not lab.plan().applyable
    files = {
        p: t
        for p, t in snapshot(lab.root).items()
        if t != "-" and not p.startswith(("state/", "logs/", "d.pid", "s.sock")) and p != "starts.txt"
    }
    assert set(files) == {a.path for a in lab.tree().artefacts}
    assert files["same.txt"] == "second"
    assert not (lab.root / "deep").exists()
    with urllib.request.urlopen(f"http://127.0.0.1:{lab.programs['web'].port}/", timeout=5) as answer:
        assert answer.read() == b"second"


def clean(lab: Lab) -> None:
    """Destroy, and see that nothing at all is left but what the programs themselves wrote."""
    assert lab.destroy().ok
    assert set(snapshot(lab.root)) <= {"starts.txt"} if lab.root.exists() else True


@pytest.mark.parametrize("step", [2, 4, 6, 8, 10, 12])
def test_killed_before_a_step_of_an_update(folder: Path, step: int) -> None:
    labs = Labs(str(folder))
    assert labs.lab().apply().ok
    assert run(labs.second(), APPLY, step) in {-signal.SIGKILL, 0}
    as_the_second(labs.second().lab())
    clean(labs.second().lab())


@pytest.mark.parametrize("step", [1, 4, 8])
def test_killed_before_a_step_of_the_first_apply(folder: Path, step: int) -> None:
    """Killed, and then another version is applied: what the first one made is known and goes."""
    labs = Labs(str(folder))
    assert run(labs, APPLY, step) == -signal.SIGKILL
    as_the_second(labs.second().lab())
    clean(labs.second().lab())


@pytest.mark.parametrize("step", [2, 5])
def test_killed_while_destroying(folder: Path, step: int) -> None:
    labs = Labs(str(folder))
    assert labs.lab().apply().ok
    assert run(labs, DESTROY, step) == -signal.SIGKILL
    clean(labs.lab())


@pytest.mark.parametrize("delay", [0.1, 0.5, 1.2])
def test_killed_at_any_moment(folder: Path, delay: float) -> None:
    labs = Labs(str(folder))
    assert labs.lab().apply().ok
    manifest = folder / "root/state/manifest.json"
    started = manifest.stat().st_mtime_ns
    process = subprocess.Popen(labs.second().arguments(APPLY))
    while manifest.stat().st_mtime_ns == started:
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    process.wait()
    as_the_second(labs.second().lab())
    clean(labs.second().lab())


def test_interrupted_it_stops_between_steps_and_says_where(folder: Path) -> None:
    labs = Labs(str(folder), slow=30)
    process = subprocess.Popen(labs.arguments(APPLY))
    while not (folder / "root" / "d.pid").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    quick = replace(labs, slow=0).lab()
    assert quick.apply().ok
    clean(quick)
