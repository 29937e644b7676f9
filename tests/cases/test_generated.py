"""Mistakes too large or too odd to be kept as files; each is refused with a code, quickly, and nothing written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases.running import Labctl
from tests.examples.labs import EXAMPLES

LAB = """\
lab: sample
hosts:
  box: {address: 192.168.1.5, target: compose, memory: 64 GiB, gpus: [{model: RTX 3090}]}
models:
  llama: {gguf: hf://bartowski/Meta-Llama-3.1-8B-Instruct-GGUF/Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf}
deployments:
  chat: {model: llama, engine: llama.cpp, on: {host: box, gpus: [0]}, context: 8192}
"""


@pytest.fixture
def labctl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Labctl:
    return Labctl(tmp_path, capsys)


def refused(labctl: Labctl, code: str, *words: str, path: str = "lab.yaml", limit: float = 20) -> None:
    begin = time.monotonic()
    ran = labctl("validate", path)
    assert time.monotonic() - begin < limit
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error[{code}]: "), ran.err
    assert ran.err.count("error[") == 1
    assert "\nhint: " in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err) < 2000
    for word in words:
        assert word in ran.err


def test_a_huge_file(labctl: Labctl) -> None:
    with (labctl.folder / "lab.yaml").open("w") as file:
        file.write(LAB)
        file.writelines(f"x-{i}: {'x' * 1000}\n" for i in range(52_000))
    refused(labctl, "LAB003", "at most 4 MiB")


def test_a_huge_line(labctl: Labctl) -> None:
    (labctl.folder / "lab.yaml").write_text(LAB.replace("sample", "x" * 3_000_000))
    refused(labctl, "LAB026", "lab.yaml:1:6")


@pytest.mark.slow
def test_a_huge_unclosed_line(labctl: Labctl) -> None:
    (labctl.folder / "lab.yaml").write_text("lab: [" + "a, " * 1_000_001)
    refused(labctl, "LAB003", "lab.yaml:1:2999998", limit=60)


def test_many_brackets(labctl: Labctl) -> None:
    (labctl.folder / "lab.yaml").write_text("lab: " + "[" * 1_000_000)
    refused(labctl, "LAB003", "lab.yaml:1:")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def nothing(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize("make", [a_folder, a_fifo, a_loop, nothing])
def test_no_file(make: Callable[[Path], None], labctl: Labctl) -> None:
    make(labctl.folder / "lab.yaml")
    refused(labctl, "LAB001", "lab.yaml", path=".")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(labctl: Labctl) -> None:
    (labctl.folder / "lab.yaml").write_text(LAB)
    (labctl.folder / "lab.yaml").chmod(0)
    refused(labctl, "LAB001", "permission denied")


@pytest.mark.parametrize("name", ["no\nfile", "\x1b[31mred", "é" * 300, "../" * 2000])
def test_odd_paths(name: str, labctl: Labctl) -> None:
    ran = labctl("validate", name)
    assert (ran.code, ran.out) == (1, "")
    assert "error[LAB001]" in ran.err
    assert "\x1b" not in ran.err


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, lambda t: t.rstrip("\n")]
)
def test_files_of_other_editors_are_fine(change: Callable[[str], str], labctl: Labctl) -> None:
    (labctl.folder / "lab.yaml").write_text(change(LAB), newline="", encoding="utf-8")
    ran = labctl("validate")
    assert (ran.code, ran.err) == (0, "the lab is valid\n")


def test_places_are_right_in_files_of_other_editors(labctl: Labctl) -> None:
    text = "\ufeff" + LAB.replace("engine: llama.cpp", "engine: lama.cpp").replace("\n", "\r\n")
    (labctl.folder / "lab.yaml").write_text(text, newline="", encoding="utf-8")
    refused(labctl, "LAB056", "lab.yaml:7:32", "  |                                ^^^^^^^^\n")


@pytest.mark.parametrize("example", sorted(p.name for p in EXAMPLES.iterdir()))
def test_a_valid_lab_is_only_looked_at(example: str, labctl: Labctl) -> None:
    (labctl.folder / "lab.yaml").write_text((EXAMPLES / example / "lab.yaml").read_text())
    ran = labctl("validate")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.endswith("the lab is valid\n")
