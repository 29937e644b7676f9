"""The README's example: what labctl prints for the lab.yaml that stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_LAB = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OUTPUT = re.compile(r"(^```console\n\$ labctl )([^\n]+)\n(.*?)(^```$)", re.MULTILINE | re.DOTALL)


def page(text: str) -> str:
    """Return the README with the output of every ``$ labctl …`` in a console block as it is now."""
    found = _LAB.search(text)
    if found is None:
        message = "README.md has no lab.yaml in a ```yaml block"
        raise ValueError(message)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "lab.yaml").write_text(found[1], encoding="utf-8")
        return _OUTPUT.sub(lambda m: f"{m[1]}{m[2]}\n{_said(m[2].split(), Path(folder))}{m[4]}", text)


def _said(arguments: list[str], folder: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_STATE_HOME": str(folder), "COLUMNS": "100"}
    call = [sys.executable, "-m", "labctl", *arguments]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"`labctl {' '.join(arguments)}` failed on the README's lab:\n{done.stderr}"
        raise ValueError(message)
    return done.stdout
