"""supervisor's own options parser."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Program:
    """What supervisor understood of one ``[program:…]``."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    config: Any


def programs(text: str, folder: Path) -> list[Program]:
    """Load ``text`` as supervisord does and return its programs; skips, saying so, without supervisor."""
    options = load(text, folder)
    configs = [
        config for group in options.configroot.supervisord.process_group_configs for config in group.process_configs
    ]
    return [Program(c.name, shlex.split(c.command), dict(c.environment or {}), c) for c in configs]


def load(text: str, folder: Path) -> Any:
    """Return supervisord's realised options for a configuration file with this text."""
    module = pytest.importorskip("supervisor.options", reason="supervisor is not installed")
    path = folder / "supervisord.conf"
    path.write_text(text, encoding="utf-8")
    options = module.ServerOptions()
    options.environ_expansions = {f"ENV_{name}": value for name, value in os.environ.items()}
    options.realize(["-c", str(path)], doc="")
    return options
