"""The benchmarks run: what they measure is a lab, and what they print is read by people."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.render import lab
from labctl.usecases import load


def test_the_generated_lab_renders(tmp_path: Path) -> None:
    tmp_path.joinpath("lab.yaml").write_text(lab(3))
    rendered = load(tmp_path).need_rendered()
    assert {unit.name for unit in rendered.tree.units} == {"app-0", "app-1", "app-2"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["startup", "labs"])
def test_it_prints_a_table(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) > 4
