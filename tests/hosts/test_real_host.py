"""Runs the suites of ``tests/rig/inside`` in a real host with its own systemd and Docker (``tests/rig/lab``)."""

from __future__ import annotations

import subprocess

import pytest

from tests.rig import rig

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("suite", ["test_systemd.py", "test_compose.py"])
def test_inside(request: pytest.FixtureRequest, suite: str) -> None:
    rig.joined(request.config, hosts=1)
    command = [str(rig.PROGRAM), "pytest", f"tests/rig/inside/{suite}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-8000:]
    assert " passed" in ran.stdout
    assert " skipped" not in ran.stdout
