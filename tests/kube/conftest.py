"""One control plane for all tests; each test has a namespace of its own."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.labs import Lab
from tests.rig.kube.cluster import ControlPlane, binaries


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    if binaries() is None:
        pytest.skip("there is no kube-apiserver: run tests/tools/install-kube (ten minutes, once)")
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder) / "plane")
        plane.start({"gpu1": 1, "gpu2": 1, "gpu3": 1})
        try:
            yield plane
        finally:
            plane.stop()


@pytest.fixture
def lab(plane: ControlPlane, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab in a namespace named after the test."""
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")[:40].strip("-")
    return Lab(plane, name)
