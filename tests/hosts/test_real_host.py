"""Runs the suites of ``tests/rig/inside`` in a real host with its own systemd and Docker (``tests/rig/host``)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
RIG = ROOT / "tests" / "rig" / "host"
NEEDED = ("systemd-nspawn", "mmdebstrap", "nsenter", "zstd")


@pytest.fixture(scope="module")
def host() -> Iterator[None]:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"a real host needs {', '.join(missing)}: run tests/rig/host setup")
    if os.geteuid() != 0:
        pytest.skip("a real host needs root")
    up = subprocess.run([RIG, "up"], capture_output=True, text=True, check=False, timeout=900)
    if up.returncode != 0:
        pytest.skip(f"no real host can be started on this machine:\n{up.stderr[-2000:]}")
    yield
    subprocess.run([RIG, "down"], check=False, timeout=120)


@pytest.mark.parametrize("suite", ["test_systemd.py", "test_compose.py"])
def test_inside(host: None, suite: str) -> None:  # noqa: ARG001 - it has to be up
    ran = subprocess.run([RIG, "pytest", f"tests/rig/inside/{suite}"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-8000:]
    assert " passed" in ran.stdout
    assert " skipped" not in ran.stdout
