"""The real ``docker compose``, as built by ``tests/tools/install-compose``; only ``config``, which needs no engine."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@functools.cache
def command() -> tuple[str, ...] | None:
    """Return how compose is called here: $LABCTL_TOOLS, the tools cache, or the Docker CLI's plug-in."""
    tools = Path(os.environ.get("LABCTL_TOOLS") or Path.home() / ".cache/labctl-tools")
    for folder in (tools / "bin", Path("/usr/libexec/docker/cli-plugins"), Path("/usr/lib/docker/cli-plugins")):
        if os.access(folder / "docker-compose", os.X_OK):
            return (
                (str(folder / "docker-compose"), "compose")
                if "plugins" in str(folder)
                else (str(folder / "docker-compose"),)
            )
    docker = shutil.which("docker")
    works = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    return (docker, "compose") if docker and works else None


def run(file: Path, *arguments: str) -> str:
    """Return what ``docker compose -f FILE config …`` prints; skips without compose, fails with its message."""
    found = command()
    if found is None:
        pytest.skip("docker compose is not here: run tests/tools/install-compose")
    done = subprocess.run([*found, "-f", str(file), "config", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@contextmanager
def folder() -> Iterator[Path]:
    """Yield an empty folder: hypothesis examples must not share one."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
