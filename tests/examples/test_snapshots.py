"""Every example renders to exactly the files under ``tests/snapshots/<example>``.

``pytest tests/examples --snapshot-update`` writes them anew, to be read in review.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.examples import labs
from tests.snapshot_files import TESTS, Files


class ExampleFiles(Files):
    """``tests/snapshots/<example>/<host>/<path>``."""

    root = TESTS / "snapshots"
    test = "test_tree"


@pytest.mark.parametrize("name", labs.NAMES)
def test_tree(name: str, snapshot: SnapshotAssertion, subtests: pytest.Subtests, pytestconfig: pytest.Config) -> None:
    kept = labs.snapshots(name)
    files = snapshot.use_extension(ExampleFiles)
    for path, text in kept.items():
        with subtests.test(path):
            assert text == files(name=path)
    if not pytestconfig.option.update_snapshots:
        folder = ExampleFiles.root / name
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert not there - set(kept), "the example no longer renders these"


def test_every_example_has_snapshots_and_no_other() -> None:
    assert len(labs.NAMES) >= 6
    assert sorted(path.name for path in ExampleFiles.root.iterdir()) == list(labs.NAMES)


def changed(folder: Path) -> str:
    (folder / "manifest.txt").write_text("something else\n")
    return "something else"


def new(folder: Path) -> str:
    (folder / "manifest.txt").unlink()
    return "manifest.txt"


def vanished(folder: Path) -> str:
    (folder / "here" / "old.conf").write_text("once rendered\n")
    return "old.conf"


def untouched(folder: Path) -> str:
    assert folder.is_dir()
    return "1 passed"


@pytest.mark.slow
@pytest.mark.parametrize("alter", [untouched, changed, new, vanished])
def test_snapshots_notice(alter: Callable[[Path], str], tmp_path: Path) -> None:
    """A changed, a new and a vanished file each fail: in a copy of this folder and of the snapshots."""
    for path in ("tests/snapshots/quickstart", "examples/quickstart"):
        shutil.copytree(labs.ROOT / path, tmp_path / path)
    module = "tests/examples/test_snapshots.py"
    (tmp_path / module).parent.mkdir()
    for path in (module, "tests/examples/labs.py", "tests/snapshot_files.py", "pyproject.toml"):
        shutil.copy(labs.ROOT / path, tmp_path / path)
    for package in ("tests", "tests/examples"):
        (tmp_path / package / "__init__.py").touch()
    expected = alter(tmp_path / "tests/snapshots/quickstart")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "test_tree and quickstart"]
    done = subprocess.run([*command, module], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if alter is untouched else 1), done.stdout
    assert expected in done.stdout, done.stdout
