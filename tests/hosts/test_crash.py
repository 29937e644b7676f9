"""An apply that is killed at any step, or anywhere at all: the next one finishes the work, and nothing is left over."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from labctl.artefact import File, ModelFile
from labctl.hosts.work import CRASH
from tests.hosts.labs import HOST, Lab, Program, free_port, snapshot

pytestmark = pytest.mark.slow
pytest.importorskip("supervisor", reason="the package supervisor is not installed")

APPLY = """
import pickle, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
from tests.hosts.labs import Lab
sys.exit(Lab(*pickle.load(open(sys.argv[1], "rb"))).apply().exit_code)
"""
DESTROY = APPLY.replace("apply()", "destroy()")


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lab-"))
    yield made
    shutil.rmtree(made)


def labs(folder: Path) -> tuple[Lab, Lab]:
    """Two versions of a lab: a file goes, one comes, one changes, a program goes, one changes."""
    source = folder / "weights"
    source.write_bytes(b"weights" * 1000)
    ports = [free_port() for _ in range(3)]
    first = Lab(
        folder / "root",
        {"web": Program(port=ports[0], secret=True), "old": Program(port=ports[1])},
        [
            File(host=HOST, path="deep/er/old.txt", content=b"old"),
            File(host=HOST, path="same.txt", content=b"first"),
            ModelFile(host=HOST, path="models/m", url=source.as_uri()),
        ],
    )
    second = Lab(
        folder / "root",
        {"web": Program(port=ports[0], text="second", secret=True), "new": Program(port=ports[2], after=("web",))},
        [
            File(host=HOST, path="same.txt", content=b"second"),
            File(host=HOST, path="quite/new.txt", content=b"new"),
            ModelFile(host=HOST, path="models/m", url=source.as_uri()),
        ],
    )
    return first, second


def run(lab: Lab, script: str, environment: Mapping[str, str]) -> int:
    """Apply in a process of its own; return its exit status."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(_pickled(lab))
        done = subprocess.run([sys.executable, "-c", script, file.name], env={**os.environ, **environment}, check=False)
    return done.returncode


def _pickled(lab: Lab) -> bytes:
    """A lab without its secrets: those refuse to be copied, and the default is the same."""
    return pickle.dumps((lab.root, lab.programs, lab.extra))


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
    first, second = labs(folder)
    assert first.apply().ok
    code = run(second, APPLY, {CRASH: str(step)})
    assert code in {-signal.SIGKILL, 0}
    as_the_second(second)
    clean(second)


@pytest.mark.parametrize("step", [1, 4, 8])
def test_killed_before_a_step_of_the_first_apply(folder: Path, step: int) -> None:
    """Killed, and then another version is applied: what the first one made is known and goes."""
    first, second = labs(folder)
    assert run(first, APPLY, {CRASH: str(step)}) == -signal.SIGKILL
    as_the_second(second)
    clean(second)


@pytest.mark.parametrize("step", [2, 5])
def test_killed_while_destroying(folder: Path, step: int) -> None:
    first, _ = labs(folder)
    assert first.apply().ok
    assert run(first, DESTROY, {CRASH: str(step)}) == -signal.SIGKILL
    clean(first)


@pytest.mark.parametrize("delay", [0.1, 0.5, 1.2])
def test_killed_at_any_moment(folder: Path, delay: float) -> None:
    first, second = labs(folder)
    assert first.apply().ok
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(_pickled(second))
        started = (folder / "root/state/manifest.json").stat().st_mtime_ns
        process = subprocess.Popen([sys.executable, "-c", APPLY, file.name])
        while (folder / "root/state/manifest.json").stat().st_mtime_ns == started and process.poll() is None:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.wait()
    as_the_second(second)
    clean(second)


def test_interrupted_it_stops_between_steps_and_says_where(folder: Path) -> None:
    first, _ = labs(folder)
    first.change("web", slow=30)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(_pickled(first))
        process = subprocess.Popen([sys.executable, "-c", APPLY, file.name])
        while not (folder / "root" / "d.pid").exists():
            time.sleep(0.05)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    first.change("web", slow=0)
    assert first.apply().ok
    clean(first)
