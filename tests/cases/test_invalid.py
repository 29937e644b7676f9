"""The corpus: a folder per mistake, its ``lab.yaml``, and beside it all that ``labctl validate`` says.

A case needs no Python: make the folder, write ``lab.yaml`` (and ``args`` with further arguments), run
``pytest tests/cases --snapshot-update`` and read ``expected.txt``.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.data import SnapshotCollections

from tests.cases.running import CASES, NAMES, Labctl, transcript
from tests.snapshot_files import Files

EXPECTED = "expected.txt"
PLACE = re.compile(r"^ *--> \S+:\d+:\d+$")
HEAD = re.compile(r"^error\[(LAB\d{3})\]: ", re.MULTILINE)


class CaseFiles(Files):
    """``expected.txt`` beside ``lab.yaml``; nothing else in there is a snapshot."""

    root = CASES
    test = "test_case"

    def discover_snapshots(
        self,
        *,
        test_location: Any,
        ignore_extensions: list[str] | None = None,  # noqa: ARG002 - syrupy's signature
    ) -> SnapshotCollections:
        found = SnapshotCollections()
        for path in Path(self.dirname(test_location=test_location)).glob(EXPECTED):
            found.add(self.read_snapshot_collection(snapshot_location=str(path)))
        return found


def copied(name: str, folder: Path) -> tuple[str, ...]:
    """Copy a case, its permissions as a user's would be; returns the arguments that the command takes."""
    shutil.copytree(CASES / name, folder / name, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(EXPECTED))
    for secrets in (folder / name).glob(".env"):
        secrets.chmod(0o600)
    further = folder / name / "args"
    return (name, *shlex.split(further.read_text() if further.exists() else ""))


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, snapshot: SnapshotAssertion, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Labctl(tmp_path, capsys)("validate", *copied(name, tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert "Traceback" not in ran.err
    assert "bug in labctl" not in ran.err
    for block in errors(ran.err):
        check(block)
    assert transcript(ran) == snapshot.use_extension(CaseFiles)(name=EXPECTED)


def errors(text: str) -> list[str]:
    """Return the text of each error."""
    starts = [match.start() for match in HEAD.finditer(text)]
    assert starts, text
    return [text[start : text.find("\n\n", start) + 1] for start in starts]


def check(block: str) -> None:
    """Every error has a code, a place and a remedy: a hint, or a label beside the caret."""
    lines = block.splitlines()
    missing_file = HEAD.match(block) and "LAB001" in lines[0]
    assert missing_file or any(PLACE.match(line) for line in lines), block
    labelled = any(re.search(r"\^ \S", line) for line in lines)
    assert labelled or any(line.startswith("hint: ") for line in lines), f"no remedy:\n{block}"


def test_the_corpus_is_large() -> None:
    assert len(NAMES) >= 90
