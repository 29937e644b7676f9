"""The real programs read what the examples render to: docker compose, systemd, LiteLLM."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from labctl.artefact import Manager, SecretFile, Tree
from tests.examples import labs
from tests.tools import compose

pytestmark = pytest.mark.parametrize("name", labs.NAMES)
_PROGRAM = re.compile(r"^(ExecStart=)(\S+)", re.MULTILINE)


def write(tree: Tree, folder: Path) -> list[Path]:
    """Write a tree with made-up secrets, as an apply would leave it; returns the files."""
    written = [_write(folder / file.host / file.path, file.content) for file in tree.files()]
    for artefact in tree.artefacts:
        if isinstance(artefact, SecretFile):
            text = "".join(f'{name}="made-up"\n' for name in artefact.entries)
            written.append(_write(folder / artefact.host / artefact.path, text.encode()))
    return written


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def managed_by(tree: Tree, *managers: Manager) -> set[str]:
    return {unit.project for unit in tree.units if unit.manager in managers}


def test_docker_compose_reads_every_file(name: str, tmp_path: Path) -> None:
    tree = labs.tree(labs.example(name))
    projects = managed_by(tree, Manager.COMPOSE)
    files = [p for p in write(tree, tmp_path) if p.name == "compose.yaml"]
    assert {"/".join(p.relative_to(tmp_path).parts[1:]) for p in files} == projects
    for file in files:
        assert compose.run(file, "--quiet") == ""


def test_systemd_accepts_every_unit(name: str, tmp_path: Path) -> None:
    """Programs of the lab's hosts are not here: each is taken to be ``/usr/bin/true``, its arguments stay."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None or not Path("/usr/bin/curl").exists():
        pytest.skip("systemd-analyze and /usr/bin/curl are needed to check units")
    tree = labs.tree(labs.example(name))
    units = [p for p in write(tree, tmp_path) if p.suffix in {".service", ".target"}]
    assert {f"etc/systemd/system/{p.name}" for p in units} >= managed_by(tree, Manager.SYSTEMD)
    for unit in units:
        unit.write_text(_PROGRAM.sub(r"\1/usr/bin/true", unit.read_text()))
    if units:
        command = [analyze, "--man=no", "verify", *map(str, units)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_litellm_knows_every_setting(name: str) -> None:
    strict = pytest.importorskip("tests.gateways.strict", reason="LiteLLM is not installed", exc_type=ImportError)
    loaded = labs.example(name)
    configs = [f for f in labs.tree(loaded).files() if f.path.endswith("gateway/config.yaml")]
    lab = loaded.need_placed().lab
    rendered = {name for name, host in lab.hosts.items() if host.target in {"compose", "systemd", "local"}}
    wanted = lab.gateway is not None and lab.gateway.engine == "litellm" and lab.gateway.host in rendered
    assert len(configs) == int(wanted)
    for file in configs:
        assert strict.problems(file.content.decode()) == []
