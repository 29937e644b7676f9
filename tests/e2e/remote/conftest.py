"""One rig of three hosts for all tests; each test runs inside its network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.remote.home import HOSTS
from tests.rig.rig import Rig, joined


@pytest.fixture(scope="session")
def machines(request: pytest.FixtureRequest) -> Rig:
    return joined(request.config, hosts=len(HOSTS))


@pytest.fixture(scope="module")
def rig(machines: Rig) -> Iterator[Rig]:
    """The hosts; while it is in use, this process is in their network."""
    with machines.entered():
        yield machines
