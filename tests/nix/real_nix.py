"""The real ``nix-instantiate``, without a store: it parses and evaluates, and never builds or downloads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def parse(*files: Path) -> None:
    """Fail with Nix's own message unless every file is Nix."""
    _run("--parse", *map(str, files))


def evaluate(file: Path, attribute: str = "") -> Any:
    """Return the value of a file, or of an attribute of it, wholly evaluated. AssertionError with Nix's message."""
    choice = ("-A", attribute) if attribute else ()
    return json.loads(_run("--eval", "--strict", "--json", *choice, str(file)))


def _run(*arguments: str) -> str:
    program = shutil.which("nix-instantiate")
    if program is None:
        pytest.skip("Nix is not installed: apt-get install nix-bin")
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NIX_REMOTE": "dummy://"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
