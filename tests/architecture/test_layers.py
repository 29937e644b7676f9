"""The rooms import only from the rooms below them, and heavy packages stay where they are needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

HEAVY = (
    "httpx",
    "jinja2",
    "rich",
    "kubernetes",
    "ansible_runner",
    "supervisor",
    "xllamacpp",
    "litellm",
    "yaml",
    "numpy",
)


def test_contracts() -> None:
    """The contracts of ``[tool.importlinter]`` in pyproject.toml hold."""
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed: uv pip install import-linter")
    done = subprocess.run(
        [tool, "--no-cache", "--verbose"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("entry", ["labctl", "labctl.diagnostics", "labctl.compat", "labctl.cli.app"])
def test_starting_imports_nothing_heavy(entry: str) -> None:
    """What every command pays for at its start is only what every command needs."""
    script = f"import sys, {entry}; print(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_help_needs_no_model() -> None:
    script = "import sys, labctl.cli.app; print(' '.join(m for m in ('pydantic', 'ruamel.yaml') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
