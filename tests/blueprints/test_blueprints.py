"""Every shipped blueprint is valid as it is, and ``labctl init`` copies it without harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from labctl.blueprints import blueprints
from labctl.usecases import validate
from tests.cli.running import labctl
from tests.examples.labs import ROOT, bare, said

NAMES = sorted(path.parent.name for path in (ROOT / "blueprints").glob("*/lab.yaml"))


def test_there_are_some() -> None:
    assert "quickstart" in NAMES
    assert list(blueprints()) == NAMES
    assert all(b.about.endswith((".", "?")) or "." in b.about for b in blueprints().values())


@pytest.mark.parametrize("name", NAMES)
def test_a_blueprint_is_a_valid_lab_and_is_copied_as_it_is(name: str, tmp_path: Path) -> None:
    made = labctl("init", "lab", "--blueprint", name, cwd=tmp_path)
    assert (made.code, made.out) == (0, "lab/README.md\nlab/lab.yaml\n"), made.err
    for file in ("README.md", "lab.yaml"):
        assert (tmp_path / "lab" / file).read_bytes() == (ROOT / "blueprints" / name / file).read_bytes()
    with bare(tmp_path):
        loaded = validate(Path("lab"))
    assert not [d for d in loaded.diagnostics if d.code != "LAB089"], said(loaded)
    assert loaded.rendered is not None
    assert loaded.rendered.tree.units


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text("mine")
    ran = labctl("init", ".", "--blueprint", "quickstart", cwd=tmp_path)
    assert ran.code == 1
    assert "error[LAB088]: `lab.yaml` is there already" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["lab.yaml"]
    assert (tmp_path / "lab.yaml").read_text() == "mine"


def test_a_misspelt_name_is_nearly_found(tmp_path: Path) -> None:
    ran = labctl("init", "lab", "--blueprint", "quickstrat", cwd=tmp_path)
    assert ran.code == 1
    assert "hint: did you mean `quickstart`?" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "lab").write_text("a file")
    ran = labctl("init", "lab", "--blueprint", "quickstart", cwd=tmp_path)
    assert ran.code == 1
    assert "error[LAB088]" in ran.err


def test_without_a_terminal_nothing_is_asked(tmp_path: Path) -> None:
    ran = labctl("init", "lab", cwd=tmp_path)
    assert ran.code == 2
    assert "labctl init --list" in ran.err


def test_the_list(tmp_path: Path) -> None:
    ran = labctl("init", "--list", cwd=tmp_path)
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == NAMES


def test_ones_own_blueprints_come_first(tmp_path: Path) -> None:
    own = tmp_path / "labctl/blueprints/quickstart"
    own.mkdir(parents=True)
    own.joinpath("lab.yaml").write_text("# My own.\nlab: mine\n")
    ran = labctl("init", "--list", environment={"XDG_CONFIG_HOME": str(tmp_path)})
    assert "quickstart                  My own." in ran.out
