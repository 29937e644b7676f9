"""For every test: no connection leaves this machine."""

from __future__ import annotations

import os
from pathlib import Path

GUARD = Path(__file__).parent / "ssh" / "guard"
"""Stands in for ssh: refuses every destination but loopback addresses and the rig's network."""


def pytest_configure() -> None:
    """Before anything is imported or started: programs that tests start inherit it."""
    os.environ["LABCTL_SSH"] = str(GUARD)
    os.environ.pop("LABCTL_SUDO_PASSWORD", None)
