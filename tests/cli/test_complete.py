"""Completion of names in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.labs import EXAMPLES


@pytest.mark.parametrize(
    ("lab", "words", "found"),
    [
        ("quickstart", ["logs", "al"], ["alpha"]),
        ("quickstart", ["apply", "--only", "g"], ["gateway"]),
        ("p106-farm", ["status", "--host", ""], ["ash", "image", "prod"]),
        ("p106-farm", ["rollback", "a"], ["ash"]),
        ("k3s-droplet", ["switch", "g"], ["gpu"]),
        ("k3s-droplet", ["switch", "gpu", ""], ["ollama", "vllm-ocr"]),
    ],
)
def test_names_of_the_lab(lab: str, words: list[str], found: list[str]) -> None:
    assert complete(EXAMPLES / lab, words) == found


def test_a_lab_that_cannot_be_read_completes_nothing(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("hosts: [")
    assert complete(tmp_path, ["status", "--host", ""]) == []
    assert complete(tmp_path / "..", ["switch", ""]) == []


def complete(folder: Path, words: list[str]) -> list[str]:
    line = ["labctl", *words]
    environment = {"COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(words)), "_LABCTL_COMPLETE": "complete_bash"}
    command = [str(Path(sys.executable).with_name("labctl"))]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return sorted(done.stdout.split())
