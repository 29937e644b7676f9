"""Running labctl as its users do: a process of its own, with exit code, stdout and stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ssh.servers import GUARD


@dataclass(frozen=True, slots=True)
class Ran:
    """What a finished command left behind."""

    code: int
    out: str
    err: str


def labctl(
    *arguments: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None, python: Sequence[str] = ()
) -> Ran:
    """Run ``python -m labctl`` with an environment that holds nothing but PATH, the guard of SSH and what is given."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LABCTL_SSH": str(GUARD), **(environment or {})}
    command = [sys.executable, *python, "-m", "labctl", *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)
