"""The real ``kustomize``, as built by CI from its Go module; it reads files only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def build(folder: Path) -> str:
    """Return what ``kustomize build`` makes of a folder; skips without it, fails with its message."""
    tools = Path(os.environ.get("LABCTL_TOOLS") or Path.home() / ".cache/labctl-tools")
    found = tools / "bin/kustomize"
    program = str(found) if os.access(found, os.X_OK) else shutil.which("kustomize")
    if program is None:
        pytest.skip("kustomize is not here: see .ci/run, install-tools")
    done = subprocess.run([program, "build", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
