"""The connection to this very machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from labctl.agent import files
from labctl.agent.files import sha256, temporary
from labctl.hosts.caller import DirectCaller
from labctl.hosts.shell import AgentShell

__all__ = ["CHUNK", "LocalShell", "sha256", "sync_folder", "temporary"]

CHUNK: Final = files.CHUNK


class LocalShell(AgentShell):
    """``Shell`` for this machine: the agent's operations, called directly."""

    def __init__(self) -> None:
        super().__init__(DirectCaller())


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power failure."""
    files.sync_folder(str(folder))
