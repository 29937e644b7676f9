"""Running ``labctl validate`` in this process, as a user would in a folder of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from labctl.cli.funnel import run
from tests.cli.running import Ran
from tests.examples.labs import bare

CASES = Path(__file__).parent / "invalid"
NAMES = tuple(sorted(path.name for path in CASES.iterdir() if path.is_dir()))


@dataclass(frozen=True, slots=True)
class Labctl:
    """Runs labctl in a folder, and looks that nothing in there changes."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Ran:
        before = listing(self.folder)
        with bare(self.folder):
            code = run(list(arguments))
        said = self.capture.readouterr()
        assert listing(self.folder) == before, "validate has written something"
        return Ran(code, said.out, said.err)


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return every path below a folder with what would change if it were written."""
    found = {}
    for base, folders, files in os.walk(folder):
        for path in (Path(base) / name for name in (*folders, *files)):
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def transcript(ran: Ran) -> str:
    """Return everything that a command left behind as one text."""
    return f"exit code {ran.code}\n" + _part("stdout", ran.out) + _part("stderr", ran.err)


def _part(name: str, text: str) -> str:
    return f"----- {name} -----\n{text}" if text else ""
