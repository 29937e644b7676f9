"""What every example keeps to: short, pinned, and silent about secrets."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.cli.funnel import run
from labctl.workload import Container
from tests.examples import labs

SENTINEL = "this-must-not-appear"
LINES = 80
each = pytest.mark.parametrize("name", labs.NAMES)


@each
def test_fits_on_a_screen_and_a_half(name: str) -> None:
    text = (labs.EXAMPLES / name / "lab.yaml").read_text()
    assert len([line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]) <= LINES


@each
def test_every_image_is_pinned(name: str) -> None:
    rendered = labs.example(name).need_rendered()
    images = [form.image for w in rendered.workloads for form in w.forms if isinstance(form, Container)]
    for image in images:
        tag = image.rpartition("/")[2].partition(":")[2]
        assert tag, image
        assert "latest" not in tag, image
    for file in rendered.tree.files():
        if labs.is_text(file):
            assert not re.search(rb"^(FROM|\s*image:) .*(:latest\b|/[^:@\s]+$)", file.content, re.MULTILINE), file.path


def commands(lab: Path, out: Path) -> Iterator[tuple[str, ...]]:
    """Yield every command that says something about a lab without changing a host."""
    yield ("validate", str(lab))
    yield ("validate", "--json", str(lab))
    yield ("render", str(lab))
    yield ("render", "--json", str(lab))
    yield ("render", "--out", str(out), str(lab))
    yield ("plan", "--offline", "--diff", "--out", str(out.with_suffix(".json")), str(lab))
    yield ("plan", "--offline", "--json", str(lab))
    yield ("vram-budget", "--json", str(lab))


@each
def test_no_output_holds_a_secret(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, out = tmp_path / name, tmp_path / "out"
    shutil.copytree(labs.EXAMPLES / name, lab, ignore=shutil.ignore_patterns(".env"))
    names = sorted(labs.tree(labs.example(name)).secret_names)
    values = {secret: f"{SENTINEL}-{i}" for i, secret in enumerate(names)}
    (lab / ".env").write_text("".join(f"{secret}={value}\n" for secret, value in values.items()))
    (lab / ".env").chmod(0o600)
    for variable, value in {**values, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}.items():
        monkeypatch.setenv(variable, value)
    for command in commands(lab, out):
        code = run(list(command))
        said = capsys.readouterr()
        assert code == 0, (command, said.err)
        assert SENTINEL not in said.out + said.err, command
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".env"]
    assert len(written) > 2
    assert [p for p in written if SENTINEL.encode() in p.read_bytes()] == []
    kept = json.loads(out.with_suffix(".json").read_text())
    assert set(kept["hosts"]) == set(labs.tree(labs.example(name)).hosts)
